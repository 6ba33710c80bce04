"""`/v1`: enrol a kiosk for an account, and choose the instalment plan of a payment at its terminal."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tillgate import schemas_v1
from tillgate.domain.payment import Payment
from tillgate.http.operation import Answer, Call, Operation
from tillgate.http.v1.shared import WRITE, answer, named, printable
from tillgate.schemas_v1 import Time


class Enrolment(msgspec.Struct):
    """Shown once. `tillgate kiosk --hub … --enrol CODE` uses it up."""

    code: str
    account: str
    expires_at: Time


class PlanChoice(msgspec.Struct, forbid_unknown_fields=True):
    """One of those that `next_action.terminal.plans` offers."""

    plan_id: Annotated[str, Meta(min_length=1, max_length=255)]


async def invite(call: Call) -> Answer:
    hub = call.runtime.hub
    account = hub.accounts.one(call.merchant, named(call, "account_id"))
    code, ends = await hub.kiosks.invite(call.merchant, account)
    return Answer(schemas_v1.encode(Enrolment(code, account.id, schemas_v1.at(ends))), 201)


async def choose(call: Call) -> Answer:
    wanted: PlanChoice = call.body

    def render(payment: Payment) -> bytes:
        return schemas_v1.encode(schemas_v1.payment(payment))

    plan_id = printable(wanted.plan_id, "plan_id", 255)
    kept = await call.runtime.hub.kiosks.choose_plan(
        call.merchant, named(call, "payment_id"), plan_id, call.key, render
    )
    return answer(kept.stored, b"" if kept.result is None else render(kept.result), 200)


def operations(common: dict[str, Any]) -> list[Operation]:
    common = {**common, "tag": "Terminals"}
    return [
        Operation(
            "POST", ("/v1/accounts/{account_id}/enrolment",), "v1_enrol_kiosk",
            "A code with which one kiosk enrols for this account, within the hour; it replaces an unused one",
            handler=invite, replies={201: Enrolment}, errors=WRITE, **common,
        ),
        Operation(
            "POST", ("/v1/payments/{payment_id}/plan",), "v1_choose_plan",
            "Choose among the instalment plans that the terminal offers", handler=choose, body=PlanChoice,
            replies={200: schemas_v1.PaymentV1}, errors=WRITE, idempotent=True, **common,
        ),
    ]  # fmt: skip
