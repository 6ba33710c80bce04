"""The configuration file: merchants and accounts, declared in TOML. Read here, applied by the hub.

    [merchant.shop]
    api_key = "key_shop"
    api_secret = { env = "SHOP_SECRET" }

    [account.main-payme]
    merchant = "shop"
    provider = "payme"
    default = true            # the documented paths of this provider serve this account
    key = { file = "/run/secrets/payme_key" }

Any value may be `{ env = "NAME" }` or `{ file = "PATH" }` (a relative path is relative to the file). What is
wrong is said with its place in the file, all of it at once, and never with a value.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tillgate.domain.errors import Misconfigured

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_LARGEST: Final = 1024 * 1024
_TTL_S: Final = (60, 30 * 86_400)


class Text(str):
    """A value that came from the environment or a file: a number in it is still text."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class DeclaredMerchant:
    name: str
    api_key: str
    api_secret: str = field(repr=False)
    callback_url: str | None = None
    payment_ttl_s: int | None = None
    late_money: str | None = None
    preferences: Mapping[str, tuple[str, ...]] | None = None


@dataclass(frozen=True, slots=True)
class DeclaredAccount:
    name: str
    merchant: str
    provider: str
    config: Mapping[str, Any] = field(repr=False)
    default: bool = False
    priority: int = 0
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Declarations:
    path: str
    merchants: tuple[DeclaredMerchant, ...]
    accounts: tuple[DeclaredAccount, ...]


