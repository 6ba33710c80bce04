"""A merchant's configuration as statements, for commands to commit with what else they decide.

Secrets are sealed here. A change that was decided on what was read before names what it read, and finds no
row where somebody was quicker.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, insert, update
from sqlalchemy.sql.elements import ClauseElement

from tillgate.store import tables as t
from tillgate.store.book import Change
from tillgate.store.directory import Account, Endpoint, Merchant, MerchantSettings, Secrets
from tillgate.store.sealing import Sealer

_NEW_ENDPOINT = insert(t.endpoints)
_NEW_CREDENTIAL = insert(t.credentials)
_NEW_ACCOUNT = insert(t.accounts)
_REMOVE_ENDPOINT = (
    delete(t.endpoints).where(t.endpoints.c.id == bindparam("row_id")).returning(t.endpoints.c.id)
)


@cache
def _update(name: str, columns: tuple[str, ...], guard: str | None = None) -> ClauseElement:
    table = t.metadata.tables[name]
    made = update(table).where(table.c.id == bindparam("row_id"))
    if guard == "disabled_at":  # it is on
        made = made.where(table.c.disabled_at.is_(None))
    elif guard is not None:
        made = made.where(table.c[guard] == bindparam("guard"))
    return made.values({one: bindparam(f"new_{one}") for one in columns}).returning(table.c.id)


def _changed(
    table: str, row_id: str, new: Mapping[str, Any], guard: str | None = None, was: Any = None
) -> Change:
    params = {"row_id": row_id, **{f"new_{name}": value for name, value in new.items()}}
    if guard not in (None, "disabled_at"):
        params["guard"] = was
    return Change(_update(table, tuple(new), guard), params, guarded=True)


class Configuration:
    """Each method makes one `Change`."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    # --- merchants ---

    def merchant_settings(self, merchant_id: str, settings: MerchantSettings) -> Change:
        return _changed("merchants", merchant_id, {"settings": msgspec.json.encode(settings).decode()})

    def merchant_secrets(self, merchant: Merchant, secrets: Secrets) -> Change:
        sealed = self._seal(secrets, f"merchants:{merchant.id}:webhook_secrets")
        new = {"webhook_secrets": sealed}
        return _changed("merchants", merchant.id, new, "webhook_secrets", merchant.sealed)

    def new_credential(
        self, credential_id: str, merchant_id: str, api_key: str, secret: str, now: int
    ) -> Change:
        row = {
            "id": credential_id,
            "merchant_id": merchant_id,
            "api_key": api_key,
            "secret_hash": self._sealer.hash_secret(secret),
            "created_at": now,
            "expires_at": None,
        }
        return Change(_NEW_CREDENTIAL, row)

    def credential(self, credential_id: str, secret: str) -> Change:
        """Another secret for the same key; the one before is no longer known."""
        new = {"secret_hash": self._sealer.hash_secret(secret), "expires_at": None}
        return _changed("credentials", credential_id, new)

    # --- endpoints ---

    def new_endpoint(self, endpoint: Endpoint) -> Change:
        row = {
            "id": endpoint.id,
            "merchant_id": endpoint.merchant_id,
            "url": endpoint.url,
            "types": msgspec.json.encode(endpoint.types).decode(),
            "secrets": self._seal(endpoint.kept_secrets, f"endpoints:{endpoint.id}:secrets"),
            "created_at": endpoint.created_at,
            "disabled_at": None,
            "disabled_why": None,
            "description": endpoint.description,
            "failing_since": None,
        }
        return Change(_NEW_ENDPOINT, row)

    def endpoint(self, endpoint_id: str, **new: Any) -> Change:
        if "types" in new:
            new["types"] = msgspec.json.encode(new["types"]).decode()
        return _changed("endpoints", endpoint_id, new)

    def endpoint_secrets(self, endpoint: Endpoint, secrets: Secrets) -> Change:
        sealed = self._seal(secrets, f"endpoints:{endpoint.id}:secrets")
        return _changed("endpoints", endpoint.id, {"secrets": sealed}, "secrets", endpoint.sealed)

    def endpoint_off(self, endpoint_id: str, why: str, now: int) -> Change:
        """Only where it is on: of several who see it fail, one switches it off."""
        new = {"disabled_at": now, "disabled_why": why}
        return _changed("endpoints", endpoint_id, new, "disabled_at")

    def endpoint_on(self, endpoint_id: str) -> Change:
        new = {"disabled_at": None, "disabled_why": None, "failing_since": None}
        return _changed("endpoints", endpoint_id, new)

    def remove_endpoint(self, endpoint_id: str) -> Change:
        return Change(_REMOVE_ENDPOINT, {"row_id": endpoint_id}, guarded=True)

    # --- accounts ---

    def new_account(self, account: Account) -> Change:
        row = {
            "id": account.id,
            "merchant_id": account.merchant_id,
            "provider": account.provider,
            "name": account.name,
            "config": self._seal(dict(account.config), f"accounts:{account.id}:config"),
            "is_default": account.is_default,
            "priority": account.priority,
            "created_at": account.created_at,
            "disabled_at": None,
        }
        return Change(_NEW_ACCOUNT, row)

    def account_config(self, account: Account, config: Mapping[str, Any]) -> Change:
        sealed = self._seal(dict(config), f"accounts:{account.id}:config")
        return _changed("accounts", account.id, {"config": sealed}, "config", account.sealed)

    def account(self, account_id: str, **new: Any) -> Change:
        return _changed("accounts", account_id, new)

    def _seal(self, value: Any, where: str) -> bytes:
        return self._sealer.seal(msgspec.json.encode(value), where)
