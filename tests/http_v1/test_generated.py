"""Generated requests from the description of `/v1` and of providers' doors: no 5xx, nothing undescribed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi import checks as openapi_checks

from support.fixtures import fresh_database
from support.generated import refuses_bad_bodies
from support.serving import client, hub, new_merchant, rows
from tillgate.client import Tillgate
from tillgate.registry import providers

DOORS = ("payme", "click", "atompay_in", "atompos_vn", "midtrans", "xendit")
PAYME = {"merchant_id": "587f72c72cac0d162c722ae2", "key": "a-key-as-payme-gives-them-to-a-desk"}


def no_fault(context: Any, response: Any, case: Any) -> None:
    """No 5xx but the documented ones: nobody serves that channel, or the pretended bank lost its answer."""
    if response.status_code >= 500:
        assert (response.status_code, response.json().get("code")) in (
            (503, "service_unavailable"),
            (502, "unsure"),
        ), response.text


CHECKS = [
    no_fault,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.response_headers_conformance,
    refuses_bad_bodies,
    openapi_checks.unsupported_method,
    openapi_checks.ignored_auth,
]
EXAMPLES = {"positive": 15, "negative": 8}  # for each operation


@dataclass
class Api:
    schema: schemathesis.BaseSchema
    headers: dict[str, str]
    http: requests.Session


async def things(url: str, known: Any) -> dict[str, list[str]]:
    """Real ids for the parameters of paths."""
    async with (
        Tillgate(url, known.api_key, known.api_secret) as till,
        client(url, known) as shop,
    ):
        payments = [
            await till.create_payment(order_id=one, amount_minor=10**9, currency="IDR", channel="gopay")
            for one in ("pending", "paid", "failed", "held")
        ]
        for payment, action, fault in zip(
            payments[1:], ("pay", "fail", "pay"), ("", "", "wrong_amount"), strict=True
        ):
            await shop.act(payment.id, action, fault)
        refund = await till.create_refund(payments[1].id, 1000, "x")
        account = await till.create_account("payme", "main", PAYME)
        doors = [await till.create_account(one, one, dict(providers()[one].example)) for one in DOORS]
        standing = await till.create_standing_order(order_id="S", currency="UZS", channel="payme")
        endpoints = [await till.create_endpoint(f"https://hook.example/{number}") for number in range(3)]
        await till.test_endpoint(endpoints[0].id)
        links = [await till.create_payment_link(one, "IDR") for one in ("Tea", "Coffee")]
        delivery = await anext(aiter(till.deliveries()))
        event = await anext(aiter(till.events()))
        message = await anext(aiter(till.inbound()))
        return {
            "payment_id": [one.id for one in payments],
            "refund_id": [refund.id],
            "account_id": [account.id, *(one.id for one in doors)],
            "standing_id": [standing.id],
            "endpoint_id": [one.id for one in endpoints],
            "delivery_id": [delivery.id],
            "event_id": [event.id],
            "message_id": [message.id],
            "link_id": [one.id for one in links],
        }


@pytest.fixture(scope="module")
def api(pg_server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    directory = tmp_path_factory.mktemp("hub")
    with ExitStack() as stack:
        database_url = stack.enter_context(fresh_database(pg_server_url))
        process = stack.enter_context(hub(directory, database_url))
        known = new_merchant(database_url)
        ids = {
            name: itertools.cycle([*found, None])
            for name, found in asyncio.run(things(process.url, known)).items()
        }
        # Theirs are the documented paths.
        names = ", ".join(f"'{name}'" for name in DOORS)
        asyncio.run(rows(database_url, f"UPDATE accounts SET is_default = true WHERE name IN ({names})"))
        http = stack.enter_context(requests.Session())
        credentials = {"api_key": known.api_key, "api_secret": known.api_secret}
        token = http.post(f"{process.url}/v1/token", json=credentials, timeout=10).json()["access_token"]
        schema = schemathesis.openapi.from_url(f"{process.url}/openapi.json")

        @schema.hook
        def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> Any:
            for name in path_parameters or {}:
                real = next(ids[name]) if name in ids else None
                if path_parameters and real:
                    path_parameters[name] = real
            return path_parameters

        yield Api(schema, {"Authorization": f"Bearer {token}"}, http)
        assert process.stop() == 0
        assert "Traceback" not in process.log
        assert '"level": "error"' not in process.log


@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.value)
def test_v1_does_what_it_describes(api: Api, mode: GenerationMode) -> None:
    operations, tried = answered(api, api.schema.include(path_regex="^/v1/"), mode, CHECKS)
    assert operations >= 45
    assert tried > 200


def test_doors_answer_whatever_comes(api: Api) -> None:
    """In each provider's own words, which are not ours to describe; but never with a fault."""
    doors = api.schema.include(tag="Providers")
    operations, tried = answered(api, doors, GenerationMode.POSITIVE, [no_fault])
    assert operations >= 25
    assert tried > 200


def answered(
    api: Api, schema: schemathesis.BaseSchema, mode: GenerationMode, checks: list[Any]
) -> tuple[int, int]:
    """How many operations were asked, and how often."""
    failures: list[str] = []
    tried = operations = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        operations += 1

        @settings(
            max_examples=EXAMPLES[mode.value],
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(mode))
        def one(case: schemathesis.Case) -> None:
            nonlocal tried
            tried += 1
            case.call_and_validate(session=api.http, headers=api.headers, checks=checks, timeout=10)

        try:
            one()
        except Unsatisfiable:
            continue
        except (FailureGroup, Failure) as failure:
            failures.append(f"{operation.label}: {failure}")
    assert failures == [], "\n\n".join(failures)
    return operations, tried
