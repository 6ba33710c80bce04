"""The IPN document's rules as checks against any IPN endpoint, ours or yours.

Written from the document and the ATOM POS facts; it shares no code with the connector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tillgate.conform import Option, Suite, Target
from tillgate.providers.atompos_vn.conformance import access, bodies
from tillgate.providers.atompos_vn.conformance.client import Settings

CHECKS = (*bodies.CHECKS, *access.CHECKS)


def target(url: str, options: Mapping[str, Any]) -> Target:
    """Describe an endpoint: the URL of its `/ipn`. Raises `ValueError`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("url: the http address of the IPN, such as http://127.0.0.1:8000/ipn")
    header: tuple[str, str] | None = None
    if text := options.get("header"):
        name, found, value = str(text).partition(":")
        if not found or not name.strip() or not value.strip():
            raise ValueError("header: NAME: VALUE")
        header = (name.strip(), value.strip())
    base = url.rstrip("/")
    base = base.removesuffix("/ipn") if base.endswith("/ipn") else f"{parts.scheme}://{parts.netloc}"
    settings = Settings(
        base=base,
        token=options.get("token") or "",
        header=header,
        user=options.get("user") or "",
        password=options.get("password") or "",
        jwt_secret=options.get("jwt-secret") or "",
    )
    if bool(settings.user) != bool(settings.password):
        raise ValueError("user and password come together")
    secrets = {settings.token, settings.password, settings.jwt_secret, header[1] if header else ""}
    return Target(url.rstrip("/"), settings, frozenset(secrets - {""}))


CONFORMANCE = Suite(
    name="atom-ipn",
    title="ATOM POS IPN",
    options=(
        Option("token", "a bearer token that is good now", secret=True),
        Option("jwt-secret", "the HS256 secret, to make good, expired and forged tokens", secret=True),
        Option("user", "a user at /authorize"),
        Option("password", "its password", secret=True),
        Option("header", "a fixed header in the place of a token, NAME: VALUE", secret=True),
    ),
    checks=CHECKS,
    target=target,
)
