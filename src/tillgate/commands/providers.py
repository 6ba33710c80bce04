"""`tillgate providers`: who can be collected through, and what each takes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tillgate.commands.output import Json, emit_json, fail, table
from tillgate.domain.errors import TillgateError
from tillgate.domain.money import Money


def providers(
    name: Annotated[str | None, typer.Argument(help="One of them, with all its settings.")] = None,
    as_json: Json = False,
) -> None:
    """List providers with their channels, or one with the settings that an account takes."""
    from tillgate.http.v1.accounts import describe
    from tillgate.registry import providers as registered

    try:
        known = registered()
    except TillgateError as error:
        fail(str(error))
        return
    if name is not None and name not in known:
        fail(f"there is no provider {name}; there are {', '.join(sorted(known))}")
    shown = [describe(one) for key, one in sorted(known.items()) if name in (None, key)]
    if as_json:
        import msgspec

        emit_json(msgspec.to_builtins(shown if name is None else shown[0]))
        return
    if name is None:
        rows = [
            {
                "name": one.name,
                "title": one.title,
                "channels": ", ".join(f"{channel.id} ({channel.currency})" for channel in one.channels),
                "settings": ", ".join(field.name for field in one.config if field.required),
            }
            for one in shown
        ]
        table(rows, ("name", "title", "channels", "settings"), empty="There are none.", as_json=False)
        return
    [one] = shown
    typer.echo(f"{one.title}\n")
    for channel in one.channels:
        low, high = (Money(value, channel.currency) for value in (channel.min_minor, channel.max_minor))
        typer.echo(f"channel {channel.id}: {channel.name}, {low} to {high}")
    for path, what in one.paths.items():
        typer.echo(f"path {path}: {what}")
    typer.echo("")
    table(
        [_field(field) for field in one.config], ("setting", "type", "", "default"), empty="", as_json=False
    )


def _field(field: Any) -> dict[str, Any]:
    notes = [word for word, said in (("required", field.required), ("secret", field.secret)) if said]
    default = field.default
    if isinstance(default, list | tuple):
        default = ", ".join(map(str, default))
    elif isinstance(default, bool):
        default = str(default).lower()
    default = "" if default is None else default
    return {"setting": field.name, "type": field.type, "": ", ".join(notes), "default": default}
