"""Click (Uzbekistan): SHOP API, pay link, Merchant API, Click Pass, fiscal data."""

from tillgate.providers.click.config import Config
from tillgate.providers.click.outbound import connect
from tillgate.spi import Channel, Provider

PROVIDER = Provider(
    name="click",
    title="Click",
    config=Config,
    channels=(Channel("click", "Click", "UZS"),),
    connect=connect,
    example={
        "service_id": 12345,
        "merchant_id": 54321,
        "merchant_user_id": 77777,
        "secret_key": "EXAMPLE-click-secret",
    },
    secrets=frozenset({"secret_key", "previous_secret_key"}),
    addresses=frozenset({"api_url"}),
    required=frozenset({"service_id", "merchant_id", "secret_key"}),
    asks=True,
    paths={
        "/payments/click/webhook": "both actions of the SHOP API",
        "/payments/click/prepare": "Prepare",
        "/payments/click/complete": "Complete",
    },
)
