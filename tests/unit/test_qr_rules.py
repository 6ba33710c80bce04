"""What is refused, what is reported, what is kept: codes made here, signed by an independent checksum."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.qr_codes import crc, o, signed
from tillgate import qr
from tillgate.domain.money import Money
from tillgate.qr import QrError, Severity

TO_CARD = "00020101021138600010A00000072701300006970403011697040311012345670208QRIBFTTC53037045802VN63044F52"
DUITNOW = (
    "00020201021126410014A000000615000101065016640209123456789520499995303458540510.005802MY5909QRCSDNBHD"
    "6005BANGI6304343F"
)
SHOP = "00020101021126360014A0000006150001010650166402041234"
"""The start of a DuitNow code; `REST` is its end, and tags in between are the test's."""
REST = "5204581253034585802MY5909TOKO SATU6005BANGI"

BAD_GRAMMAR = [
    ("nothing", "", ""),
    ("not a code", "hello", ""),
    ("a web link", "https://example.com/pay", ""),
    ("tag 00 only", "000201", "63"),
    ("no checksum", SHOP + REST, "63"),
    ("checksum not last", signed(SHOP + REST) + "5401" + "1", "63"),
    ("checksum of another length", SHOP + REST + "6305ABCDE", "63"),
    ("checksum wrong", SHOP + REST + "63040000", "63"),
    ("checksum not hex", SHOP + REST + "6304ZZZZ", "63"),
    ("trailing space", signed(SHOP + REST) + " ", ""),
    ("trailing zero", signed(SHOP + REST) + "0", ""),
    ("tag 00 not first", signed("010211" + "000201" + REST), ""),
    ("tag twice", signed(SHOP + REST + "5901X"), "59"),
    ("payload format twice", signed(SHOP + REST + "000201"), "00"),
    ("length zero", signed(SHOP + REST + "6200"), "62"),
    ("letters for a tag", signed(SHOP + REST + "XX01A"), ""),
    ("letters for a length", signed(SHOP + REST + "620xA"), ""),
    ("a signed length", signed(SHOP + REST + "62+1A"), ""),
    ("a spaced length", signed(SHOP + REST + "62 1A"), ""),
    ("Arabic-Indic digits", signed(SHOP + REST + "62\u0660\u0661A"), ""),
    ("superscript digits", signed(SHOP + REST + "62\u00b9\u00b2A"), ""),
    ("half a character", "000201\ud800", ""),
    ("too long", signed(SHOP + REST + "".join(f"{t}99{'x' * 99}" for t in range(65, 70))), ""),
]

DUITNOW_ID = o("00", "A0000006150001")
VIETQR_ID = o("00", "A000000727")
BAD_PAYEE = [
    ("left over", o("26", "0004ABCD01"), "26"),
    ("short", o("26", "0006ABCDE"), "26.00"),
    ("not a template", o("26", "ABCD"), "26"),
    ("no identifier", o("26", o("01", "12")), "26"),
    ("identifier twice", o("26", o("00", "12") + o("00", "13")), "26.00"),
    ("DuitNow without a merchant", o("26", DUITNOW_ID + o("01", "501664")), "26.02"),
    ("VietQR without a beneficiary", o("38", VIETQR_ID + o("02", "QRIBFTTA")), "38.01"),
    ("VietQR without an account", o("38", VIETQR_ID + o("01", o("00", "970403"))), "38.01.01"),
    ("VietQR without a bank", o("38", VIETQR_ID + o("01", o("01", "12345678"))), "38.01.00"),
    ("VietQR account cut short", o("38", VIETQR_ID + o("01", o("00", "970403") + "0113123")), "38.01.01"),
]

BAD_AMOUNT = [
    ("comma", "10,00"),
    ("minus", "-10"),
    ("plus", "+10"),
    ("exponent", "1e3"),
    ("space", " 10"),
    ("two points", "1.0.0"),
    ("point first", ".5"),
    ("Arabic-Indic", "\u0661\u0660"),
    ("a digit too many", "10.005"),
    ("fourteen characters", "12345678901.00"),
]


