"""The hub's side of card terminals: an order waits until its kiosk fetches it. Nothing is called."""

from __future__ import annotations

from typing import Final

import msgspec

from tillgate.spi import Channel, Order, Provider, Show

HUB_LIMIT_MINOR: Final = 999_999_999
"""Below RM 10,000,000: from there on, terminals print the same amount differently and signatures break."""

CHANNELS: Final = (
    Channel("card", "Card", "MYR", 1, HUB_LIMIT_MINOR),
    Channel("bnpl", "Buy now, pay later", "MYR", 1, HUB_LIMIT_MINOR),
    Channel("duitnow_qr", "DuitNow QR", "MYR", 1, HUB_LIMIT_MINOR),
    Channel("ipp", "Instalment plan", "MYR", 1, HUB_LIMIT_MINOR),
)


class Account(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One kiosk. Its enrolment fills this in; digests only, so that nobody who reads it can be the kiosk."""

    key_sha256: str = ""
    code_sha256: str = ""
    code_ends_at: int = 0


class Connector:
    """A payment waits at the terminal from the moment it is opened."""

    def invite(self, order: Order) -> Show:
        return Show("terminal")

    def terminal(self, order: Order) -> str | None:
        named = order.metadata.get("terminal")
        return named if isinstance(named, str) else None


def connect(config: Account) -> Connector:
    return Connector()


PROVIDER: Final = Provider(
    name="mobypay",
    title="MobyPay card terminals",
    config=Account,
    channels=CHANNELS,
    connect=connect,
    secrets=frozenset({"key_sha256", "code_sha256"}),
)
