"""Reconciliation by the API: files in, findings out, resolved with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.serving import Client

SPAN = {"account": "sandbox", "since": "2000-01-01T00:00:00Z", "until": "2000-01-02T00:00:00Z"}
COLUMNS = {
    "external_id": "Txn",
    "reference": "Order",
    "amount": "Gross",
    "fee": "Fee",
    "settled_on": "Paid out",
}


def asked(content: str, **changed: Any) -> dict[str, Any]:
    file = {"content": content, "columns": COLUMNS, "currency": "IDR"}
    return {**SPAN, "file": {**file, **changed}}


async def test_a_file_is_compared_and_its_findings_are_resolved(shop: Client, rival: Client) -> None:
    body = {"order_id": "A", "amount_minor": 15_000_000, "currency": "IDR", "channel": "gopay"}
    paid = (await shop.ask("POST", "/v1/payments", body)).json
    await shop.act(paid["id"], "pay")
    unpaid = (await shop.ask("POST", "/v1/payments", {**body, "order_id": "B"})).json
    content = (
        "Txn,Order,Gross,Fee,Paid out\n"
        f",{paid['id']},150000.00,1050,2000-01-02\n"
        ",B,150000.00,1050,2000-01-02\n"
        "S-1,,70000,490,2000-01-03\n"
    )
    done = await shop.ask("POST", "/v1/reconciliations", asked(content))
    assert done.status == 201, done.body
    assert done.json["summary"] == {
        "lines": 3, "matched": 2, "ours": 0, "new_findings": 2,
        "findings": {"missing_here": 1, "unpaid_here": 1},
        "money": {"IDR": {"lines": 3, "gross_minor": 37_000_000, "fee_minor": 259_000,
                          "net_minor": 36_741_000}},
        "settled": {
            "2000-01-02": {"IDR": {"lines": 2, "gross_minor": 30_000_000, "fee_minor": 210_000,
                                   "net_minor": 29_790_000}},
            "2000-01-03": {"IDR": {"lines": 1, "gross_minor": 7_000_000, "fee_minor": 49_000,
                                   "net_minor": 6_951_000}},
        },
    }  # fmt: skip
    one = f"/v1/reconciliations/{done.json['id']}"
    assert (await shop.ask("GET", one)).json == done.json
    assert [row["id"] for row in (await shop.ask("GET", "/v1/reconciliations")).json["data"]] == [
        done.json["id"]
    ]
    page = (await shop.ask("GET", f"{one}/lines?limit=2")).json
    rest = (await shop.ask("GET", f"{one}/lines?limit=2&cursor={page['next_cursor']}")).json
    lines = [*page["data"], *rest["data"]]
    assert [(row["line"], row["subject"], row["settled_on"]) for row in lines] == [
        (1, paid["id"], "2000-01-02"), (2, unpaid["id"], "2000-01-02"), (3, None, "2000-01-03"),
    ]  # fmt: skip
    assert rest["next_cursor"] is None

    found = (await shop.ask("GET", "/v1/findings")).json["data"]
    assert {(row["kind"], row["status"], row["ours_minor"], row["theirs_minor"]) for row in found} == {
        ("unpaid_here", "open", 0, 15_000_000), ("missing_here", "open", None, 7_000_000),
    }  # fmt: skip
    [unknown] = (await shop.ask("GET", "/v1/findings?kind=missing_here")).json["data"]
    where = f"/v1/findings/{unknown['id']}/resolve"
    assert (await rival.ask("POST", where, {"reason": "mine"})).status == 404
    assert (await rival.ask("GET", one)).status == 404
    assert (await rival.ask("GET", "/v1/findings")).json["data"] == []
    resolved = await shop.ask("POST", where, {"reason": "another shop's"})
    assert (resolved.status, resolved.json["status"], resolved.json["reason"]) == (
        200,
        "resolved",
        "another shop's",
    )
    again = await shop.ask("POST", where, {"reason": "changed my mind"})
    assert again.json == resolved.json
    rows = (await shop.ask("GET", "/v1/findings?status=open")).json["data"]
    assert [row["subject"] for row in rows] == [unpaid["id"]]
    # Nothing was paid by it.
    assert (await shop.ask("GET", f"/v1/payments/{unpaid['id']}")).json["paid_minor"] == 0


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"account": "nobody"}, "account"),
        ({"until": SPAN["since"]}, "until"),
        ({"until": "2001-01-01T00:00:00Z"}, "to"),
        ({"utc_offset": "+99:00"}, "utc_offset"),
        (asked("Txn\n1"), "columns"),
        (asked("Txn,Order,Gross,Fee,Paid out\n1,2,1.000.000,,"), "content"),
        (asked("Txn,Order,Gross,Fee,Paid out\n1,2,,,"), "content"),
        (asked("Txn,Order,Gross,Fee,Paid out\n1,2,5,,the 3rd"), "content"),
        (asked("Txn,Order,Gross,Fee,Paid out\n1,2,5,0.001,"), "content"),
        (asked('Txn,Order,Gross,Fee,Paid out\n1,"2,5,,'), "content"),
        (asked("Txn,Order,Gross,Fee,Paid out\n1,2,5,,,6"), "content"),
        (asked("{"), "content"),
        (asked('{"a": [], "b": []}'), "content"),
        (asked('[{"Gross": true}]'), "content"),
        (asked('[{"Gross": 1e9999999999999999999999}]'), "content"),
        (asked('[{"Gross": NaN}]'), "content"),
        (asked("Gross,Gross\n1,2", columns={}), "content"),
        (asked("amount,kind\n1,SALE", columns={}), "content"),
        (asked("amount\n1", columns={}, currency="XXX"), "currency"),
        (asked("amount\n1", columns={"colour": "red"}), "columns"),
        (asked("amount\n1", columns=None, currency=None), "columns"),
    ],
)
async def test_what_cannot_be_compared_is_said(shop: Client, changed: dict[str, Any], param: str) -> None:
    file = asked("Txn,Order,Gross,Fee,Paid out\n")
    refused = await shop.ask("POST", "/v1/reconciliations", {**file, **changed})
    assert (refused.status, refused.json.get("param")) == (400, param), refused.body
    assert (await shop.ask("GET", "/v1/reconciliations")).json["data"] == []


async def test_a_provider_without_a_statement_says_so(shop: Client) -> None:
    refused = await shop.ask("POST", "/v1/reconciliations", SPAN)
    assert refused.status == 409
    assert "file" in refused.json["detail"]


async def test_json_and_large_files_are_read(shop: Client) -> None:
    rows = [{"Txn": f"T-{n}", "Gross": "1500.00", "Fee": None, "pad": "x" * 60} for n in range(1500)]
    columns = {"external_id": "Txn", "amount": "Gross"}
    done = await shop.ask("POST", "/v1/reconciliations", asked(json.dumps({"rows": rows}), columns=columns))
    assert (done.status, done.json["summary"]["findings"]) == (201, {"missing_here": 1500})
    page = (await shop.ask("GET", "/v1/findings?limit=100")).json
    assert (len(page["data"]), page["next_cursor"] is None) == (100, False)