REFUSED = BAD_GRAMMAR + [(name, signed("000201" + account + REST), path) for name, account, path in BAD_PAYEE]


@pytest.mark.parametrize(("text", "path"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_code_that_cannot_be_trusted_is_refused_and_says_where(text: str, path: str) -> None:
    with pytest.raises(QrError) as refused:
        qr.decode(text)

    assert refused.value.path == path
    assert refused.value.source
    first = qr.lint(text)[0]
    assert (first.severity, first.path) == (Severity.ERROR, path)


@pytest.mark.parametrize("amount", [row[1] for row in BAD_AMOUNT], ids=[row[0] for row in BAD_AMOUNT])
def test_an_amount_that_is_not_one_is_refused(amount: str) -> None:
    with pytest.raises(QrError) as refused:
        qr.decode(signed(f"{SHOP}54{len(amount):02d}{amount}{REST}"))
    assert refused.value.path == "54"


@pytest.mark.parametrize(
    ("amount", "minor"),
    [
        ("98.73", 9873),
        ("98", 9800),
        ("98.", 9800),
        ("98.7", 9870),
        ("0.01", 1),
        ("1.000000", 100),
        ("0010", 1000),
    ],
)
def test_an_amount_is_read_exactly(amount: str, minor: int) -> None:
    assert qr.decode(signed(f"{SHOP}54{len(amount):02d}{amount}{REST}")).amount_minor == minor


@pytest.mark.parametrize("amount", ["0", "0.00", "00.00"])
def test_zero_is_an_open_amount_on_a_sticker_and_refused_on_a_code_for_one_order(amount: str) -> None:
    field = f"54{len(amount):02d}{amount}"
    assert qr.decode(signed(SHOP + field + REST)).money is None
    with pytest.raises(QrError, match="more than zero"):
        qr.decode(signed(SHOP.replace("010211", "010212") + field + REST))


def test_an_amount_that_looks_like_the_checksum_is_not_mistaken_for_it() -> None:
    code = qr.decode(signed(SHOP + REST + "54076304.63"))
    assert (code.amount, code.money) == ("6304.63", Money(630_463, "MYR"))


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (1_500_000, "IDR", "15000"),
        (100, "IDR", "1"),
        (180_000, "VND", "180000"),
        (1050, "MYR", "10.50"),
        (1, "MYR", "0.01"),
        (100, "INR", "1.00"),
        (500_000, "UZS", "5000"),
        (500_050, "UZS", "5000.50"),
        (999_999_999_999, "MYR", "9999999999.99"),
    ],
)
def test_an_amount_is_written_exactly(minor: int, currency: str, text: str) -> None:
    assert qr.amount_text(minor, currency) == text
    assert qr.parse_amount(text, currency) == Money(minor, currency)


@pytest.mark.parametrize(
    ("minor", "currency"),
    [
        (0, "MYR"),
        (-1, "MYR"),
        (150, "IDR"),
        (1.0, "MYR"),
        (True, "MYR"),
        ("1", "MYR"),
        (1, "XXX"),
        (10**14, "MYR"),
    ],
)
def test_an_amount_that_cannot_be_written_is_refused(minor: Any, currency: str) -> None:
    with pytest.raises(QrError):
        qr.amount_text(minor, currency)


def test_a_lower_case_checksum_is_read_reported_and_written_in_capitals() -> None:
    good = signed(SHOP + REST)
    low = good[:-4] + good[-4:].lower()
    assert low != good

    assert qr.encode(qr.decode(low).fields) == good
    assert [f.path for f in qr.lint(low) if f.severity is Severity.WARNING] == ["63"]


def test_identifiers_are_compared_without_regard_to_case() -> None:
    text = signed((SHOP + REST).replace("A0000006150001", "a0000006150001"))
    assert qr.decode(text).payees == qr.decode(signed(SHOP + REST)).payees


@pytest.mark.parametrize("guid", ["\u0131d.co.qr\u0131s.www", "ID.CO.QRI\u017f.WWW", "ＩＤ.CO.QRIS.WWW"])
def test_an_identifier_that_only_looks_like_a_known_one_is_not_it(guid: str) -> None:
    body = "000201" + o("51", o("00", guid) + o("02", "ID1")) + "5303360" + "5802ID"
    assert qr.decode(signed(body)).profile is None


