"""Make a hub what its configuration file declares. Safe to do at every start, by several processes at once.

What the file does not name is left alone: nothing is ever deleted or switched off because a line is gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from tillgate.declarations import Declarations, DeclaredAccount, DeclaredMerchant, Text
from tillgate.domain.errors import InvalidRequest, Misconfigured, NotAllowed
from tillgate.domain.record import record
from tillgate.hub.accounts import Accounts, check_preferences, checked, fields
from tillgate.hub.configuring import Configures, configure
from tillgate.hub.kit import Kit
from tillgate.spi import Provider
from tillgate.ssrf import AllowList, ForbiddenUrl, check_url
from tillgate.store.configuration import Configuration
from tillgate.store.directory import Account, Merchant
from tillgate.store.ids import new_id

MIN_SECRET_CHARS: Final = 32
NOWHERE_INSIDE: Final = AllowList()
_ROUNDS: Final = 3


@record
class Applied:
    """One thing that was made or changed."""

    what: str  # merchant.NAME or account.NAME
    did: str  # made | changed


def check(
    declared: Declarations,
    providers: Mapping[str, Provider[Any]],
    *,
    sandbox: bool,
    allow: AllowList = NOWHERE_INSIDE,
) -> None:
    """All that can be said without a database. Raises `Misconfigured` with a line for every mistake."""
    mistakes = []
    for merchant in declared.merchants:
        if not sandbox and len(merchant.api_secret) < MIN_SECRET_CHARS:
            place = f"merchant.{merchant.name}.api_secret"
            mistakes.append(f"{place}: is weak: {MIN_SECRET_CHARS} characters or more")
        own = {one.name: one.provider for one in declared.accounts if one.merchant == merchant.name}
        try:
            check_preferences(merchant.preferences or {}, own, providers)
        except InvalidRequest as error:
            mistakes.append(f"merchant.{merchant.name}.preferences: {error}")
        try:
            if merchant.callback_url is not None:
                check_url(merchant.callback_url, allow)
        except ForbiddenUrl as error:
            place = f"merchant.{merchant.name}.callback_url"
            mistakes.append(f"{place}: {error} (or TILLGATE_CALLBACK_ALLOW names its host and port)")
    for account in declared.accounts:
        try:
            config_of(account, providers)
        except InvalidRequest as error:
            mistakes.append(_said(account, error))
    if mistakes:
        raise Misconfigured("\n".join(f"{declared.path}: {one}" for one in mistakes))


def config_of(account: DeclaredAccount, providers: Mapping[str, Provider[Any]]) -> dict[str, Any]:
    """The account's settings as its provider takes them. Raises `InvalidRequest`."""
    provider = providers.get(account.provider)
    known = fields(provider) if provider else {}
    config = {name: typed(value, known.get(name)) for name, value in account.config.items()}
    checked(account.provider, config, providers)
    return config


def typed(value: Any, known: msgspec.structs.FieldInfo | None) -> Any:
    """Text from outside as the number, truth, list or table (in JSON) that the setting is."""
    if not isinstance(value, Text):
        return value
    if known is None:
        return str(value)
    try:
        return msgspec.to_builtins(msgspec.convert(str(value), known.type, strict=False))
    except msgspec.ValidationError:
        pass
    try:
        return msgspec.to_builtins(msgspec.json.decode(str(value).encode(), type=known.type))
    except (msgspec.DecodeError, UnicodeEncodeError):
        return str(value)  # the provider says what is wrong with it


def _said(account: DeclaredAccount, error: InvalidRequest) -> str:
    place = f"account.{account.name}"
    match error.param:
        case "provider":
            return f"{place}.provider: {error}"
        case str() as param if param.startswith("config."):
            return f"{place}.{param.removeprefix('config.')}: {str(error).partition(': ')[2] or error}"
        case _:
            return f"{place}: {error}"


