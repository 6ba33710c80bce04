"""`/v1/reconciliations` and `/v1/findings`: a provider's statement beside our books, and what differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from tillgate import schemas_v1
from tillgate.domain.errors import InvalidRequest, NotFound
from tillgate.http.operation import Answer, Call, Operation
from tillgate.http.v1.pages import CREATED, PAGING, asked, id_at, parse_time
from tillgate.http.v1.shared import LIST, READ, WRITE, answer, named, printable
from tillgate.hub.statement_files import Layout, offset_ms
from tillgate.schemas import rfc3339
from tillgate.schemas_v1 import reconciliations as models
from tillgate.store.reads_pages import Wanted

FINDING_KINDS = get_args(models.FindingKind)


def show(row: Mapping[str, Any]) -> models.ReconciliationV1:
    return models.ReconciliationV1(
        id=row["id"],
        account=row["account_id"],
        source=row["source"],
        since=schemas_v1.at(row["from_ms"]),
        until=schemas_v1.at(row["to_ms"]),
        summary=msgspec.json.decode(row["summary"]) if isinstance(row["summary"], str) else row["summary"],
        created_at=schemas_v1.at(row["created_at"]),
    )


def finding(row: Mapping[str, Any]) -> models.FindingV1:
    return models.FindingV1(
        id=row["id"],
        reconciliation=row["reconciliation_id"],
        account=row["account_id"],
        kind=row["kind"],
        status="open" if row["resolved_at"] is None else "resolved",
        subject=row["subject"],
        reference=row["reference"],
        external_id=row["external_id"],
        ours_minor=row["ours_minor"],
        theirs_minor=row["theirs_minor"],
        currency=row["currency"],
        at=rfc3339(row["at"]),
        created_at=schemas_v1.at(row["created_at"]),
        resolved_at=rfc3339(row["resolved_at"]),
        reason=row["reason"],
    )


async def create(call: Call) -> Answer:
    wanted: models.ReconciliationCreate = call.body
    reconciling = call.runtime.hub.reconciling
    if (known := await reconciling.known(call.merchant, call.key)) is not None:
        return answer(known, b"", 201)
    account = call.merchant.account(wanted.account)
    if account is None:
        raise InvalidRequest("There is no such account", param="account")
    since, until = parse_time(wanted.since, "since"), parse_time(wanted.until, "until")
    assert since is not None
    assert until is not None
    if until <= since:
        raise InvalidRequest("until is not after since", param="until")
    offset = offset_ms(wanted.utc_offset)
    if wanted.file is None:
        lines = await reconciling.pull(call.merchant, account, since, until)
    else:
        lines = await reconciling.read_file(account, wanted.file.content, _layout(wanted, wanted.file))
    made = await reconciling.compare(
        call.merchant, account, lines, source="api" if wanted.file is None else "file",
        from_ms=since, to_ms=until, day_offset_ms=offset,
    )  # fmt: skip
    row = {name: getattr(made, name) for name in made.__dataclass_fields__}
    body = schemas_v1.encode(show(row))
    return answer(await reconciling.remember(call.merchant, call.key, body), body, 201)


def _layout(wanted: models.ReconciliationCreate, file: models.StatementFile) -> Layout | None:
    if file.columns is None and file.currency is None:
        return None
    return Layout(
        columns=file.columns or {},
        currency=file.currency,
        unit=file.unit,
        utc_offset=wanted.utc_offset,
        kinds=file.kinds,
        passed_over=tuple(file.passed_over),
    )


async def get(call: Call) -> Answer:
    return Answer(schemas_v1.encode(show(await _own(call))))


async def _own(call: Call) -> Mapping[str, Any]:
    row = await call.runtime.pages.one("reconciliations", call.merchant.id, named(call, "reconciliation_id"))
    if row is None:
        raise NotFound("There is no such reconciliation")
    return row


async def list_(call: Call) -> Answer:
    page = asked(call, "reconciliations", "account", "created_after", "created_before")
    sifted: dict[str, Any] = {}
    if (account := page.text("account")) is not None:
        sifted["account_id"] = account
    found = await call.runtime.pages.page(
        Wanted(
            "reconciliations", call.merchant.id, page.limit, page.after, {}, sifted,
            id_at("rec_", page.time("created_after")), id_at("rec_", page.time("created_before")),
        )
    )  # fmt: skip
    return page.answer(found, show)


async def lines(call: Call) -> Answer:
    made = await _own(call)
    page = asked(call, f"statement_lines:{made['id']}")
    after = page.after
    got = await call.runtime.hub.reconciling.rows.lines(made["id"], after[0] if after else 0, page.limit + 1)
    rows = got[: page.limit]
    shown = [
        models.StatementLineV1(
            line=row["line"], kind=row["kind"], reference=row["reference"], external_id=row["external_id"],
            amount_minor=row["amount_minor"], currency=row["currency"], fee_minor=row["fee_minor"],
            at=rfc3339(row["at"]), settled_on=row["settled_on"], subject=row["subject"],
        )
        for row in rows
    ]  # fmt: skip
    return page.shown(shown, (rows[-1]["line"],) if len(got) > page.limit else None)


async def findings(call: Call) -> Answer:
    page = asked(
        call, "findings", "reconciliation", "kind", "subject", "status", "created_after", "created_before"
    )
    sifted: dict[str, Any] = {}
    for name, column in (("reconciliation", "reconciliation_id"), ("subject", "subject")):
        if (value := page.text(name)) is not None:
            sifted[column] = value
    if (kind := page.choice("kind", FINDING_KINDS)) is not None:
        sifted["kind"] = kind
    status = page.choice("status", ("open", "resolved"))
    found = await call.runtime.pages.page(
        Wanted(
            "findings", call.merchant.id, page.limit, page.after, {}, sifted,
            id_at("fnd_", page.time("created_after")), id_at("fnd_", page.time("created_before")),
        )
    )  # fmt: skip
    rows = [row for row in found.rows if status is None or (row["resolved_at"] is None) == (status == "open")]
    return page.shown([finding(row) for row in rows], found.next)


async def resolve(call: Call) -> Answer:
    wanted: models.FindingResolve = call.body
    bodies: list[bytes] = []

    def render(row: Mapping[str, Any]) -> bytes:
        bodies.append(schemas_v1.encode(finding(row)))
        return bodies[0]

    reason = printable(wanted.reason, "reason", 300)
    kept = await call.runtime.hub.reconciling.resolve(
        call.merchant, named(call, "finding_id"), reason, call.key, render
    )
    return answer(kept, bodies[0], 200)


def operations(common: dict[str, Any]) -> list[Operation]:
    common = {**common, "tag": "Reconciliation"}
    base, made = "/v1/reconciliations", models.ReconciliationV1
    kinds = {"description": "Only this kind.", "type": "string", "enum": list(FINDING_KINDS)}
    status = {"description": "How it stands.", "type": "string", "enum": ["open", "resolved"]}
    return [
        Operation(
            "POST", (base,), "v1_create_reconciliation",
            "Compare a statement, given or asked for, with our books; a second time finds nothing new",
            handler=create, body=models.ReconciliationCreate, replies={201: made},
            errors=(*WRITE, 502), idempotent=True, body_limit=models.MAX_FILE + 65_536, **common,
        ),
        Operation(
            "GET", (base,), "v1_list_reconciliations", "List comparisons, the newest first", handler=list_,
            replies={200: models.ReconciliationList}, errors=LIST,
            query={"account": "Only of this account, by id.", **CREATED, **PAGING}, **common,
        ),
        Operation(
            "GET", (f"{base}/{{reconciliation_id}}",), "v1_get_reconciliation", "One comparison", handler=get,
            replies={200: made}, errors=READ, **common,
        ),
        Operation(
            "GET", (f"{base}/{{reconciliation_id}}/lines",), "v1_list_statement_lines",
            "Its statement, line by line, with what each is about", handler=lines,
            replies={200: models.StatementLineList}, errors=READ, query=PAGING, **common,
        ),
        Operation(
            "GET", ("/v1/findings",), "v1_list_findings", "What comparisons found, the newest first",
            handler=findings, replies={200: models.FindingList}, errors=LIST,
            query={"reconciliation": "Only those that this one found first.", "kind": kinds, "status": status,
                   "subject": "Only about this payment or refund.", **CREATED, **PAGING}, **common,
        ),
        Operation(
            "POST", ("/v1/findings/{finding_id}/resolve",), "v1_resolve_finding",
            "Say what became of it; the first reason stays, and no money moves", handler=resolve,
            body=models.FindingResolve, replies={200: models.FindingV1}, errors=WRITE, idempotent=True,
            **common,
        ),
    ]  # fmt: skip