def read(path: str | Path, environment: Mapping[str, str] | None = None) -> Declarations:
    """Raises `Misconfigured` with a line for every mistake: `till.toml: account.main.key: …`."""
    file = Path(path)
    try:
        raw = file.read_bytes()
        if len(raw) > _LARGEST:
            raise Misconfigured(f"{path}: larger than {_LARGEST} bytes")
        found = tomllib.loads(raw.decode("utf-8"))
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Misconfigured(f"{path}: is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(f"{path}: {error}") from None
    reader = _Reader(file.parent, os.environ if environment is None else environment)
    declared = reader.declarations(str(path), found)
    if reader.mistakes:
        raise Misconfigured("\n".join(f"{path}: {one}" for one in reader.mistakes))
    return declared


class _Reader:
    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory, self._environment = directory, environment
        self.mistakes: list[str] = []

    def declarations(self, path: str, found: Mapping[str, Any]) -> Declarations:
        for name in found:
            if name not in ("merchant", "account"):
                self._wrong(name, "there is no such table; there are merchant and account")
        merchants = [self._merchant(*one) for one in self._tables(found, "merchant")]
        accounts = [self._account(*one) for one in self._tables(found, "account")]
        names = {one.name for one in merchants}
        defaults: dict[str, str] = {}
        keys: dict[str, str] = {}
        for merchant in merchants:
            if merchant.api_key and merchant.api_key in keys:
                self._wrong(
                    f"merchant.{merchant.name}.api_key", f"merchant.{keys[merchant.api_key]} has it, too"
                )
            keys.setdefault(merchant.api_key, merchant.name)
        for account in accounts:
            if account.merchant and account.merchant not in names:
                self._wrong(f"account.{account.name}.merchant", "there is no such merchant in this file")
            if account.default and account.provider in defaults:
                other = defaults[account.provider]
                self._wrong(f"account.{account.name}.default", f"account.{other} is the default already")
            if account.default:
                defaults.setdefault(account.provider, account.name)
        return Declarations(path, tuple(merchants), tuple(accounts))

    def _tables(self, found: Mapping[str, Any], kind: str) -> list[tuple[str, Mapping[str, Any]]]:
        tables = found.get(kind, {})
        if not isinstance(tables, dict):
            self._wrong(kind, f"write [{kind}.NAME]")
            return []
        good: list[tuple[str, Mapping[str, Any]]] = []
        for name, table in tables.items():
            if not isinstance(table, dict):
                self._wrong(f"{kind}.{name}", f"write [{kind}.NAME]")
            elif not _NAME.fullmatch(name):
                self._wrong(f"{kind}.{name[:64]}", "a name is 1 to 64 letters, digits, '.', '_' and '-'")
            else:
                good.append((name, table))
        return good

    def _merchant(self, name: str, table: Mapping[str, Any]) -> DeclaredMerchant:
        at = f"merchant.{name}"
        known = ("api_key", "api_secret", "callback_url", "payment_ttl_s", "late_money", "preferences")
        for one in table:
            if one not in known:
                self._wrong(f"{at}.{one}", f"there is no such setting; there are {', '.join(known)}")
        ttl_s = self._optional(table, at, "payment_ttl_s")
        if isinstance(ttl_s, Text):
            ttl_s = int(ttl_s) if ttl_s.isascii() and ttl_s.isdigit() else -1
        if ttl_s is not None and not (type(ttl_s) is int and _TTL_S[0] <= ttl_s <= _TTL_S[1]):
            self._wrong(f"{at}.payment_ttl_s", f"must be {_TTL_S[0]} to {_TTL_S[1]} seconds")
            ttl_s = None
        late = self._optional(table, at, "late_money")
        if late is not None and late not in ("accept", "review"):
            self._wrong(f"{at}.late_money", "must be accept or review")
        url = self._optional(table, at, "callback_url")
        if url is not None and not isinstance(url, str):
            self._wrong(f"{at}.callback_url", "must be text")
        key, secret = self._text(table, at, "api_key"), self._text(table, at, "api_secret")
        preferences = self._preferences(table, at)
        return DeclaredMerchant(name, key, secret, url, ttl_s, late, preferences)

    def _preferences(self, table: Mapping[str, Any], at: str) -> dict[str, tuple[str, ...]] | None:
        given = self._optional(table, at, "preferences")
        if given is None:
            return None
        if isinstance(given, dict) and all(
            isinstance(names, list) and all(isinstance(one, str) for one in names) for names in given.values()
        ):
            return {channel: tuple(names) for channel, names in given.items()}
        self._wrong(f"{at}.preferences", 'must be such as { gopay = ["first-account", "second-account"] }')
        return None

    def _account(self, name: str, table: Mapping[str, Any]) -> DeclaredAccount:
        at = f"account.{name}"
        flags = {}
        for flag in ("default", "disabled"):
            value = self._optional(table, at, flag)
            if value is not None and type(value) is not bool:
                self._wrong(f"{at}.{flag}", "must be true or false")
            flags[flag] = value is True
        priority = self._optional(table, at, "priority")
        if priority is not None and not (type(priority) is int and 0 <= priority <= 1_000_000):
            self._wrong(f"{at}.priority", "must be a whole number from 0 to 1000000")
            priority = 0
        own = ("merchant", "provider", "default", "disabled", "priority")
        config = {one: self._value(value, f"{at}.{one}") for one, value in table.items() if one not in own}
        return DeclaredAccount(
            name,
            self._text(table, at, "merchant"),
            self._text(table, at, "provider"),
            config,
            flags["default"],
            priority or 0,
            flags["disabled"],
        )

    # --- values ---

    def _optional(self, table: Mapping[str, Any], at: str, name: str) -> Any:
        return self._value(table[name], f"{at}.{name}") if name in table else None

    def _text(self, table: Mapping[str, Any], at: str, name: str) -> str:
        if name not in table:
            self._wrong(f"{at}.{name}", "is missing")
            return ""
        before = len(self.mistakes)
        value = self._value(table[name], f"{at}.{name}")
        if len(self.mistakes) > before:
            return ""
        if not isinstance(value, str) or not 1 <= len(value) <= 500 or not value.isprintable():
            self._wrong(f"{at}.{name}", "must be 1 to 500 printable characters")
            return ""
        return value

    def _value(self, value: Any, at: str) -> Any:
        if isinstance(value, list):
            return [self._value(one, f"{at}[{number}]") for number, one in enumerate(value)]
        if not isinstance(value, dict):
            return value
        if set(value) == {"env"} and isinstance(value["env"], str):
            return self._from_environment(value["env"], at)
        if set(value) == {"file"} and isinstance(value["file"], str):
            return self._from_file(value["file"], at)
        return {name: self._value(one, f"{at}.{name}") for name, one in value.items()}

    def _from_environment(self, name: str, at: str) -> Any:
        if not self._environment.get(name):
            self._wrong(at, f"the environment variable {name} is not set")
            return Text()
        return Text(self._environment[name])

    def _from_file(self, name: str, at: str) -> Any:
        try:
            text = (self._directory / name).read_text(encoding="utf-8")
        except OSError as error:
            self._wrong(at, f"the file {name} cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            self._wrong(at, f"the file {name} is not UTF-8")
        else:
            if text.strip():
                return Text(text.strip())
            self._wrong(at, f"the file {name} is empty")
        return Text()

    def _wrong(self, at: str, why: str) -> None:
        self.mistakes.append(f"{at}: {why}")