class Declaring:
    """`Hub.declaring`."""

    def __init__(self, kit: Kit, accounts: Accounts) -> None:
        self._kit = kit
        self._accounts = accounts
        self._rows = Configuration(kit.directory.sealer)

    async def apply(
        self,
        declared: Declarations,
        *,
        sandbox: bool,
        allow: AllowList = NOWHERE_INSIDE,
    ) -> list[Applied]:
        """What it had to do; nothing the second time. Raises `Misconfigured`."""
        check(declared, self._kit.providers, sandbox=sandbox, allow=allow)
        work = [(f"merchant.{one.name}", partial(self._merchant, one)) for one in declared.merchants]
        work += [(f"account.{one.name}", partial(self._account, one)) for one in declared.accounts]
        done = [(what, await self._try(partial(do, declared.path))) for what, do in work]
        return [Applied(what, did) for what, did in done if did is not None]

    async def _try(self, work: Callable[[], Awaitable[str | None]]) -> str | None:
        """Another process may be applying the same file: then there is nothing left to do."""
        for number in range(_ROUNDS):
            try:
                return await work()
            except NotAllowed:
                self._kit.directory.forget()
                if number == _ROUNDS - 1:
                    raise
        return None

    # --- merchants ---

    async def _merchant(self, wanted: DeclaredMerchant, path: str) -> str | None:
        directory, now = self._kit.directory, self._kit.clock()
        place = f"{path}: merchant.{wanted.name}"
        # The key first: whoever made it made the merchant in the same commit, so that one is found then, too.
        owner = await directory.credential(wanted.api_key)
        known = await directory.merchant_named(wanted.name)
        if owner is not None and (known is None or owner.merchant_id != known.id):
            raise Misconfigured(f"{place}.api_key: another merchant of this hub has it")
        if known is None:
            made = await directory.create_merchant(
                wanted.name, now, api_key=wanted.api_key, api_secret=wanted.api_secret
            )
            await self._settings(await directory.merchant(made.merchant_id), wanted)
            return "made"
        changed = await self._settings(known, wanted)
        if owner is None:
            change = self._rows.new_credential(
                new_id("cred_", now), known.id, wanted.api_key, wanted.api_secret, now
            )
        elif not directory.sealer.knows_secret(wanted.api_secret, owner.secret_hash):
            change = self._rows.credential(owner.id, wanted.api_secret)
        else:
            return "changed" if changed else None
        await configure(self._kit, Configures(known.id, (change,)))
        return "changed"

    async def _settings(self, merchant: Merchant, wanted: DeclaredMerchant) -> bool:
        said = {
            "callback_url": wanted.callback_url,
            "payment_ttl_s": wanted.payment_ttl_s,
            "late_money": wanted.late_money,
            "preferences": None if wanted.preferences is None else dict(wanted.preferences),
        }
        new = {name: value for name, value in said.items() if value is not None}
        settings = msgspec.structs.replace(merchant.settings, **new)
        if settings == merchant.settings:
            return False
        await configure(
            self._kit, Configures(merchant.id, (self._rows.merchant_settings(merchant.id, settings),))
        )
        return True

    # --- accounts ---

    async def _account(self, wanted: DeclaredAccount, path: str) -> str | None:
        place = f"{path}: account.{wanted.name}"
        merchant = await self._kit.directory.merchant_named(wanted.merchant)
        assert merchant is not None  # made above, or refused when the file was read
        config = config_of(wanted, self._kit.providers)
        known = _named(merchant, wanted.name)
        try:
            if wanted.default:
                await self._sole_default(wanted, merchant, known, place)
            if known is None:
                await self._accounts.create(
                    merchant,
                    wanted.provider,
                    wanted.name,
                    config,
                    priority=wanted.priority,
                    is_default=wanted.default,
                )
                if wanted.disabled:
                    fresh = await self._kit.directory.merchant(merchant.id)
                    account = _named(fresh, wanted.name)
                    assert account is not None
                    await self._accounts.switch(fresh, account.id, on=False)
                return "made"
            return await self._adjust(merchant, known, wanted, config, place)
        except InvalidRequest as error:
            raise Misconfigured(f"{place}: {error}") from None

    async def _adjust(
        self,
        merchant: Merchant,
        known: Account,
        wanted: DeclaredAccount,
        config: Mapping[str, Any],
        place: str,
    ) -> str | None:
        if known.provider != wanted.provider:
            raise Misconfigured(f"{place}.provider: this account is {known.provider}'s; use another name")
        changes = []
        if dict(known.config) != dict(config):
            changes.append(self._rows.account_config(known, config))
        new: dict[str, Any] = {}
        if (known.is_default, known.priority) != (wanted.default, wanted.priority):
            new = {"is_default": wanted.default, "priority": wanted.priority}
        if known.disabled != wanted.disabled:
            new["disabled_at"] = self._kit.clock() if wanted.disabled else None
        if new:
            changes.append(self._rows.account(known.id, **new))
        if not changes:
            return None
        await configure(self._kit, Configures(merchant.id, tuple(changes)))
        return "changed"

    async def _sole_default(
        self, wanted: DeclaredAccount, merchant: Merchant, known: Account | None, place: str
    ) -> None:
        """Raises `NotAllowed` where the account itself was made since the merchant was read."""
        directory = self._kit.directory
        others = [
            one
            for one in await directory.default_accounts(wanted.provider)
            if known is None or one != known.id
        ]
        if others and known is None:
            directory.forget()
            if _named(await directory.merchant(merchant.id), wanted.name):
                raise NotAllowed(f"account {wanted.name} was made meanwhile")
        for other in others:
            raise Misconfigured(
                f"{place}.default: account {other} is {wanted.provider}'s default already;"
                " switch that off first"
            )


def _named(merchant: Merchant, name: str) -> Account | None:
    return next((one for one in merchant.accounts if one.name == name), None)
