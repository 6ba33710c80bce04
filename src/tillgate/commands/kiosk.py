"""`tillgate kiosk` and `tillgate terminal`: take payments on card terminals, and play one.

Exit code 0 after a normal end, 1 when the kiosk cannot start, 2 for options that make no sense. Secrets
come from the environment, a file or the configuration file, so that they stay out of the process list.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from tillgate.providers.mobypay.config import KioskConfig, TerminalConfig

app = typer.Typer(help="Card terminals: the kiosk, and a virtual terminal.", no_args_is_help=True)

_SecretFile = Annotated[
    Path | None,
    typer.Option(help="A file that holds the secret. Or set TILLGATE_KIOSK_SECRET.", show_default=False),
]
_Json = Annotated[bool, typer.Option("--json", help="One JSON document a line instead of text.")]


@app.command()
def kiosk(
    host: Annotated[str, typer.Option(help="Address on which terminals connect.")] = "0.0.0.0",  # noqa: S104
    port: Annotated[int, typer.Option(help="Port on which terminals connect.", min=0, max=65535)] = 8080,
    kiosk_id: Annotated[str, typer.Option(help="The name sent to terminals.")] = "KIOSK001",
    journal: Annotated[
        Path, typer.Option(help="The kiosk's own database.", envvar="TILLGATE_KIOSK_JOURNAL")
    ] = Path("tillgate-kiosk.db"),
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file that lists terminals: pos_id, secret or secret_file, port, amount_form."
        ),
    ] = None,
    secret_file: _SecretFile = None,
    menu: Annotated[bool, typer.Option(help="Show the menu.")] = True,
    control: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Serve the control API on this loopback address.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="The control API's token; made if absent. Or set TILLGATE_KIOSK_TOKEN."),
    ] = None,
    max_amount: Annotated[str, typer.Option(help="Largest amount in ringgit.")] = "5000.00",
    per_address: Annotated[int, typer.Option(help="Connections one address may hold.", min=1, max=10000)] = 8,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate for TLS on the terminal ports.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(help="Terminals must show a certificate of this authority, named by pos_id."),
    ] = None,
    hub: Annotated[
        str | None, typer.Option(metavar="URL", help="Enrol with this hub; needs --enrol, once.")
    ] = None,
    enrol: Annotated[
        str | None,
        typer.Option(
            metavar="CODE",
            help="The code that `tillgate account enrol` printed. Or set TILLGATE_KIOSK_ENROL.",
            envvar="TILLGATE_KIOSK_ENROL",
        ),
    ] = None,
    sandbox: Annotated[bool, typer.Option(help="Allow published and short secrets.")] = False,
    as_json: _Json = False,
) -> None:
    """Serve card terminals, with the documented menu and, if asked, a control API.

    Amounts are in ringgit. Input may come from a pipe: then Exit waits for the outcome.
    """
    from tillgate.providers.mobypay.errors import BadRequest, KioskRefusal
    from tillgate.providers.mobypay.program import run_kiosk

    try:
        settings = _kiosk_config(
            host, port, kiosk_id, journal, config, secret_file, max_amount, per_address,
            (tls_cert, tls_key, tls_client_ca), sandbox=sandbox, by_control=control is not None,
        )  # fmt: skip
        door = _control_door(control, token_file, journal)
        if bool(hub) != bool(enrol):
            raise BadRequest("--hub and --enrol go together; a kiosk that is enrolled needs neither")
        enrolling = (hub, enrol) if hub and enrol else None
        asyncio.run(run_kiosk(settings, menu=menu, control=door, hub=enrolling, as_json=as_json))
    except KioskRefusal as refusal:
        _fail(refusal, as_json)


@app.command()
def terminal(
    host: Annotated[str, typer.Option(help="Address of the kiosk.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the kiosk.", min=1, max=65535)] = 8080,
    pos_id: Annotated[str, typer.Option(help="The terminal's name.")] = "POS001",
    secret_file: _SecretFile = None,
    dialect: Annotated[
        str, typer.Option(help="captured (as real hardware speaks) or documented.")
    ] = "captured",
    auto: Annotated[
        str | None, typer.Option(help="What to do on every request, for example approve.")
    ] = None,
    on_cancel: Annotated[str, typer.Option(help="fail, ack, result_first or ignore.")] = "fail",
    ping: Annotated[bool, typer.Option(help="Send a signed ping on connecting and every 30 s.")] = False,
    web: Annotated[
        int | None, typer.Option(metavar="PORT", help="Serve the keypad page on this port of 127.0.0.1.")
    ] = None,
    shell: Annotated[bool, typer.Option(help="Take keys here.")] = True,
    tls_ca: Annotated[Path | None, typer.Option(help="Use TLS and trust this authority.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="The terminal's own certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    sandbox: Annotated[bool, typer.Option(help="Without a secret, use the published one.")] = False,
    as_json: _Json = False,
) -> None:
    """Play a POS terminal: approve, decline, offer plans, answer late or twice, pull the plug."""
    from tillgate.providers.mobypay.errors import BadRequest, KioskRefusal
    from tillgate.providers.mobypay.program import run_terminal
    from tillgate.providers.mobypay.simulator import VirtualTerminal

    try:
        secret = _secret(secret_file, sandbox=sandbox)
        if secret is None:
            raise BadRequest("a secret is needed: --secret-file, TILLGATE_KIOSK_SECRET, or --sandbox")

        async def play() -> None:
            try:
                tls = _client_tls(tls_ca, tls_cert, tls_key) if tls_ca else None
                device = VirtualTerminal(
                    host,
                    port,
                    secret,
                    pos_id=pos_id,
                    dialect=dialect,
                    auto=auto,
                    on_cancel=on_cancel,
                    ping=ping,
                    tls=tls,
                )
            except (ValueError, OSError) as error:
                raise BadRequest(str(error)) from error
            await run_terminal(device, web_port=web, shell=shell, as_json=as_json)

        asyncio.run(play())
    except KioskRefusal as refusal:
        _fail(refusal, as_json)


def _kiosk_config(
    host: str,
    port: int,
    kiosk_id: str,
    journal: Path,
    config: Path | None,
    secret_file: Path | None,
    max_amount: str,
    per_address: int,
    tls: tuple[Path | None, Path | None, Path | None],
    *,
    sandbox: bool,
    by_control: bool,
) -> KioskConfig:
    from tillgate.providers.mobypay.config import KioskConfig, Limits, TlsConfig
    from tillgate.providers.mobypay.errors import BadRequest
    from tillgate.providers.mobypay.money import parse_ringgit

    terminals = _terminals(config) if config is not None else ()
    secret = _secret(secret_file, sandbox=sandbox and not terminals)
    if secret is None and not terminals and not by_control and not journal.exists():
        raise BadRequest(
            "no terminal could connect: give a secret (--secret-file or TILLGATE_KIOSK_SECRET),"
            " terminals (--config), or --sandbox"
        )
    certificate, key, client_ca = tls
    if (certificate is None) != (key is None) or (client_ca is not None and certificate is None):
        raise BadRequest("TLS needs both --tls-cert and --tls-key")
    return KioskConfig(
        journal=journal,
        kiosk_id=kiosk_id,
        host=host,
        port=port,
        terminals=terminals,
        shared_secret=secret,
        tls=TlsConfig(certificate=certificate, key=key, client_ca=client_ca) if certificate and key else None,
        sandbox=sandbox,
        limits=Limits(max_amount_sen=parse_ringgit(max_amount), connections_per_address=per_address),
    )


def _terminals(path: Path) -> tuple[TerminalConfig, ...]:
    import tomllib

    import msgspec

    from tillgate.providers.mobypay.config import TerminalConfig
    from tillgate.providers.mobypay.errors import BadRequest

    try:
        entries: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["terminals"]
        for entry in entries:
            if "secret_file" in entry:
                entry["secret"] = (path.parent / entry.pop("secret_file")).read_text().strip()
        return msgspec.convert(entries, tuple[TerminalConfig, ...], strict=True)
    except OSError as error:
        raise BadRequest(f"{error.filename}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # The text of the error could quote a secret, so only its place is told.
        raise BadRequest(f"{path} is not a list of [[terminals]] with pos_id and secret") from error


def _secret(path: Path | None, *, sandbox: bool) -> str | None:
    from tillgate.providers.mobypay.config import PUBLISHED_SECRETS

    if path is not None:
        return _read(path)
    given = os.environ.get("TILLGATE_KIOSK_SECRET")
    return given or (next(iter(PUBLISHED_SECRETS)) if sandbox else None)


def _control_door(address: str | None, token_file: Path | None, journal: Path) -> tuple[str, int, str] | None:
    from tillgate.providers.mobypay.config import is_loopback
    from tillgate.providers.mobypay.errors import BadRequest

    if address is None:
        return None
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > 65535 or not is_loopback(host):
        raise BadRequest("--control takes a loopback address and a port, for example 127.0.0.1:8090")
    token = os.environ.get("TILLGATE_KIOSK_TOKEN")
    if token:
        return host, int(port), token
    path = token_file or journal.with_name(journal.name + ".token")
    if not path.exists():
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(32))
    return host, int(port), _read(path)


def _client_tls(authority: Path, certificate: Path | None, key: Path | None) -> Any:
    import ssl

    context = ssl.create_default_context(cafile=authority)
    context.check_hostname = False  # a kiosk is found by its address; the authority is what is trusted
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def _read(path: Path) -> str:
    from tillgate.providers.mobypay.errors import BadRequest

    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path} cannot be read") from error


def _fail(refusal: Exception, as_json: bool) -> NoReturn:
    import json

    if as_json:
        code = getattr(refusal, "code", "refused")
        sys.stdout.write(json.dumps({"type": "error", "code": code, "detail": str(refusal)}) + "\n")
    else:
        sys.stderr.write(f"{refusal}\n")
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
