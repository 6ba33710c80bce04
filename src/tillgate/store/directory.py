"""Merchants, their credentials, accounts and endpoints: read often, changed seldom, so remembered briefly.

A change made by another process is seen within `_FRESH_S` seconds.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from time import monotonic
from typing import Any, Final, TypeAlias

import msgspec
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.sql.elements import ClauseElement

from tillgate.domain.errors import InvalidCredentials, NotFound
from tillgate.store import tables as t
from tillgate.store.database import Database, Tx
from tillgate.store.ids import new_id, now_ms
from tillgate.store.journal import Journal
from tillgate.store.sealing import Sealer
from tillgate.webhooks import new_secret

_FRESH_S: Final = 2.0
_REMEMBERED: Final = 4096


class MerchantSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a merchant may set for itself."""

    callback_url: str | None = None  # where a payment without its own `callback_url` reports
    payment_ttl_s: int = 900
    late_money: str = "accept"  # accept | review
    preferences: dict[str, tuple[str, ...]] = {}  # channel → accounts by name, the first first


@dataclass(frozen=True, slots=True)
class Account:
    """A merchant's credentials with one provider."""

    id: str
    merchant_id: str
    provider: str
    name: str
    config: Mapping[str, Any] = field(repr=False)
    is_default: bool
    priority: int
    disabled: bool
    created_at: int = 0
    sealed: bytes = field(default=b"", repr=False)  # the row's, to see whether it has changed


Secrets: TypeAlias = tuple[tuple[str, int | None], ...]
"""Signing secrets, the newest first, each with when it ends (None: it does not)."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL of a merchant's that is told what happens."""

    id: str
    merchant_id: str
    url: str
    types: tuple[str, ...]
    secrets: tuple[str, ...] = field(repr=False)  # that sign now
    disabled: bool
    disabled_why: str | None
    created_at: int = 0
    disabled_at: int | None = None
    description: str | None = None
    failing_since: int | None = None
    kept_secrets: Secrets = field(default=(), repr=False)
    sealed: bytes = field(default=b"", repr=False)

    def wants(self, kind: str) -> bool:
        return not self.disabled and (not self.types or any(fnmatchcase(kind, one) for one in self.types))


@dataclass(frozen=True, slots=True)
class Merchant:
    """A tenant, with all that its requests need to know."""

    id: str
    name: str
    settings: MerchantSettings
    webhook_secrets: tuple[str, ...] = field(repr=False)
    accounts: tuple[Account, ...]
    endpoints: tuple[Endpoint, ...]
    credentials: Mapping[str, int | None]  # id → when it expires
    disabled: bool
    kept_secrets: Secrets = field(default=(), repr=False)  # of `webhook_secrets`
    sealed: bytes = field(default=b"", repr=False)  # likewise

    def account(self, name_or_id: str) -> Account | None:
        return next((one for one in self.accounts if name_or_id in (one.id, one.name)), None)


@dataclass(frozen=True, slots=True)
class NewCredential:
    merchant_id: str
    credential_id: str
    api_key: str
    api_secret: str = field(repr=False)  # shown once


@dataclass(frozen=True, slots=True)
class Credential:
    id: str
    merchant_id: str
    secret_hash: bytes = field(repr=False)


_MERCHANT = select(t.merchants).where(t.merchants.c.id == bindparam("id"))
_MERCHANTS = select(t.merchants).order_by(t.merchants.c.id)
_BY_NAME = select(t.merchants.c.id).where(t.merchants.c.name == bindparam("name"))
_ACCOUNTS = select(t.accounts).where(t.accounts.c.merchant_id == bindparam("id"))
_ORDERED_ACCOUNTS = _ACCOUNTS.order_by(t.accounts.c.priority, t.accounts.c.id)
_ENDPOINTS = (
    select(t.endpoints).where(t.endpoints.c.merchant_id == bindparam("id")).order_by(t.endpoints.c.id)
)
_CREDENTIALS = select(t.credentials).where(t.credentials.c.merchant_id == bindparam("id"))
_BY_KEY = select(t.credentials).where(t.credentials.c.api_key == bindparam("api_key"))
_ACCOUNT = select(t.accounts.c.merchant_id).where(t.accounts.c.id == bindparam("id"))
_DEFAULT = select(t.accounts.c.id, t.accounts.c.disabled_at).where(
    t.accounts.c.provider == bindparam("provider"), t.accounts.c.is_default.is_(True)
)


