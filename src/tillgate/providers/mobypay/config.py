"""What a kiosk is told before it starts. Secrets are checked here and never shown again."""

import ipaddress
import re
from pathlib import Path
from typing import Final

import msgspec

from tillgate.providers.mobypay.errors import BadRequest, WeakSecret
from tillgate.providers.mobypay.lifecycle import Timers
from tillgate.providers.mobypay.money import AmountForm

PUBLISHED_SECRETS: Final = frozenset({"POS-KIOSK-SECRET-KEY-2024"})
"""Printed in every edition of the kiosk document: anybody can sign with them."""

SHORTEST_SECRET: Final = 32
DEFAULT_PORT: Final = 8080

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of anything a peer may take from us."""

    max_amount_sen: int = 500_000
    """RM 5,000.00, the largest amount the kiosk document tests with."""
    connections: int = 1024
    connections_per_address: int = 8
    bad_frames: int = 10
    """Frames we do not believe before the connection is closed."""
    frame_s: float = 10.0
    """From the first byte of a frame to its last."""
    write_s: float = 5.0
    messages_per_s: float = 50.0
    """Per connection; a faster peer waits in its own socket. Bounds the nonces we must remember."""


class TerminalConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One terminal. With `port` it has a listening port of its own, which also tells who connects there."""

    pos_id: str
    secret: str
    port: int | None = None
    amount_form: AmountForm = "decimal"

    def __repr__(self) -> str:
        return f"TerminalConfig(pos_id={self.pos_id!r}, port={self.port!r})"


class TlsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """TLS on every terminal port. With `client_ca`, terminals show a certificate whose common name is their
    pos_id.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None


class KioskConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a kiosk needs to know.

    `shared_secret` is the documented set-up: every terminal holds the same secret and says who it is in its
    messages. `sandbox` allows published and short secrets; nothing else changes.
    """

    journal: Path
    kiosk_id: str = "KIOSK001"
    host: str = "0.0.0.0"  # noqa: S104  (terminals are other machines)
    port: int = DEFAULT_PORT
    terminals: tuple[TerminalConfig, ...] = ()
    shared_secret: str | None = None
    tls: TlsConfig | None = None
    sandbox: bool = False
    limits: Limits = msgspec.field(default_factory=Limits)
    timers: Timers = msgspec.field(default_factory=Timers)

    def __repr__(self) -> str:
        return f"KioskConfig(kiosk_id={self.kiosk_id!r}, host={self.host!r}, port={self.port!r})"


def check_config(config: KioskConfig) -> None:
    """Refuse a kiosk that could not be safe or could not work. Raises BadRequest or WeakSecret."""
    check_name(config.kiosk_id, "kiosk_id")
    if config.shared_secret is not None:
        check_secret(config.shared_secret, sandbox=config.sandbox)
    names = [terminal.pos_id for terminal in config.terminals]
    if len(set(names)) != len(names):
        raise BadRequest("two terminals have the same pos_id")
    ports = [terminal.port for terminal in config.terminals if terminal.port]
    if len({*ports, config.port}) != len(ports) + 1:
        raise BadRequest("a terminal's own port is used twice")
    for terminal in config.terminals:
        check_terminal(terminal, sandbox=config.sandbox)
        if terminal.secret == config.shared_secret:
            raise WeakSecret("a terminal's own secret must differ from the shared one")
    secrets = [terminal.secret for terminal in config.terminals]
    if len(set(secrets)) != len(secrets):
        raise WeakSecret("two terminals have the same secret: use shared_secret, or give each its own")


def check_terminal(terminal: TerminalConfig, *, sandbox: bool) -> None:
    """Raises BadRequest or WeakSecret."""
    check_name(terminal.pos_id, "pos_id")
    check_secret(terminal.secret, sandbox=sandbox)
    if terminal.port is not None and not 0 <= terminal.port <= 65535:
        raise BadRequest("a port is a number from 0 to 65535")
    if terminal.amount_form not in ("decimal", "integer"):
        raise BadRequest("amount_form is decimal or integer")


def check_name(name: str, what: str) -> None:
    """Names travel in signed messages, so only characters that every terminal signs alike. Raises
    BadRequest.
    """
    if _NAME.fullmatch(name) is None:
        raise BadRequest(f"{what} is 1 to 64 letters, digits, dots, dashes or underscores")


def check_secret(secret: str, *, sandbox: bool) -> None:
    """Raises WeakSecret outside the sandbox for a secret that others know or could guess."""
    if not secret:
        raise WeakSecret("the secret is empty")
    if sandbox:
        return
    if secret in PUBLISHED_SECRETS:
        raise WeakSecret("this secret is printed in the kiosk document, so anybody can sign with it")
    if len(secret) < SHORTEST_SECRET:
        raise WeakSecret(f"the secret needs at least {SHORTEST_SECRET} characters")
    if len(set(secret)) < 8:
        raise WeakSecret("the secret repeats the same few characters")


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
