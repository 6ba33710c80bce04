"""AtomPay (Atom Technologies, now NTT DATA Payment Services India)."""

from __future__ import annotations

from tillgate.providers.atompay_in.config import SECRETS, Config
from tillgate.providers.atompay_in.connector import AtomPay
from tillgate.spi import Channel, Provider

__all__ = ["PROVIDER", "AtomPay", "Config"]

PROVIDER = Provider(
    name="atompay_in",
    title="AtomPay (NTT DATA Payment Services India)",
    config=Config,
    channels=(Channel("atompay", "AtomPay", "INR", min_minor=100, max_minor=10**12 - 1),),
    connect=AtomPay,
    example={
        "merch_id": "317157",
        "password": "Test@123",
        "product": "NSE",
        "req_enc_key": "A4476C2062FFA58980DC8F79EB6A799E",
        "res_dec_key": "75AEF0FA1B94B3C10D4F5B268F757F11",
        "req_hash_key": "KEY123657234",
        "resp_hash_key": "KEYRESP123657234",
        "env": "uat",
    },
    secrets=SECRETS,
    addresses=frozenset(
        {"base_url", "auth_url", "status_url", "refund_url", "refund_status_url", "script_url"}
    ),
    paths={"/response": "return and callback of AtomPay"},
    serves={"/atompay": "gives a payer's page the token that opens the checkout; bearer or cookie, order_id"},
)
