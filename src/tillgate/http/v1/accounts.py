"""`/v1/accounts`, `/v1/providers`, `/v1/channels`: through whom a merchant collects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tillgate import schemas_v1
from tillgate.domain.errors import InvalidRequest
from tillgate.http.operation import Answer, Call, Operation
from tillgate.http.v1.pages import whole
from tillgate.http.v1.shared import LIST, READ, WRITE, answer, named
from tillgate.hub.accounts import fields, is_secret, public_config, secrets_set
from tillgate.schemas_v1 import bodies as models
from tillgate.spi import Channel, Provider
from tillgate.store.directory import Account


def show(call: Call, one: Account) -> models.AccountV1:
    provider = call.runtime.providers.get(one.provider)
    return models.AccountV1(
        id=one.id,
        name=one.name,
        provider=one.provider,
        status="disabled" if one.disabled else "enabled",
        default=one.is_default,
        priority=one.priority,
        channels=[channel.id for channel in provider.channels] if provider else [],
        config=public_config(provider, one.config),
        secrets=secrets_set(provider, one.config),
        inbound_url=f"{call.runtime.settings.url}/in/{one.id}",
        created_at=schemas_v1.at(one.created_at),
    )


def _not_elsewhere(call: Call, provider_name: str, config: Mapping[str, Any]) -> None:
    """Outside the sandbox a merchant may not say where its provider is: we would call any address of our own
    network for it. Raises `InvalidRequest`."""
    provider = call.runtime.providers.get(provider_name)
    named = sorted(provider.addresses & set(config)) if provider else []
    if named and not call.runtime.settings.sandbox:
        raise InvalidRequest(
            f"{named[0]}: only the hub's operator says where a provider is called",
            param=f"config.{named[0]}",
        )


async def create(call: Call) -> Answer:
    wanted: models.AccountCreate = call.body
    _not_elsewhere(call, wanted.provider, wanted.config)

    def render(one: Account) -> bytes:
        return schemas_v1.encode(show(call, one))

    made = await call.runtime.hub.accounts.create(
        call.merchant, wanted.provider, wanted.name, wanted.config, call.key, render, priority=wanted.priority
    )
    return answer(made.answer, render(made.account), 201)


async def list_(call: Call) -> Answer:
    return whole([show(call, one) for one in call.merchant.accounts])


async def get(call: Call) -> Answer:
    account = call.runtime.hub.accounts.one(call.merchant, named(call, "account_id"))
    return Answer(schemas_v1.encode(show(call, account)))


async def rotate(call: Call) -> Answer:
    wanted: models.AccountRotate = call.body
    account = call.runtime.hub.accounts.one(call.merchant, named(call, "account_id"))
    _not_elsewhere(call, account.provider, wanted.config)

    def render(one: Account) -> bytes:
        return schemas_v1.encode(show(call, one))

    done = await call.runtime.hub.accounts.rotate(call.merchant, account.id, wanted.config, call.key, render)
    return answer(done.answer, render(done.account), 200)


async def enable(call: Call) -> Answer:
    return await _switch(call, on=True)


async def disable(call: Call) -> Answer:
    return await _switch(call, on=False)


async def _switch(call: Call, *, on: bool) -> Answer:
    def render(one: Account) -> bytes:
        return schemas_v1.encode(show(call, one))

    done = await call.runtime.hub.accounts.switch(
        call.merchant, named(call, "account_id"), on, call.key, render
    )
    return answer(done.answer, render(done.account), 200)


def describe(provider: Provider[Any]) -> models.ProviderV1:
    return models.ProviderV1(
        name=provider.name,
        title=provider.title,
        asks=provider.asks,
        channels=[channel(one) for one in provider.channels],
        config=[
            models.ConfigField(
                name=name,
                type=_type(one.type),
                required=one.required or name in provider.required,
                secret=is_secret(provider, name),
                default=None if _undefined(provider, name, one) else _default(one),
            )
            for name, one in fields(provider).items()
        ],
        paths={**provider.paths, **provider.serves},
    )


def _type(kind: Any) -> str:
    """In JSON's words; that it may be null goes without saying."""
    schema = msgspec.json.schema(kind)
    choices = schema.get("anyOf", [schema])
    words = ["enum" if "enum" in one else str(one.get("type", "any")) for one in choices]
    return " | ".join(word for word in dict.fromkeys(words) if word != "null")


def _undefined(provider: Provider[Any], name: str, one: msgspec.structs.FieldInfo) -> bool:
    """Whether there is no default that may be shown."""
    return one.required or name in provider.required or is_secret(provider, name)


def _default(one: msgspec.structs.FieldInfo) -> Any:
    if one.default is not msgspec.NODEFAULT:
        return msgspec.to_builtins(one.default)
    if one.default_factory is not msgspec.NODEFAULT:
        return msgspec.to_builtins(one.default_factory())
    return None


def channel(one: Channel) -> models.ChannelV1:
    return models.ChannelV1(one.id, one.name, one.currency, one.min_minor, one.max_minor)


async def providers(call: Call) -> Answer:
    found = [describe(one) for _, one in sorted(call.runtime.providers.items())]
    return whole(found)


async def channels(call: Call) -> Answer:
    found = [channel(one) for one in call.runtime.kit.channels(call.merchant)]
    return whole(found)


def operations(common: dict[str, Any]) -> list[Operation]:
    common = {**common, "tag": "Accounts"}
    shown, one = models.AccountV1, "/v1/accounts/{account_id}"
    written: dict[str, Any] = {"errors": WRITE, "idempotent": True, **common}
    return [
        Operation(
            "GET", ("/v1/providers",), "v1_list_providers", "Providers and the settings that they take",
            handler=providers, replies={200: models.ProviderList}, errors=LIST, **common,
        ),
        Operation(
            "GET", ("/v1/channels",), "v1_list_channels", "What your payers can choose", handler=channels,
            replies={200: models.ChannelList}, errors=LIST, **common,
        ),
        Operation(
            "POST", ("/v1/accounts",), "v1_create_account",
            "Collect through a provider; what you give is judged by it and its secrets are sealed",
            handler=create, body=models.AccountCreate, replies={201: shown},
            example={"provider": "payme", "name": "main",
                     "config": {"merchant_id": "587f72c72cac0d162c722ae2", "key": "…"}}, **written,
        ),
        Operation(
            "GET", ("/v1/accounts",), "v1_list_accounts", "List accounts", handler=list_,
            replies={200: models.AccountList}, errors=LIST, **common,
        ),
        Operation(
            "GET", (one,), "v1_get_account", "One account, without its secrets", handler=get,
            replies={200: shown}, errors=READ, **common,
        ),
        Operation(
            "POST", (f"{one}/rotate",), "v1_rotate_account",
            "New values for some settings; an old secret goes on where the provider has a place for it",
            handler=rotate, body=models.AccountRotate, replies={200: shown}, **written,
        ),
        Operation(
            "POST", (f"{one}/disable",), "v1_disable_account",
            "Take nothing more through it; its provider's messages are no longer found",
            handler=disable, replies={200: shown}, **written,
        ),
        Operation(
            "POST", (f"{one}/enable",), "v1_enable_account", "Take payments through it again",
            handler=enable, replies={200: shown}, **written,
        ),
    ]  # fmt: skip
