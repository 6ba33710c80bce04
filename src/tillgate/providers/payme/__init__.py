"""Payme (Uzbekistan): the Merchant API it calls us by, its checkout links, its Subscribe API."""

from __future__ import annotations

from tillgate.providers.payme.config import EXAMPLE_KEY, Config, strong
from tillgate.providers.payme.connector import Payme
from tillgate.spi import Channel, Provider


def connect(config: Config) -> Payme:
    """Raises `Misconfigured`: without a key, or with one that somebody made up."""
    return Payme(strong(config))


PROVIDER = Provider(
    name="payme",
    title="Payme",
    config=Config,
    channels=(Channel("payme", "Payme", "UZS", min_minor=1, max_minor=10**13),),
    connect=connect,
    example={
        "merchant_id": "587f72c72cac0d162c722ae2",
        "test_key": EXAMPLE_KEY,
        "sandbox": True,
        "account_fields": ["order_id"],
    },
    secrets=frozenset({"key", "previous_key", "test_key"}),
    asks=True,
    paths={"/payments/payme/webhook": "Payme Merchant API"},
)
