"""`/v1/token` and `/v1/settings`: who calls, and what a merchant may set for itself."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from tillgate import schemas, schemas_v1
from tillgate.http.merchant import create_token
from tillgate.http.operation import Answer, Call, Operation
from tillgate.http.v1.shared import LIST, answer, callable_url
from tillgate.hub.accounts import check_preferences
from tillgate.schemas import rfc3339
from tillgate.schemas_v1 import bodies as models
from tillgate.store.directory import MerchantSettings, Secrets


def show(call: Call, settings: MerchantSettings) -> bytes:
    return schemas_v1.encode(
        models.SettingsV1(
            merchant=call.merchant.id,
            name=call.merchant.name,
            callback_url=settings.callback_url,
            payment_ttl_s=settings.payment_ttl_s,
            late_money="review" if settings.late_money == "review" else "accept",
            callback_secrets=len(call.merchant.webhook_secrets),
            preferences=settings.preferences,
        )
    )


async def get(call: Call) -> Answer:
    return Answer(show(call, call.merchant.settings))


async def update(call: Call) -> Answer:
    body: models.SettingsUpdate = call.body
    new: dict[str, Any] = {
        name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET
    }
    if "callback_url" in new:
        callable_url(call, new["callback_url"], "callback_url")
    if "preferences" in new:
        accounts = {one.name: one.provider for one in call.merchant.accounts}
        check_preferences(new["preferences"], accounts, call.runtime.kit.providers)
    settings = msgspec.structs.replace(call.merchant.settings, **new)
    await call.runtime.hub.endpoints.settings(call.merchant, settings)
    return Answer(show(call, settings))


async def rotate(call: Call) -> Answer:
    wanted: models.RotateIn = call.body
    kept, stored = await call.runtime.hub.endpoints.rotate_callback_secret(
        call.merchant, wanted.overlap_s, call.key, _secret
    )
    return answer(stored, _secret(kept), 200)


def _secret(kept: Secrets) -> bytes:
    until = kept[1][1] if len(kept) > 1 else None
    return schemas_v1.encode(models.CallbackSecret(kept[0][0], rfc3339(until)))


def operations(common: dict[str, Any]) -> list[Operation]:
    common = {**common, "tag": "Settings"}
    return [
        Operation(
            "POST", ("/v1/token",), "v1_create_token", "Exchange an API key and secret for a bearer token",
            handler=create_token, body=schemas.TokenIn, replies={200: schemas.TokenOut}, auth=False,
            errors=(400, 401, 413, 415, 429, 503),
            example={"api_key": "key_…", "api_secret": "secret_…"}, **common,
        ),
        Operation(
            "GET", ("/v1/settings",), "v1_get_settings", "Your own settings", handler=get,
            replies={200: models.SettingsV1}, errors=LIST, **common,
        ),
        Operation(
            "PATCH", ("/v1/settings",), "v1_update_settings", "Change some of them", handler=update,
            body=models.SettingsUpdate, replies={200: models.SettingsV1},
            errors=(400, 401, 409, 413, 415, 429, 503), example={"payment_ttl_s": 1800}, **common,
        ),
        Operation(
            "POST", ("/v1/settings/callback-secret",), "v1_rotate_callback_secret",
            "A new secret for callback_url, shown once; the one before goes on signing beside it",
            handler=rotate, body=models.RotateIn, bare=True, replies={200: models.CallbackSecret},
            errors=(400, 401, 409, 413, 415, 422, 429, 503), idempotent=True, shows_secret=True, **common,
        ),
    ]  # fmt: skip
