"""Settlement files: the legacy report, other columns, and files that are broken."""

from __future__ import annotations

import json
from datetime import date

import pytest

from tillgate.domain.errors import InvalidRequest
from tillgate.providers.atompay_in.settlement import LEGACY, Problem, Settled, read, statement

ROW = {
    "srNo": "1",
    "merchantName": "A shop",
    "merchantID": "317157",
    "atomTxnID": "11000000123456",
    "txnState": "Sale",
    "merchantTxnID": "0198a1b2",
    "bankRefNo": "B77",
    "refundRefNo": "",
    "grossTxnAmount": "319.00",
    "totalChargeable": "7.53",
    "netAmountToBePaid": "311.47",
    "paymentStatus": "Paid",
    "settlementDate": "2026-11-22",
}
EXPECTED = Settled("0198a1b2", 31_900, 31_147, 753, "11000000123456", date(2026, 11, 22), "B77", "", "Paid")


def as_csv(*rows: dict[str, str]) -> bytes:
    lines = [",".join(ROW)] + [",".join(f'"{row[name]}"' for name in ROW) for row in rows]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize(
    "data",
    [
        as_csv(ROW),
        b"\xef\xbb\xbf" + as_csv(ROW) + b"\r\n",
        as_csv({**ROW, "settlementDate": "22/11/2026", "grossTxnAmount": " 319.00 "}),
        as_csv({**ROW, "settlementDate": "22-Nov-2026"}),
        json.dumps([ROW]).encode(),
        json.dumps({"status": "ok", "settlements": [ROW]}).encode(),
        json.dumps([{**ROW, "grossTxnAmount": 319.0, "atomTxnID": 11000000123456}]).encode(),
    ],
    ids=["csv", "bom", "slashes", "month", "json", "wrapped", "numbers"],
)
def test_the_legacy_report_is_read(data: bytes) -> None:
    settlement = read(data, merch_id="317157")
    assert settlement.rows == (EXPECTED,)
    assert settlement.problems == ()


def test_thousands_and_other_columns() -> None:
    data = b'Order,Amount,Payout\nT1,"1,23,456.78","1,23,000.00"\n'
    columns = {"merch_txn_id": "Order", "gross": "Amount", "net": "Payout"}
    assert read(data, columns).rows == (Settled("T1", 12_345_678, 12_300_000, 45_678),)


@pytest.mark.parametrize("data", [b"", b"  \n", b"No data found", b"no data found.\n", b"[]"])
def test_a_day_without_settlements(data: bytes) -> None:
    assert read(data).rows == ()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"grossTxnAmount": "abc"}, "grossTxnAmount is no amount"),
        ({"grossTxnAmount": "-1.00"}, "grossTxnAmount is no amount"),
        ({"grossTxnAmount": "319.005"}, "grossTxnAmount is no amount"),
        ({"netAmountToBePaid": "311.48"}, "319.00 less 7.53 is not 311.48"),
        ({"merchantTxnID": ""}, "merchantTxnID is empty"),
        ({"merchantID": "446442"}, "merchant '446442'"),
        ({"settlementDate": "soon"}, "no date"),
    ],
)
def test_a_row_that_cannot_be_taken_is_named_and_the_others_are_read(
    change: dict[str, str], why: str
) -> None:
    settlement = read(as_csv({**ROW, **change}, {**ROW, "merchantTxnID": "T2"}), merch_id="317157")
    assert [row.merch_txn_id for row in settlement.rows] == ["T2"]
    [problem] = settlement.problems
    assert problem.row == 1
    assert why in problem.why


def test_a_row_that_stands_twice_counts_once() -> None:
    settlement = read(as_csv(ROW, ROW, {**ROW, "refundRefNo": "R1"}))
    assert len(settlement.rows) == 2
    assert settlement.problems == (Problem(2, "0198a1b2 stands in the file twice"),)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe\x00",
        b"{",
        b'{"a":1}',
        b'{"a":[],"b":[]}',
        b'[{"a":1,"a":2}]',
        b"name,price\n1,2\n",
        b"<html></html>",
        b'"a,b\n"x',
        b"[" * 50_000,
    ],
)
def test_a_file_that_is_none(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(data)


def test_limits_and_maps() -> None:
    with pytest.raises(InvalidRequest, match="larger"):
        read(b"x" * (32 * 1024 * 1024 + 1))
    with pytest.raises(InvalidRequest, match="column map"):
        read(as_csv(ROW), {"gross": "a"})
    with pytest.raises(InvalidRequest, match="column map"):
        read(as_csv(ROW), {**LEGACY, "tax": "b"})
    assert [problem.row for problem in read(b"[1, null, []]").problems] == [1, 2, 3]


def test_the_report_is_a_statement_whole_or_not_at_all() -> None:
    back = {**ROW, "refundRefNo": "R-9", "grossTxnAmount": "100.00", "totalChargeable": "0.00",
            "netAmountToBePaid": "100.00"}  # fmt: skip
    lines = statement(as_csv(ROW, back), "317157")
    assert [
        (
            one.kind,
            one.amount_minor,
            one.currency,
            one.reference,
            one.external_id,
            one.fee_minor,
            one.settled_on,
        )
        for one in lines
    ] == [
        ("payment", 31_900, "INR", "0198a1b2", "11000000123456", 753, "2026-11-22"),
        ("refund", 10_000, "INR", "0198a1b2", "11000000123456", 0, "2026-11-22"),
    ]
    with pytest.raises(InvalidRequest, match="row 2"):
        statement(as_csv(ROW, {**ROW, "merchantTxnID": "2", "grossTxnAmount": "much"}), "317157")
    with pytest.raises(InvalidRequest, match="row 1"):
        statement(as_csv({**ROW, "merchantID": "999999"}), "317157")