CASH = "00020101021238500010A000000727012200069704030108123456780206QRCASH53037045802VN"
REPORTED = [
    ("no payee", signed("000201" + REST), "error", ""),
    ("wrong currency", signed(SHOP + REST.replace("5303458", "5303360")), "error", "53"),
    ("wrong country", signed(SHOP + REST.replace("MY", "ID")), "error", "58"),
    ("country in small letters", signed(SHOP + REST.replace("5802MY", "5802my")), "error", "58"),
    ("no name", signed(SHOP + REST.replace("5909TOKO SATU", "")), "error", "59"),
    ("name too long", signed(SHOP + REST.replace("5909TOKO SATU", "5926" + "N" * 26)), "error", "59"),
    ("control character", signed(SHOP + REST.replace("TOKO SATU", "TOKO\x1bSATU")), "error", "59"),
    ("direction override", signed(SHOP + REST.replace("TOKO SATU", "TOKO\u202eSATU")), "warning", "59"),
    ("space at the end", signed(SHOP + REST.replace("TOKO SATU", "TOKOSATU ")), "info", "59"),
    ("MCC of letters", signed(SHOP + REST.replace("5812", "58AB")), "error", "52"),
    ("initiation unknown", signed(SHOP.replace("010211", "010213") + REST), "error", "01"),
    ("format unknown", signed(SHOP.replace("000201", "000203") + REST), "error", "00"),
    ("DuitNow format 01", signed(SHOP + REST), "info", "00"),
    ("acquirer of letters", signed(SHOP.replace("501664", "ABCDEF") + REST), "error", "26.01"),
    ("account in another tag", signed(SHOP.replace("010211" + "26", "010211" + "30") + REST), "error", "30"),
    ("JomPAY without a reference", signed(SHOP.replace("501664", "898989") + REST), "error", "62.90"),
    ("integrity check", signed(SHOP + REST + "8232" + "a" * 32), "info", "82"),
    ("integrity check of no hash", signed(SHOP + REST + "8204beef"), "warning", "82"),
    ("additional data unreadable", signed(SHOP + REST + "6205" + "0109x"), "error", "62.01"),
    ("bill too long", signed(SHOP + REST + "6230" + "0126" + "b" * 26), "error", "62.01"),
    ("language without a name", signed(SHOP + REST + "6406" + "0002zh"), "error", "64"),
    ("reserved tag", signed(SHOP + REST + "6501x"), "warning", "65"),
    ("fee without an indicator", signed(SHOP + REST + "560210"), "error", "56"),
    ("indicator without a fee", signed(SHOP + REST + "550203"), "error", "57"),
    ("percentage of zero", signed(SHOP + REST + "550203570500.00"), "error", "57"),
    ("percentage with a comma", signed(SHOP + REST + "550203570400,5"), "error", "57"),
    ("fee with a sign", signed(SHOP + REST + "5502025602-1"), "error", "56"),
    ("static with an amount", signed(SHOP + REST + "540210"), "info", "54"),
    ("dynamic without an amount", signed(SHOP.replace("010211", "010212") + REST), "info", "54"),
    ("zero", signed(SHOP + REST + "540500.00"), "warning", "54"),
    ("a scheme unknown", signed(SHOP + "27080004ABCD" + REST), "info", "27"),
    ("identifier too long", signed(SHOP + "2837" + "0033" + "G" * 33 + REST), "error", "28.00"),
    ("percent-encoded", signed(SHOP + REST).replace("TOKO SATU", "TOKO%20SATU"), "info", ""),
    (
        "cash",
        "00020101021238500010A000000727012200069704030108123456780206QRCASH53037045802VN",
        "warning",
        "38.02",
    ),
    ("memo with signs", TO_CARD[:-8] + "62080804a+b!", "warning", "62.08"),
    ("QRIS in tag 51 without NMID digits", "51240014ID.CO.QRIS.WWW0202ID", "error", "51.02"),
]


