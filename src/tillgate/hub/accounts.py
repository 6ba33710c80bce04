"""Provider accounts: made, changed and switched, their configuration judged by the provider itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from tillgate.domain.errors import InvalidRequest, Misconfigured, NotAllowed, NotFound
from tillgate.domain.record import record, replace
from tillgate.hub.configuring import Configures, configure
from tillgate.hub.keys import Key
from tillgate.hub.kit import Kit
from tillgate.spi import Provider
from tillgate.store.configuration import Configuration
from tillgate.store.directory import Account, Merchant
from tillgate.store.ids import new_id

MAX_ACCOUNTS: Final = 200
MAX_NAME_CHARS: Final = 64
MAX_CONFIG_BYTES: Final = 32 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_SECRET_NAME: Final = re.compile(
    r"key|secret|passw|token|pin$|code$|credential|private|auth", re.IGNORECASE | re.ASCII
)

_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")

Render = Callable[[Account], bytes]


@record
class MadeAccount:
    account: Account
    answer: tuple[int, bytes] | None = None  # the first one to the same key


class Accounts:
    """`Hub.accounts`."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._rows = Configuration(kit.directory.sealer)

    def one(self, merchant: Merchant, account_id: str) -> Account:
        """Raises `NotFound`, also for another merchant's."""
        found = next((one for one in merchant.accounts if one.id == account_id), None)
        if found is None:
            raise NotFound("There is no such account")
        return found

    async def create(
        self,
        merchant: Merchant,
        provider: str,
        name: str,
        config: Mapping[str, Any],
        key: Key | None = None,
        render: Render = lambda _account: b"",
        *,
        priority: int = 0,
        is_default: bool = False,
    ) -> MadeAccount:
        """Raises `InvalidRequest`, `NotAllowed` where the name is taken."""
        checked(provider, config, self._kit.providers)
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                "name is 1 to 64 letters, digits, '.', '_' or '-', and begins with a letter or digit",
                param="name",
            )
        now, refused = self._kit.clock(), None
        if any(one.name == name for one in merchant.accounts):
            refused = NotAllowed(f"There is an account named {name} already")
        elif len(merchant.accounts) >= MAX_ACCOUNTS:
            refused = NotAllowed(f"There are {MAX_ACCOUNTS} accounts already")
        made = Account(
            id=new_id("acc_", now),
            merchant_id=merchant.id,
            provider=provider,
            name=name,
            config=dict(config),
            is_default=is_default,
            priority=priority,
            disabled=False,
            created_at=now,
        )
        command = Configures(
            merchant.id,
            (self._rows.new_account(made),),
            key,
            render(made),
            taken=f"There is an account named {name} already",
            refused=refused,
        )
        return MadeAccount(made, await configure(self._kit, command))

    async def rotate(
        self,
        merchant: Merchant,
        account_id: str,
        config: Mapping[str, Any],
        key: Key | None = None,
        render: Render = lambda _account: b"",
    ) -> MadeAccount:
        """New values for some settings. Where a provider keeps `previous_…`, the old secret goes on there."""
        account = self.one(merchant, account_id)
        provider = self._kit.providers.get(account.provider)
        known = set(fields(provider)) if provider else set()
        merged = {**account.config, **config}
        for name in config:
            before, old = f"previous_{name}", account.config.get(name)
            if before in known and before not in config and old and old != config[name]:
                merged[before] = old
        checked(account.provider, merged, self._kit.providers)
        after = replace(account, config=merged)
        change = self._rows.account_config(account, merged)
        command = Configures(merchant.id, (change,), key, render(after))
        return MadeAccount(after, await configure(self._kit, command))

    async def switch(
        self,
        merchant: Merchant,
        account_id: str,
        on: bool,
        key: Key | None = None,
        render: Render = lambda _account: b"",
    ) -> MadeAccount:
        """Off: it takes nothing new. What it began goes on: its provider may still settle it, give it up or
        give it back."""
        account = self.one(merchant, account_id)
        after = replace(account, disabled=not on)
        change = self._rows.account(account.id, disabled_at=None if on else self._kit.clock())
        command = Configures(merchant.id, (change,), key, render(after))
        return MadeAccount(after, await configure(self._kit, command))

    async def arrange(self, merchant: Merchant, account_id: str, *, priority: int, is_default: bool) -> None:
        """What only an operator may say: which account serves a provider's documented paths."""
        account = self.one(merchant, account_id)
        change = self._rows.account(account.id, priority=priority, is_default=is_default)
        await configure(self._kit, Configures(merchant.id, (change,)))


