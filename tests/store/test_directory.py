"""Merchants, credentials and accounts on both databases."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import asyncpg
import pytest

from support.till import SECRET_KEY, Till, open_till
from tillgate.domain.errors import InvalidCredentials, Misconfigured, NotAllowed, NotFound
from tillgate.store import directory
from tillgate.store.directory import Directory, MerchantSettings
from tillgate.store.sealing import Sealer


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered, as if two seconds had passed."""
    monkeypatch.setattr(directory, "_FRESH_S", 0.0)


async def everything(url: str) -> bytes:
    """All bytes of all rows of the configuration."""
    names = ("merchants", "credentials", "accounts", "endpoints")
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            rows = [row for one in names for row in connection.execute(f"SELECT * FROM {one}")]
    else:
        connection = await asyncpg.connect(url)
        try:
            rows = [tuple(row) for one in names for row in await connection.fetch(f"SELECT * FROM {one}")]
        finally:
            await connection.close()
    return b"|".join(
        value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row
    )


async def test_a_merchant_is_made_and_known_by_its_key(till: Till) -> None:
    now = till.clock()
    made = await till.directory.create_merchant("shop", now, settings=MerchantSettings(payment_ttl_s=60))
    merchant, credential_id = await till.directory.authenticate(made.api_key, made.api_secret, now)
    assert (merchant.id, merchant.name, credential_id) == (made.merchant_id, "shop", made.credential_id)
    assert merchant.settings == MerchantSettings(payment_ttl_s=60)
    assert (await till.directory.merchant_named("shop")) == merchant
    assert await till.directory.merchant_named("nobody") is None
    assert len(merchant.webhook_secrets) == 1


@pytest.mark.parametrize("secret", ["", "wrong", "secret_", "\0", "\ud800", "x" * 100_000])
async def test_another_secret_is_refused(till: Till, secret: str) -> None:
    made = await till.directory.create_merchant("shop", till.clock())
    with pytest.raises(InvalidCredentials):
        await till.directory.authenticate(made.api_key, secret, till.clock())


@pytest.mark.parametrize("key", ["", "key_nobody", "\0", "a\0b", "\ud800", "x" * 100_000, "' OR 1=1 --"])
async def test_another_key_is_refused_in_the_same_words(till: Till, key: str) -> None:
    made = await till.directory.create_merchant("shop", till.clock())
    with pytest.raises(InvalidCredentials) as unknown:
        await till.directory.authenticate(key, made.api_secret, till.clock())
    with pytest.raises(InvalidCredentials) as wrong:
        await till.directory.authenticate(made.api_key, "wrong", till.clock())
    assert str(unknown.value) == str(wrong.value)


async def test_one_merchants_secret_does_not_open_another(till: Till) -> None:
    one = await till.directory.create_merchant("one", till.clock())
    two = await till.directory.create_merchant("two", till.clock())
    with pytest.raises(InvalidCredentials):
        await till.directory.authenticate(one.api_key, two.api_secret, till.clock())


async def test_names_and_keys_are_unique(till: Till) -> None:
    now = till.clock()
    await till.directory.create_merchant("shop", now, api_key="key_1", api_secret="s" * 40)
    with pytest.raises(NotAllowed):
        await till.directory.create_merchant("shop", now)
    with pytest.raises(NotAllowed):
        await till.directory.create_merchant("other", now, api_key="key_1", api_secret="t" * 40)
    assert [one.name for one in await till.directory.merchants()] == ["shop"]  # all or nothing
    shop = await till.directory.merchant_named("shop")
    assert shop is not None
    await till.directory.create_account(shop.id, "calling", "bank", {}, now)
    with pytest.raises(NotAllowed):
        await till.directory.create_account(shop.id, "inviting", "bank", {}, now)


async def test_keys_rotate_with_an_overlap(till: Till, fresh: None) -> None:
    now = till.clock()
    old = await till.directory.create_merchant("shop", now)
    new = await till.directory.rotate_merchant(old.merchant_id, now, overlap_ms=1_000)
    for made in (old, new):
        await till.directory.authenticate(made.api_key, made.api_secret, now + 999)
    with pytest.raises(InvalidCredentials):
        await till.directory.authenticate(old.api_key, old.api_secret, now + 1_000)
    await till.directory.authenticate(new.api_key, new.api_secret, now + 10**12)


async def test_nothing_secret_is_stored_or_shown(till: Till) -> None:
    now = till.clock()
    made = await till.directory.create_merchant("shop", now)
    await till.directory.create_account(
        made.merchant_id, "calling", "bank", {"key": "the-accounts-own-key"}, now
    )
    merchant = await till.directory.merchant(made.merchant_id)
    account = merchant.account("bank")
    assert account is not None
    assert account.config == {"key": "the-accounts-own-key"}
    stored = await everything(till.url)
    for secret in (made.api_secret, "the-accounts-own-key", merchant.webhook_secrets[0], SECRET_KEY):
        assert secret.encode() not in stored
        assert secret not in f"{merchant!r} {account!r} {made!r} {till.directory!r}"


async def test_another_key_of_the_hub_opens_nothing(till: Till) -> None:
    made = await till.directory.create_merchant("shop", till.clock())
    stranger = Directory(till.database, till.journal, Sealer(["another key, of another hub entirely"]))
    with pytest.raises(Misconfigured):
        await stranger.merchant(made.merchant_id)
    rotated = Directory(till.database, till.journal, Sealer(["a new key of this very hub", SECRET_KEY]))
    await rotated.authenticate(made.api_key, made.api_secret, till.clock())


async def test_who_is_not_there(till: Till) -> None:
    for ask in (
        till.directory.merchant("mer_nobody"),
        till.directory.account("acc_nobody"),
        till.directory.account("\0"),
        till.directory.default_account("calling"),
        till.directory.rotate_merchant("mer_nobody", 0, 0),
    ):
        with pytest.raises(NotFound):
            await ask


async def test_accounts_are_found_by_id_name_and_default(till: Till) -> None:
    now = till.clock()
    made = await till.directory.create_merchant("shop", now)
    second = await till.directory.create_account(made.merchant_id, "calling", "b", {}, now, priority=2)
    first = await till.directory.create_account(
        made.merchant_id, "inviting", "a", {}, now, priority=1, is_default=True
    )
    merchant = await till.directory.merchant(made.merchant_id)
    assert [one.id for one in merchant.accounts] == [first, second]
    assert merchant.account("b") == merchant.account(second)
    assert (await till.directory.account(second))[1].name == "b"
    assert (await till.directory.default_account("inviting"))[1].id == first
    other = await till.directory.create_merchant("other", now)
    await till.directory.create_account(other.merchant_id, "inviting", "a", {}, now, is_default=True)
    with pytest.raises(NotFound, match="several"):
        await till.directory.default_account("inviting")


async def test_a_change_by_another_process_is_seen(till: Till, fresh: None) -> None:
    shop = await till.merchant("shop")
    async with open_till(till.url, clock=till.clock) as second:
        await second.directory.create_account(shop.id, "inviting", "more", {}, till.clock())
    assert (await till.directory.merchant(shop.id)).account("more") is not None


async def test_what_is_remembered_is_bounded(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_REMEMBERED", 3)
    made = [await till.directory.create_merchant(f"shop {n}", till.clock()) for n in range(6)]
    for one in made:
        await till.directory.merchant(one.merchant_id)
    known = [till.directory.known(one.merchant_id) is not None for one in made]
    assert known == [False, False, False, True, True, True]
