"""The kiosk document's rules as checks: against any kiosk, played by a terminal; against any terminal, by a
kiosk.

Written from the document and the captured frames with the standard library; it shares no code with the link.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tillgate.conform import Option, Suite, Target
from tillgate.providers.mobypay.conformance import kiosk_rules, terminal_rules
from tillgate.providers.mobypay.conformance.person import CHECK_S, Person


def _place(url: str) -> tuple[str, int]:
    """Raises `ValueError`."""
    parts = urlsplit(url if "://" in url else f"tcp://{url}")
    if parts.scheme != "tcp" or not parts.hostname or parts.port is None:
        raise ValueError("url: tcp://HOST:PORT, or --host and --port")
    return parts.hostname, parts.port


def _secret(options: Mapping[str, Any]) -> str:
    secret = str(options.get("secret") or "")
    if not secret:
        raise ValueError("secret: what both ends sign with")
    return secret


def _seconds(options: Mapping[str, Any]) -> float:
    try:
        found = float(options.get("patience-s") or 45)
    except ValueError:
        raise ValueError("patience-s: a number of seconds") from None
    if not 0 < found <= 3600:
        raise ValueError("patience-s: more than 0, at most 3600")
    return found


def kiosk_target(url: str, options: Mapping[str, Any]) -> Target:
    """Where the kiosk listens. Raises `ValueError`."""
    host, port = _place(url)
    settings = kiosk_rules.KioskTarget(
        host,
        port,
        _secret(options),
        pos_id=options.get("pos-id") or "POS001",
        pay=options.get("pay") or "",
        outcome=options.get("outcome") or "",
        cancel=options.get("cancel") or "",
        plan=options.get("plan") or "",
        patience_s=_seconds(options),
    )
    slow_s = 0.0 if settings.pay else CHECK_S
    return Target(f"tcp://{host}:{port}", settings, frozenset({settings.secret}), slow_s)


def terminal_target(url: str, options: Mapping[str, Any]) -> Target:
    """Where we listen for the terminal. Raises `ValueError`."""
    host, port = _place(url)
    person = Person() if options.get("quiet") in (None, "", "no") else None
    settings = terminal_rules.TerminalTarget(host, port, _secret(options), _seconds(options), person)
    slow_s = CHECK_S if settings.person is not None else 0.0
    return Target(f"tcp://{host}:{port}", settings, frozenset({settings.secret}), slow_s)


_SECRET = Option("secret", "what both ends sign with (--secret)", required=True, secret=True)
_PATIENCE = Option("patience-s", "how long a person or a command may take", default="45")
KIOSK = Suite(
    name="mobypay-kiosk",
    title="MobyPay kiosk",
    options=(
        _SECRET,
        Option("pos-id", "the name of the terminal that we play", default="POS001"),
        Option(
            "pay",
            "a command that starts a payment, with {mode} and {amount}; without it you are asked to, and what"
            " the kiosk shows",
        ),
        Option("outcome", "a command that prints how {txn_id} stands: its state, or JSON with one"),
        Option("cancel", "a command that cancels {txn_id}"),
        Option("plan", "a command that chooses {plan_id} for {txn_id}"),
        _PATIENCE,
    ),
    checks=kiosk_rules.CHECKS,
    target=kiosk_target,
)
TERMINAL = Suite(
    name="mobypay-terminal",
    title="MobyPay terminal",
    options=(
        _SECRET,
        _PATIENCE,
        Option("quiet", "yes: ask nobody to press keys, the terminal acts by itself", default="no"),
    ),
    checks=terminal_rules.CHECKS,
    target=terminal_target,
)
CONFORMANCE = (KIOSK, TERMINAL)
