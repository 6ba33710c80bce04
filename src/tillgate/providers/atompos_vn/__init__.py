"""ATOM POS (ATOM Solutions, Vietnam): card and QR terminals that report by IPN."""

from __future__ import annotations

from tillgate.providers.atompos_vn.config import SECRETS, Config
from tillgate.providers.atompos_vn.connector import AtomPos
from tillgate.spi import Channel, Provider

__all__ = ["PROVIDER", "AtomPos", "Config"]

PROVIDER = Provider(
    name="atompos_vn",
    title="ATOM POS",
    config=Config,
    channels=(Channel("atompos", "ATOM POS terminal", "VND", min_minor=1, max_minor=10**13),),
    connect=AtomPos,
    example={
        "auth": "jwt",
        "jwt_secret": "an-example-secret-of-at-least-32-bytes",
        "user": "atom",
        "password": "an-example-password",
        "pos_url": "http://192.168.1.20:8080",
        "verify_code": "123456",
    },
    secrets=SECRETS,
    addresses=frozenset({"pos_url"}),
    paths={"/ipn": "IPN of a terminal", "/authorize": "tokens for the IPN"},
    owns=frozenset({"/ipn"}),
    serves={"/payment-terminal": "shows a sale on the terminal; bearer token, requestId, orderId, amount"},
)