@pytest.mark.parametrize(
    ("text", "severity", "path"), [row[1:] for row in REPORTED], ids=[r[0] for r in REPORTED]
)
def test_what_is_wrong_or_odd_is_reported_where_it_is(text: str, severity: str, path: str) -> None:
    if text.startswith("51"):
        text = "000201010211" + text + "5204581253033605802ID5904TOKO6007JAKARTA610510110"
    if "6304" not in text[-8:]:
        text = signed(text)
    findings = qr.lint(text)

    assert (severity, path) in [(f.severity, f.path) for f in findings]
    assert all(f.message and f.source for f in findings)
    severities = [f.severity for f in findings]
    assert severities == sorted(severities, key=list(Severity).index), "worst first"


def test_a_good_code_has_nothing_to_report() -> None:
    assert qr.lint(signed((SHOP + REST).replace("000201", "000202"))) == []


@pytest.mark.parametrize(
    ("build", "change", "path"),
    [
        ("duitnow", {"acquirer_id": "60123"}, "26.01"),
        ("duitnow", {"acquirer_id": "898989"}, "62.90"),
        ("duitnow", {"merchant_id": "+60 12\n"}, "26.02"),
        ("duitnow", {"merchant_name": "N" * 26}, "59"),
        ("duitnow", {"merchant_name": "TOKO\x00"}, "59"),
        ("duitnow", {"merchant_name": ""}, "59"),
        ("duitnow", {"mcc": "58"}, "52"),
        ("duitnow", {"amount_minor": 0}, "54"),
        ("duitnow", {"bill": "b" * 26}, "62.01"),
        ("qris", {"merchant_pan": "1234567890123456"}, "26.01"),
        ("qris", {"acquirer": "A000000775"}, "26"),
        ("qris", {"acquirer": "A0000006150001"}, "26.02"),
        ("qris", {"merchant_pan": "9360"}, "26.01"),
        ("qris", {"criteria": "BIG"}, "26.03"),
        ("qris", {"nmid": "ID12"}, "51.02"),
        ("qris", {"amount_minor": 150}, "54"),
        ("qris", {"tip_ask": True, "tip_percent": "05.00"}, "55"),
        ("qris", {"tip_percent": "5%"}, "57"),
        ("vietqr", {"bank_bin": "97040"}, "38.01.00"),
        ("vietqr", {"account": "12 34"}, "38.01.01"),
        ("vietqr", {"account": "1" * 20}, "38.01.01"),
        ("vietqr", {"service": "QRCASH"}, "38.02"),
        ("vietqr", {"service": "QRFREE"}, "38.02"),
        ("vietqr", {"purpose": "cảm ơn"}, "62.08"),
        ("vietqr", {"amount_minor": 10**13}, "54"),
    ],
)
def test_a_builder_refuses_what_no_app_could_pay(build: str, change: dict[str, Any], path: str) -> None:
    good: dict[str, dict[str, Any]] = {
        "duitnow": {"acquirer_id": "501664", "merchant_id": "1234", "merchant_name": "TOKO"},
        "qris": {
            "acquirer": "ID.CO.EXAMPLE.WWW",
            "merchant_pan": "936000140000000001",
            "merchant_name": "TOKO",
            "city": "JAKARTA",
            "postal_code": "10110",
        },
        "vietqr": {"bank_bin": "970416", "account": "257678859"},
    }
    make = getattr(qr, build)
    qr.decode(make(**good[build]))

    with pytest.raises(QrError) as refused:
        make(**good[build] | change)
    assert refused.value.path == path


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"63": "0000"}, "63"),
        ({"1": "x"}, ""),
        ({"\u0661\u0662": "x"}, ""),
        ({"59": ""}, "59"),
        ({"59": "x" * 100}, "59"),
        ({"59": 5}, "59"),
        ({"26": {"01": "no identifier"}}, "26"),
        ({"26": {"00": "G" * 60, "01": "x" * 60}}, "26"),
        ({"26": "ABCD"}, "26"),
        ({"54": "1,5"}, "54"),
        ({"59": "\ud800"}, ""),
        ({"62": {"99": {"00": {"00": {"00": {"00": "deep"}}}}}}, "62.99.00.00"),
        ({f"{t}": "x" * 99 for t in range(65, 72)}, ""),
    ],
)
def test_fields_that_make_no_code_are_refused(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(QrError) as refused:
        qr.encode(fields)
    assert refused.value.path == path


VALUE = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
TAGS = st.sampled_from([f"{n:02d}" for n in (*range(2, 26), *range(55, 63), *range(65, 80))])
ACCOUNT = st.fixed_dictionaries(
    {"00": VALUE},
    optional={"01": VALUE, "02": VALUE, "99": VALUE},
)


@given(
    st.dictionaries(TAGS, VALUE, max_size=6),
    st.dictionaries(st.sampled_from(["26", "38", "40", "51"]), ACCOUNT, max_size=2),
    st.integers(min_value=1, max_value=10**10),
    st.sampled_from(["360", "458", "704", "860", "356"]),
)
def test_what_is_written_is_read_again(
    plain: dict[str, str], accounts: dict[str, Any], minor: int, currency: str
) -> None:
    letters = {"360": "IDR", "458": "MYR", "704": "VND", "860": "UZS", "356": "INR"}[currency]
    minor = minor * 100 if letters == "IDR" else minor
    amount = qr.amount_text(minor, letters)

    try:
        text = qr.encode({**accounts, **plain, "53": currency, "54": amount})
    except QrError:
        return  # a made-up identifier can be a known one, with its payee left out

    code = qr.decode(text)
    assert text[-4:] == crc(text[:-4])
    assert code.money == Money(minor, letters)
    assert all(code.get(tag) == value for tag, value in plain.items())
    assert all(code.get(f"{tag}.00") == account["00"] for tag, account in accounts.items())
    assert qr.encode(code.fields) == text


GARBAGE = (
    st.text(max_size=200) | st.text("0123456789.", max_size=200) | st.text("upi:/?&=@pam%20.", max_size=80)
)


@given(st.sampled_from(["", "0002", "000201", "upi://pay?", "https://app.paynet.uz/qr-online/"]), GARBAGE)
def test_garbage_is_refused_never_crashed_on(start: str, garbage: str) -> None:
    for reader in (qr.decode, qr.read, qr.decode_upi):
        with suppress(QrError):
            reader(start + garbage)
    qr.lint(start + garbage)


@given(
    st.lists(
        st.tuples(st.sampled_from(["00", "26", "38", "51", "54", "57", "62", "80"]), GARBAGE), max_size=4
    )
)
def test_garbage_in_a_well_signed_code_is_refused_or_kept(objects: list[tuple[str, str]]) -> None:
    text = signed("000201" + "".join(o(tag, value[:99]) for tag, value in objects if value))
    with suppress(QrError):
        assert qr.encode(qr.decode(text).fields) == text
    qr.lint(text)


@given(st.integers(0, len(DUITNOW) - 1), st.characters(exclude_categories=["Cs"]))
def test_one_changed_character_is_always_noticed(at: int, character: str) -> None:
    changed = DUITNOW[:at] + character + DUITNOW[at + 1 :]
    if changed.upper() == DUITNOW and at >= len(DUITNOW) - 4:
        return
    if changed != DUITNOW:
        with pytest.raises(QrError):
            qr.decode(changed)


@given(st.integers(0, len(DUITNOW)), st.integers(0, len(DUITNOW)))
def test_a_piece_of_a_code_is_no_code(start: int, end: int) -> None:
    piece = DUITNOW[start:end]
    if piece != DUITNOW:
        with pytest.raises(QrError):
            qr.decode(piece)


@pytest.mark.parametrize("thing", [None, 5, b"000201", ["000201"]])
def test_what_is_not_text_is_refused(thing: Any) -> None:
    for reader in (qr.decode, qr.read, qr.decode_upi):
        with pytest.raises(QrError):
            reader(thing)
    assert qr.lint(thing)[0].severity is Severity.ERROR