def checked(
    provider_name: str, config: Mapping[str, Any], providers: Mapping[str, Provider[Any]]
) -> Provider[Any]:
    """The provider, once it takes this configuration. Raises `InvalidRequest`, which says no secret."""
    provider = providers.get(provider_name)
    if provider is None:
        known = ", ".join(sorted(providers))
        raise InvalidRequest(f"There is no such provider; there are {known}", param="provider")
    if len(msgspec.json.encode(config)) > MAX_CONFIG_BYTES:
        raise InvalidRequest("config is too large", param="config")
    unknown = sorted(set(config) - set(fields(provider)))
    if unknown:
        raise InvalidRequest(f"{provider.title} has no setting {unknown[0][:40]!r}", param="config")
    try:
        provider.connect(msgspec.convert(dict(config), provider.config))
    except msgspec.ValidationError as error:
        said, param = _place(str(error), provider)
        raise InvalidRequest(said, param=param) from None
    except Misconfigured as error:
        raise InvalidRequest(str(error), param="config") from None
    return provider


def check_preferences(
    preferences: Mapping[str, Sequence[str]],
    accounts: Mapping[str, str],
    providers: Mapping[str, Provider[Any]],
) -> None:
    """`accounts`: the merchant's, from name to provider. Raises `InvalidRequest` for an account that is not
    there, is named twice, or does not have the channel."""
    for channel, names in preferences.items():
        for name in names:
            if name not in accounts:
                raise InvalidRequest(
                    f"{channel}: there is no account named {name[:MAX_NAME_CHARS]!a}", param="preferences"
                )
            provider = providers.get(accounts[name])
            if provider is None or channel not in [one.id for one in provider.channels]:
                raise InvalidRequest(f"account {name} has no channel {channel[:40]!a}", param="preferences")
        if len(set(names)) != len(names):
            raise InvalidRequest(f"{channel}: an account is named twice", param="preferences")


def fields(provider: Provider[Any]) -> dict[str, msgspec.structs.FieldInfo]:
    """A provider's settings by the name that a configuration uses."""
    return {one.encode_name: one for one in msgspec.structs.fields(provider.config)}


def is_secret(provider: Provider[Any] | None, name: str) -> bool:
    """Better one setting hidden too many than one secret shown."""
    return provider is None or name in provider.secrets or _SECRET_NAME.search(name) is not None


def public_config(provider: Provider[Any] | None, config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that anyone may see; of the others nothing but that they are there."""
    return {name: value for name, value in config.items() if not is_secret(provider, name) and _plain(value)}


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(one, str | int) for one in value)
    return isinstance(value, str | int)


def secrets_set(provider: Provider[Any] | None, config: Mapping[str, Any]) -> list[str]:
    return sorted(name for name, value in config.items() if is_secret(provider, name) and value)


def _place(message: str, provider: Provider[Any]) -> tuple[str, str]:
    """The decoder's words and the setting they are about. Of a secret only its name: the words may quote."""
    missing = _MISSING.fullmatch(message)
    if missing is not None:
        return f"{missing[1]}: is missing", f"config.{missing[1]}"
    said, _, where = message.partition(" - at `$.")
    name = where.rstrip("`").partition("[")[0].partition(".")[0]
    if not name:
        return said, "config"
    quoted = is_secret(provider, name) or "value" in said
    return f"{name}: {'this is not what the setting takes' if quoted else said}", f"config.{name}"
