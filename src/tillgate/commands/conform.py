"""`tillgate conform`: run a provider's official scenarios, or the callbacks' rules, against any endpoint."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tillgate.commands.output import command, fail

if TYPE_CHECKING:
    from tillgate.conform import Option, Suite


@command
async def conform(
    suite: Annotated[str | None, typer.Argument(help="Which suite; without one, all are listed.")] = None,
    url: Annotated[str | None, typer.Option(help="The endpoint to judge.")] = None,
    host: Annotated[str, typer.Option(help="Instead of a URL, for suites that speak TCP.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="The same.", min=1, max=65535)] = None,
    key: Annotated[
        str | None,
        typer.Option(help="The same as -o key=…; env:VARIABLE keeps it out of the process list."),
    ] = None,
    secret: Annotated[str | None, typer.Option(help="The same as -o secret=…, likewise.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", help="NAME=VALUE, again and again; NAME=env:VARIABLE keeps it secret."
        ),
    ] = None,
    only: Annotated[str, typer.Option(help="Only checks whose id starts with this.")] = "",
    timeout_s: Annotated[float, typer.Option(help="How long one check may take.", min=1)] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_junit: Annotated[bool, typer.Option("--junit", help="Print JUnit XML.")] = False,
) -> None:
    """Judge an endpoint, ours or yours, by a provider's rules; `callback` is a shop's own, by the hub's.

    Exit code 1 if a rule is broken, or could not be judged because too few orders were named."""
    from tillgate import conform as runner

    suites = _suites()
    if suite is None:
        _list(suites)
        return
    found = suites.get(suite)
    if found is None:
        fail(f"there is no suite {suite}; there are {', '.join(suites)}", 2)
        return
    url = url or (f"tcp://{f'[{host}]' if ':' in host else host}:{port}" if port is not None else None)
    given = [*(option or [])]
    if url is None:
        fail(f"--url is needed\n\n{_described(found)}", 2)
        return
    try:
        for name, value in (("key", key), ("secret", secret)):
            if value is not None:
                given.append(f"{_known(found, name)}={value}")
        target = found.target(url, _options(found, given))
    except ValueError as error:
        fail(f"{error}\n\n{_described(found)}", 2)
        return
    checks = [one for one in found.checks if one.id.startswith(only)]
    quiet = as_json or as_junit
    listing = runner.Listing(checks)
    report = await runner.run(
        checks,
        target,
        title=found.title,
        timeout_s=timeout_s,
        progress=None if quiet else lambda outcome: typer.echo(listing.add(outcome)),
    )
    if quiet:
        typer.echo(runner.as_json(report) if as_json else runner.as_junit(report))
    else:
        typer.echo(f"\n{runner.findings(report)}", nl=False)
        if report.unjudged:
            typer.echo("\n".join(_line(one) for one in found.options if one.name == "order"))
    if not report.passed:
        raise typer.Exit(1)


def _suites() -> dict[str, Suite]:
    """Every provider's folder may have a `conformance` with a `CONFORMANCE`; and a merchant has callbacks."""
    import importlib
    import importlib.util
    import pkgutil

    from tillgate import providers
    from tillgate.conform import callback

    found: dict[str, Suite] = {callback.CONFORMANCE.name: callback.CONFORMANCE}
    for module in pkgutil.iter_modules(providers.__path__, "tillgate.providers."):
        name = f"{module.name}.conformance"
        if module.ispkg and importlib.util.find_spec(name) is not None:
            suites = importlib.import_module(name).CONFORMANCE
            for one in suites if isinstance(suites, tuple) else (suites,):
                found[one.name] = one
    return dict(sorted(found.items()))


def _options(suite: Suite, given: list[str]) -> dict[str, Any]:
    known = {one.name: one for one in suite.options}
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise ValueError(f"-o {text.partition('=')[0]}: it is NAME=VALUE, with one of the names below")
        if value.startswith("env:"):
            value = os.environ.get(value.removeprefix("env:"), "")
        if known[name].many:
            found.setdefault(name, []).append(value)
        else:
            found[name] = value
    return found


def _known(suite: Suite, name: str) -> str:
    """Raises `ValueError` where the suite has no such option."""
    if name not in {one.name for one in suite.options}:
        raise ValueError(f"--{name}: {suite.name} has no such option")
    return name


def _list(suites: dict[str, Suite]) -> None:
    for one in suites.values():
        typer.echo(f"{_described(one)}\n")
    typer.echo("Run one: tillgate conform NAME --url URL -o NAME=VALUE …")


def _described(suite: Suite) -> str:
    return "\n".join(
        [f"{suite.name}: {suite.title}, {len(suite.checks)} checks", *(_line(one) for one in suite.options)]
    )


def _line(option: Option) -> str:
    words = ["needed"] * option.required + ["repeatable"] * option.many
    words += [f"default {option.default}"] if option.default is not None else []
    words += [f"or --{option.name}"] if option.name in ("key", "secret") else []
    told = f" ({', '.join(words)})" if words else ""
    return f"  -o {option.name}=…  {option.help}{told}"
