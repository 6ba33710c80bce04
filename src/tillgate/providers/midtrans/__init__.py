"""Midtrans (Indonesia): QRIS, GoPay, OVO and ShopeePay through its Core API; DANA by QRIS."""

from __future__ import annotations

from tillgate.providers.midtrans.config import CHANNELS, SECRETS, Config
from tillgate.providers.midtrans.connector import Midtrans
from tillgate.spi import Provider

PROVIDER = Provider(
    name="midtrans",
    title="Midtrans",
    config=Config,
    channels=CHANNELS,
    connect=Midtrans,
    example={
        "server_key": "SB-Mid-server-AnExampleThatOpensNothing",
        "rails": {"gopay": "wallet"},
    },
    secrets=SECRETS,
    addresses=frozenset({"base_url"}),
)