class Directory:
    def __init__(
        self, database: Database, journal: Journal, sealer: Sealer, clock: Callable[[], int] = now_ms
    ) -> None:
        self._database = database
        self._journal = journal
        self.sealer = sealer
        self._clock = clock
        self._merchants: OrderedDict[str, tuple[float, Merchant | None]] = OrderedDict()
        self._owners: dict[str, str] = {}

    # --- reading ---

    def known(self, merchant_id: str) -> Merchant | None:
        """What is remembered and fresh, at once."""
        found = self._merchants.get(merchant_id)
        return found[1] if found is not None and monotonic() - found[0] < _FRESH_S else None

    async def merchant(self, merchant_id: str) -> Merchant:
        """Raises `NotFound`."""
        found = self.known(merchant_id)
        if found is None:
            found = await self._load(merchant_id)
            self._merchants[merchant_id] = monotonic(), found
            self._merchants.move_to_end(merchant_id)
            if len(self._merchants) > _REMEMBERED:
                self._merchants.popitem(last=False)
        if found is None:
            raise NotFound("there is no such merchant")
        return found

    async def account(self, account_id: str, *, disabled: bool = False) -> tuple[Merchant, Account]:
        """An account by its id, with its merchant. Raises `NotFound`, also when it is disabled.

        `disabled`: it may be, for what its provider still says of payments that it began."""
        owner = self._owners.get(account_id)
        if owner is None:
            rows = await self._database.read(_ACCOUNT, {"id": account_id})
            if not rows:
                raise NotFound()
            owner = self._owners[account_id] = rows[0][0]
        merchant = await self.merchant(owner)
        account = merchant.account(account_id)
        if account is None or (account.disabled and not disabled) or merchant.disabled:
            raise NotFound()
        return merchant, account

    async def default_accounts(self, provider: str) -> list[str]:
        """Ids of the accounts that want a provider's documented paths: one, if all is well."""
        rows = await self._database.read(_DEFAULT, {"provider": provider})
        return [row[0] for row in rows if row[1] is None]

    async def default_account(self, provider: str) -> tuple[Merchant, Account]:
        """The account that a provider's documented paths serve, a disabled one where there is no other.
        Raises `NotFound`."""
        rows = await self._database.read(_DEFAULT, {"provider": provider})
        found = [row[0] for row in rows if row[1] is None] or [row[0] for row in rows]
        if len(found) != 1:
            raise NotFound(f"{'several' if found else 'no'} default accounts of {provider}")
        return await self.account(found[0], disabled=True)

    async def credential(self, api_key: str) -> Credential | None:
        rows = await self._database.read(_BY_KEY, {"api_key": api_key})
        return Credential(rows[0][0], rows[0][1], bytes(rows[0][3])) if rows else None

    async def merchants(self) -> list[Merchant]:
        return [await self.merchant(row[0]) for row in await self._database.read(_MERCHANTS)]

    async def merchant_named(self, name: str) -> Merchant | None:
        rows = await self._database.read(_BY_NAME, {"name": name})
        return await self.merchant(rows[0][0]) if rows else None

    async def authenticate(self, api_key: str, api_secret: str, now: int) -> tuple[Merchant, str]:
        """The merchant and credential id of a key and secret. Raises `InvalidCredentials`."""
        rows = await self._database.read(_BY_KEY, {"api_key": api_key})
        stored = bytes(rows[0][3]) if rows else bytes(32)  # the same work for an unknown key
        if not self.sealer.knows_secret(api_secret, stored) or not rows:
            raise InvalidCredentials()
        credential_id, merchant_id, expires_at = rows[0][0], rows[0][1], rows[0][5]
        merchant = await self.merchant(merchant_id)
        if merchant.disabled or (expires_at is not None and now >= expires_at):
            raise InvalidCredentials()
        return merchant, credential_id

    async def _load(self, merchant_id: str) -> Merchant | None:
        key = {"id": merchant_id}
        rows = await self._database.read(_MERCHANT, key)
        if not rows:
            return None
        row = rows[0]
        kept = self._secrets(row[3], f"merchants:{merchant_id}:webhook_secrets")
        return Merchant(
            id=merchant_id,
            name=row[1],
            settings=msgspec.json.decode(row[2], type=MerchantSettings),
            webhook_secrets=self._live(kept),
            kept_secrets=kept,
            sealed=bytes(row[3]),
            accounts=tuple([self._account(one) for one in await self._database.read(_ORDERED_ACCOUNTS, key)]),
            endpoints=tuple([self._endpoint(one) for one in await self._database.read(_ENDPOINTS, key)]),
            credentials={one[0]: one[5] for one in await self._database.read(_CREDENTIALS, key)},
            disabled=row[5] is not None,
        )

    def _account(self, row: Sequence[Any]) -> Account:
        return Account(
            id=row[0],
            merchant_id=row[1],
            provider=row[2],
            name=row[3],
            config=self._open(row[4], f"accounts:{row[0]}:config"),
            sealed=bytes(row[4]),
            is_default=bool(row[5]),
            priority=row[6],
            created_at=row[7],
            disabled=row[8] is not None,
        )

    def _endpoint(self, row: Sequence[Any]) -> Endpoint:
        kept = self._secrets(row[4], f"endpoints:{row[0]}:secrets")
        return Endpoint(
            id=row[0],
            merchant_id=row[1],
            url=row[2],
            types=tuple(msgspec.json.decode(row[3])),
            secrets=self._live(kept),
            kept_secrets=kept,
            sealed=bytes(row[4]),
            created_at=row[5],
            disabled=row[6] is not None,
            disabled_at=row[6],
            disabled_why=row[7],
            description=row[8],
            failing_since=row[9],
        )

    def _secrets(self, sealed: bytes, where: str) -> Secrets:
        return tuple((one[0], one[1]) for one in self._open(sealed, where))

    def _live(self, kept: Secrets) -> tuple[str, ...]:
        now = self._clock()
        return tuple(secret for secret, ends in kept if ends is None or now < ends)

    def _open(self, sealed: bytes, where: str) -> Any:
        return msgspec.json.decode(self.sealer.open(bytes(sealed), where))

    def _seal(self, value: Any, where: str) -> bytes:
        return self.sealer.seal(msgspec.json.encode(value), where)

    # --- changing ---

    async def change(
        self, *statements: tuple[ClauseElement, Mapping[str, Any]], taken: str = "taken"
    ) -> None:
        """Run statements in one commit and forget what was remembered. Raises `NotAllowed` on a clash."""
        try:
            await self._journal.run(_Change(statements, taken))
        finally:
            self.forget()

    def forget(self) -> None:
        """Read anew from here on: something was changed."""
        self._merchants.clear()

    async def create_merchant(
        self,
        name: str,
        now: int,
        *,
        settings: MerchantSettings | None = None,
        api_key: str | None = None,
        api_secret: str | None = None,
    ) -> NewCredential:
        merchant_id = new_id("mer_", now)
        made = self._credential(merchant_id, now, api_key, api_secret)
        sealed = self._seal([[new_secret(), None]], f"merchants:{merchant_id}:webhook_secrets")
        row = {
            "id": merchant_id,
            "name": name,
            "settings": msgspec.json.encode(settings or MerchantSettings()).decode(),
            "webhook_secrets": sealed,
            "created_at": now,
            "disabled_at": None,
        }
        head = {"merchant_id": merchant_id, "seq": 0, "chain": merchant_id.encode()}
        await self.change(
            (insert(t.merchants), row),
            (insert(t.heads), head),
            (insert(t.credentials), self._credential_row(made, now)),
            taken=f"there is a merchant named {name} or with this API key already",
        )
        return made

    async def rotate_merchant(self, merchant_id: str, now: int, overlap_ms: int) -> NewCredential:
        """A new key and secret; the old ones go on for `overlap_ms`."""
        await self.merchant(merchant_id)
        made = self._credential(merchant_id, now, None, None)
        ending = (
            update(t.credentials)
            .where(t.credentials.c.merchant_id == bindparam("owner"), t.credentials.c.expires_at.is_(None))
            .values(expires_at=bindparam("ends"))
        )
        await self.change(
            (ending, {"owner": merchant_id, "ends": now + overlap_ms}),
            (insert(t.credentials), self._credential_row(made, now)),
        )
        return made

    async def create_account(
        self,
        merchant_id: str,
        provider: str,
        name: str,
        config: Mapping[str, Any],
        now: int,
        *,
        is_default: bool = False,
        priority: int = 0,
    ) -> str:
        account_id = new_id("acc_", now)
        row = {
            "id": account_id,
            "merchant_id": merchant_id,
            "provider": provider,
            "name": name,
            "config": self._seal(dict(config), f"accounts:{account_id}:config"),
            "is_default": is_default,
            "priority": priority,
            "created_at": now,
            "disabled_at": None,
        }
        await self.change((insert(t.accounts), row), taken=f"there is an account named {name} already")
        return account_id

    def _credential(
        self, merchant_id: str, now: int, api_key: str | None, secret: str | None
    ) -> NewCredential:
        return NewCredential(
            merchant_id,
            new_id("cred_", now),
            api_key or f"key_{secrets.token_hex(12)}",
            secret or f"secret_{secrets.token_urlsafe(32)}",
        )

    def _credential_row(self, made: NewCredential, now: int) -> dict[str, Any]:
        return {
            "id": made.credential_id,
            "merchant_id": made.merchant_id,
            "api_key": made.api_key,
            "secret_hash": self.sealer.hash_secret(made.api_secret),
            "created_at": now,
            "expires_at": None,
        }


@dataclass(frozen=True, slots=True)
class _Change:
    statements: Sequence[tuple[ClauseElement, Mapping[str, Any]]]
    taken: str

    async def run(self, tx: Tx, now: int) -> None:
        for statement, params in self.statements:
            await tx.execute(statement, params)
