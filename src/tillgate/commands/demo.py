"""`tillgate demo`: the whole hub on one machine, shown at work."""

from __future__ import annotations

from typing import Annotated

import typer

from tillgate.commands.output import Json, fail


def demo(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 takes any free one.", min=0, max=65535)
    ] = 8080,
    leave: Annotated[
        bool, typer.Option("--exit", help="End after the show; 0 only if all came out right.")
    ] = False,
    providers: Annotated[
        bool, typer.Option("--providers", help="Only what goes through simulated providers.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start the hub with pretended wallets, take payments, show what happened and where to look."""
    import asyncio

    from tillgate.demo import PARTS, run
    from tillgate.domain.errors import TillgateError

    parts = [name for name in PARTS if not (providers and name == "sandbox")]
    try:
        right = asyncio.run(run(host, port, leave=leave, as_json=as_json, parts=parts))
    except KeyboardInterrupt:
        return
    except TillgateError as error:
        fail(str(error))
        return
    if not right:
        raise typer.Exit(1)
