"""Xendit (Indonesia): QRIS, GoPay, OVO, DANA and ShopeePay through its Payments API v3."""

from __future__ import annotations

from tillgate.providers.xendit.config import CHANNELS, SECRETS, Config
from tillgate.providers.xendit.connector import Xendit
from tillgate.spi import Provider

PROVIDER = Provider(
    name="xendit",
    title="Xendit",
    config=Config,
    channels=CHANNELS,
    connect=Xendit,
    example={
        "secret_key": "xnd_development_AnExampleKeyThatOpensNothing",
        "callback_token": "an-example-webhook-verification-token",
        "rails": {"dana": "wallet"},
    },
    secrets=SECRETS,
    addresses=frozenset({"base_url"}),
)
