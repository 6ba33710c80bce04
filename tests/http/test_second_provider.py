"""A provider is one folder: dropped in it is found, configured, offered and paid; nothing else is edited."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import tillgate.providers as folder
from tillgate import registry
from tillgate.hub import Intent
from tillgate.hub.accounts import fields
from tillgate.runtime import Runtime
from tillgate.settings import Settings
from tillgate.spi import Inbound

SOURCE = '''
"""A wallet of pebbles: the payer is shown a link, the provider tells in plain text with a shared word."""

import hmac

import msgspec

from tillgate.domain.dialogue import Tell
from tillgate.domain.errors import Refusal, Unauthenticated
from tillgate.domain.payment import Paid
from tillgate.spi import Channel, Heard, Provider, Reply, Show


class Config(msgspec.Struct):
    word: str


class Pebbles:
    def __init__(self, config):
        self._word = config.word

    def invite(self, order):
        return Show("redirect", url=f"https://pebbles.example/{order.operation_id}")

    def hear(self, call):
        word, operation_id, minor = call.body.decode().split(" ")
        if not hmac.compare_digest(word, self._word):
            raise Unauthenticated()
        paid = Paid(int(minor), "IDR", paid_with="a pebble")
        return Heard(Tell((paid,), operation_id=operation_id, event_id=operation_id))

    def answer(self, call, heard, outcome):
        return Reply(outcome.status if isinstance(outcome, Refusal) else 200, b"thanks", "text/plain")


PROVIDER = Provider(
    name="pebbles",
    title="Pebbles",
    config=Config,
    channels=(Channel("pebble", "Pebble", "IDR"),),
    connect=Pebbles,
    example={"word": "granite"},
    secrets=frozenset({"word"}),
)
'''


@pytest.fixture
def pebbles(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "pebbles").mkdir()
    (tmp_path / "pebbles" / "__init__.py").write_text(textwrap.dedent(SOURCE))
    folder.__path__.append(str(tmp_path))
    registry.providers.cache_clear()
    yield
    folder.__path__.remove(str(tmp_path))
    sys.modules.pop("tillgate.providers.pebbles", None)
    registry.providers.cache_clear()


async def test_a_folder_is_its_registration(pebbles: None, database_url: str) -> None:
    settings = Settings(database_url=database_url, sandbox=True)
    async with Runtime(settings) as runtime:
        made = await runtime.create_merchant("quarry")
        now = runtime.kit.clock()
        account_id = await runtime.directory.create_account(
            made.merchant_id, "pebbles", "stones", {"word": "granite"}, now
        )
        merchant = await runtime.directory.merchant(made.merchant_id)
        assert [one.id for one in runtime.kit.channels(merchant)] == [
            "pebble", "gopay", "ovo", "dana", "shopeepay",
        ]  # fmt: skip

        opened = await runtime.hub.open(merchant, Intent("Q-1", 500_00, "IDR", "pebble"))
        assert opened.attempt is not None
        assert b"https://pebbles.example/att_" in (opened.attempt.show or "").encode()

        merchant, account = await runtime.directory.account(account_id)
        for word, status in (("chalk", 401), ("granite", 200), ("granite", 200)):
            body = f"{word} {opened.attempt.id} 50000".encode()
            call = Inbound("POST", f"/in/{account_id}", "", {}, body, "127.0.0.1", now)
            assert (await runtime.hub.receive(merchant, account, call)).status == status

        payment = await runtime.kit.reads.payment(opened.payment.id)
        assert payment is not None
        assert (payment.status, payment.paid_minor, payment.paid_with) == ("paid", 50_000, "a pebble")
        books = {name: minor for name, _, minor in await runtime.kit.reads.balances(merchant.id)}
        assert books["merchant"] == 50_000 == -books[f"provider:{account_id}"]
        assert books["memo:due"] == books["memo:open"] == 0


OF_PAYERS = {  # where a payer's browser is sent; the hub itself calls none of these
    "atompay_in": {"return_url"},
    "click": {"pay_url"},
    "midtrans": {"callback_url"},
    "payme": {"checkout_url"},
    "xendit": {"success_return_url", "failure_return_url"},
}


@pytest.mark.parametrize("name", sorted(registry.providers()))
def test_every_address_that_the_hub_calls_is_named_as_one(name: str) -> None:
    """Else a merchant could have the hub call its own network: see decision 0009."""
    provider = registry.providers()[name]
    urls = {one for one in fields(provider) if one.endswith("_url")}
    assert urls - provider.addresses == OF_PAYERS.get(name, set())
    assert provider.addresses <= urls


async def test_a_folder_that_is_broken_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "rubble").mkdir()
    (tmp_path / "rubble" / "__init__.py").write_text("nothing = 1\n")
    folder.__path__.append(str(tmp_path))
    registry.providers.cache_clear()
    try:
        with pytest.raises(Exception, match="provider rubble: its module has no PROVIDER"):
            registry.providers()
    finally:
        folder.__path__.remove(str(tmp_path))
        sys.modules.pop("tillgate.providers.rubble", None)
        registry.providers.cache_clear()
