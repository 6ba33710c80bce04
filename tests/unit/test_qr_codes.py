"""Codes of single kinds: UzQR, schemes we do not know, the sandbox's own; and what never gets logged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.qr_codes import signed
from tillgate import qr
from tillgate.domain.money import Money
from tillgate.qr import QrError

TO_CARD = "00020101021138600010A00000072701300006970403011697040311012345670208QRIBFTTC53037045802VN63044F52"
DUITNOW = (
    "00020201021126410014A000000615000101065016640209123456789520499995303458540510.005802MY5909QRCSDNBHD"
    "6005BANGI6304343F"
)


def test_uzqr_is_read_as_codes_in_the_field_are_made() -> None:
    body = (
        "00020101021140440012qr-online.uz0118aB3dE6gH9jK2mN5pQ80202115204531153038605802UZ5909O'BOZOR'1"
        "6008Tashkent610610002164270002uz0105BOZOR0208Toshkent80290012qr-online.uz0309710000000"
    )
    text = signed(body)

    code = qr.decode(text)

    assert (code.profile, code.currency, code.get("64.02")) == ("uzqr", "UZS", "Toshkent")
    assert [(p.guid, p.account) for p in code.payees] == [("QR-ONLINE.UZ", "aB3dE6gH9jK2mN5pQ8")]
    assert code.get("80.03") == "710000000"
    assert qr.lint(text) == []
    wrapped = "https://app.paynet.uz/qr-online/" + text.replace("'", "%27")
    assert qr.read(wrapped + "\r\n") == code


def test_a_swapped_sticker_shows_when_the_payees_are_compared() -> None:
    ours = qr.vietqr(bank_bin="970416", account="257678859")
    again = qr.vietqr(bank_bin="970416", account="257678859", amount_minor=5000)
    other = qr.vietqr(bank_bin="970416", account="257678858")

    assert qr.decode(ours).payees == qr.decode(again).payees
    assert qr.decode(ours).payees != qr.decode(other).payees


def test_unknown_templates_and_tags_are_kept_as_they_are() -> None:
    text = signed("00020142190008XX.OTHER0103a:b5204000053039995802XX5901A6001B7003abc99020?")

    code = qr.decode(text)

    assert code.profile is None
    assert code.payees[0].fields == (("00", "XX.OTHER"), ("01", "a:b"))
    assert (code.get("70"), code.get("99"), code.currency, code.money) == ("abc", "0?", "999", None)
    assert qr.encode(code.fields) == text


def test_a_sandbox_code_is_read_by_scanners_and_payable_by_nobody() -> None:
    text = qr.sandbox_qris("pay_01JDXYZ", 15_000_00, "Warung Bu Sri", "Bandung")

    assert text == signed(
        "00020101021226570024INVALID.TILLGATE.SANDBOX0118" + "0" * 18 + "0303UMI"
        "52040000530336054051500058"
        "02ID5918TEST Warung Bu Sri6007Bandung610510000"
        "80430024INVALID.TILLGATE.SANDBOX0111pay_01JDXYZ"
    )
    code = qr.decode(text)
    assert (code.sandbox, code.profile, code.dynamic) == (True, "sandbox", True)
    assert code.money == Money(1_500_000, "IDR")
    assert qr.sandbox_ref(code) == "pay_01JDXYZ"
    assert code.get("51") is None, "no national merchant id"
    assert "9360" not in text
    assert [f.severity for f in qr.lint(text)] == [qr.Severity.INFO]
    assert qr.sandbox_ref(qr.decode(DUITNOW)) is None


@pytest.mark.parametrize(
    ("name", "city", "shown"),
    [
        ("", "", ("TEST", "JAKARTA")),
        ("A" * 60, "B" * 60, ("TEST " + "A" * 20, "B" * 15)),
        ("a\nb\u202ec\ud800", "\x00", ("TEST a b c", "JAKARTA")),
        ("Кофе 咖啡", "Toshkent", ("TEST Кофе 咖啡", "Toshkent")),
    ],
)
def test_any_merchant_gets_a_sandbox_code(name: str, city: str, shown: tuple[str, str]) -> None:
    code = qr.decode(qr.sandbox_qris("p" * 67, 100, name, city))
    assert (code.merchant_name, code.city) == shown
    assert qr.sandbox_ref(code) == "p" * 67


@pytest.mark.parametrize(
    ("ref", "minor"),
    [("", 100), ("p" * 68, 100), ("a b", 100), ("é", 100), ("ok", 0), ("ok", -100), ("ok", 150)],
)
def test_a_sandbox_code_is_refused_for_what_it_cannot_carry(ref: str, minor: int) -> None:
    with pytest.raises(QrError):
        qr.sandbox_qris(ref, minor, "Shop", "City")


def test_account_numbers_stay_out_of_what_gets_logged() -> None:
    code = qr.decode(TO_CARD)
    link = qr.decode_upi("upi://pay?pa=someone@bank&pn=Someone")

    for shown in (repr(code), repr(code.payees), repr(code.objects), repr(link)):
        assert "9704031101234567" not in shown
        assert "someone" not in shown.lower()


def test_reading_codes_does_not_load_the_drawing_library() -> None:
    source = Path(qr.__file__).parents[2]
    program = (
        f"import sys; sys.path.insert(0, {str(source)!r}); import tillgate.qr as q;"
        f"q.decode({DUITNOW!r}); print(sorted({{'segno', 'rich', 'typer'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
