"""`/kiosk`: where kiosks enrol, fetch their orders and report. They call us; we never have to reach them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tillgate import schemas_kiosk as models
from tillgate.domain.errors import InvalidRequest, Unauthorized
from tillgate.http.operation import Answer, Call, Operation
from tillgate.http.v1.problem import ProblemDialect
from tillgate.store.directory import Account, Merchant

_ERRORS: Final = (400, 401, 413, 415, 422, 429, 503)
_encode: Final = msgspec.json.Encoder().encode


async def _known(call: Call) -> tuple[Merchant, Account]:
    """The kiosk that calls. Raises `Unauthorized`."""
    for name, value in call.scope["headers"]:
        if name == b"authorization":
            scheme, _, bearer = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                return await call.runtime.hub.kiosks.known(bearer.strip())
    raise Unauthorized("A kiosk's key is needed")


async def enrol(call: Call) -> Answer:
    wanted: models.EnrolIn = call.body
    return Answer(_encode(await call.runtime.hub.kiosks.enrol(wanted.code, wanted.key)))


async def work(call: Call) -> Answer:
    _, account = await _known(call)
    wanted: models.WorkIn = call.body
    runtime = call.runtime
    found = await runtime.hub.kiosks.work(
        account, wanted.mark, wanted.wait_s, wanted.doubts, lambda: runtime.closing
    )
    return Answer(_encode(found))


async def take(call: Call) -> Answer:
    merchant, account = await _known(call)
    wanted: models.TakeIn = call.body
    taken = await call.runtime.hub.kiosks.take(merchant, account, wanted.attempt, wanted.txn_id)
    return Answer(_encode(taken))


async def report(call: Call) -> Answer:
    merchant, account = await _known(call)
    wanted: models.ReportsIn = call.body
    if any(one.currency != "MYR" for one in wanted.reports):
        raise InvalidRequest("Terminals take MYR", param="reports")
    results = await call.runtime.hub.kiosks.report(merchant, account, wanted.reports)
    return Answer(_encode(models.ReportsOut(results)))


def operations() -> list[Operation]:
    common: dict[str, Any] = {"dialect": ProblemDialect(), "tag": "Kiosks", "auth": False}
    return [
        Operation(
            "POST", ("/kiosk/enrol",), "kiosk_enrol", "Become the kiosk behind a code, once", handler=enrol,
            body=models.EnrolIn, replies={200: models.EnrolOut}, errors=(*_ERRORS, 409), **common,
        ),
        Operation(
            "POST", ("/kiosk/work",), "kiosk_work", "Orders to collect and wishes to follow; may wait",
            handler=work, body=models.WorkIn, replies={200: models.WorkOut}, errors=_ERRORS, **common,
        ),
        Operation(
            "POST", ("/kiosk/take",), "kiosk_take", "Take an order before a terminal is asked for it",
            handler=take, body=models.TakeIn, replies={200: models.TakeOut}, errors=(*_ERRORS, 404, 409),
            **common,
        ),
        Operation(
            "POST", ("/kiosk/reports",), "kiosk_report", "Say how payments stand; answered once it is kept",
            handler=report, body=models.ReportsIn, replies={200: models.ReportsOut}, errors=_ERRORS,
            **common,
        ),
    ]  # fmt: skip
