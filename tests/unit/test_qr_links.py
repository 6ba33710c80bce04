"""UPI links as NPCI's document and three acquirers print them, and the traps around them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillgate import qr
from tillgate.domain.money import Money
from tillgate.qr import QrError, Severity

NPCI = (
    "upi://pay?pa=nadeem@npci&pn=nadeem%20chinna&mc=0000&tid=cxnkjcnkjdfdvjndkjfvn&tr=4894398cndhcd23"
    "&tn=Pay%20to%20mystar%20store&am=10&mam=null&cu=INR&url=https://mystar.com/orderid=9298yw89e8973e"
    "87389e78923ue892&mode=00&sign=aagshd4542bdhhvdshsbvqfqttsvsvsbsjn&orgid=00000&mid=1234&msid=3432&mtid=1212"
)
PAYU = (
    "upi://pay?pa=gauravdua1.payu@indus&pn=smsplus&mc=7399&tr=DYQ13845198863&ver=01&mode=15&orgid=000000"
    "&qrMedium=06&cu=INR&purpose=02&pinCode=122002&am=1.00&QRexpire=2021-08-20T17:48:19+05:30"
)
RAZORPAY = (
    "upi://pay?ver=01&mode=15&pa=rzr.qrtestaccoun27230053@icici&pn=TestAccount&tr=RZPIXnO3BgccsO35Qqrv2"
    "&tn=PaymenttoTestAccount&cu=INR&mc=1234&qrMedium=04&am=123.45"
)
LYRA = (
    "upi://pay?ver=01&mode=22&tr=27019964b16b46d5b13795aaecff18ff&pa=LC1111111111.lyra@rbl"
    "&pn=Testmerchant&mc=0000&am=100.00&cu=INR&qrMedium=02"
)


@pytest.mark.parametrize(
    ("text", "vpa", "name", "paise", "reference", "mode"),
    [
        (NPCI, "nadeem@npci", "nadeem chinna", 1000, "4894398cndhcd23", "00"),
        (PAYU, "gauravdua1.payu@indus", "smsplus", 100, "DYQ13845198863", "15"),
        (RAZORPAY, "rzr.qrtestaccoun27230053@icici", "TestAccount", 12345, "RZPIXnO3BgccsO35Qqrv2", "15"),
        (LYRA, "LC1111111111.lyra@rbl", "Testmerchant", 10000, "27019964b16b46d5b13795aaecff18ff", "22"),
    ],
    ids=["NPCI", "PayU", "Razorpay", "Lyra"],
)
def test_a_published_link_is_read_as_its_publisher_says(
    text: str, vpa: str, name: str, paise: int, reference: str, mode: str
) -> None:
    link = qr.read(text)

    assert isinstance(link, qr.UpiLink)
    assert (link.vpa, link.name, link.money) == (vpa, name, Money(paise, "INR"))
    assert (link.reference, link.get("mode")) == (reference, mode)
    assert link.minimum is None
    assert link.text == text
    assert [f for f in qr.lint(text) if f.severity is Severity.ERROR] == []


def test_what_form_decoding_would_spoil_is_kept() -> None:
    link = qr.decode_upi(PAYU)
    assert link.get("QRexpire") == "2021-08-20T17:48:19+05:30"
    assert [name for name, _ in link.params][:4] == ["pa", "pn", "mc", "tr"]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("upi://mandate?pa=a@b&pn=x", ""),
        ("upi://pay", "pa"),
        ("upi://pay?pn=x", "pa"),
        ("upi://pay?pa=nobody&pn=x", "pa"),
        ("upi://pay?pa=a@b@c&pn=x", "pa"),
        ("upi://pay?pa=a%00@b&pn=x", "pa"),
        ("upi://pay?pa=a@b&pa=thief@b", "pa"),
        ("upi://pay?pa=a@b&PA=thief@b", "PA"),
        ("upi://pay?pa=a@b&%70a=thief@b", "pa"),
        ("upi://pay?pa=a@b&am=10&am=1", "am"),
        ("upi://pay?pa=a@b&cu=USD", "cu"),
        ("upi://pay?pa=a@b&am=10.005", "am"),
        ("upi://pay?pa=a@b&am=-1", "am"),
        ("upi://pay?pa=a@b&am=1e3", "am"),
        ("upi://pay?pa=a@b&am=1,000", "am"),
        ("upi://pay?pa=a@b&am=%D9%A1", "am"),
        ("upi://pay?pa=a@b&am=0.00", "am"),
        ("upi://pay?pa=a@b&am=" + "9" * 20, "am"),
        ("upi://pay?pa=a@b&mam=x", "mam"),
        ("upi://pay?pa=a@b&pn=%ff", "pn"),
        ("upi://pay?pa=a@b&pn=Shop #4&am=10", ""),
        ("upi://pay?pa=a@b\r\n&am=10", ""),
        ("upi://pay?pa=a@b&" + "&".join(f"x{n}=1" for n in range(70)), ""),
        ("upi://pay?pa=a@b&tn=" + "x" * 2048, ""),
    ],
)
def test_a_link_that_could_be_read_two_ways_is_refused(text: str, path: str) -> None:
    with pytest.raises(QrError) as refused:
        qr.decode_upi(text)
    assert refused.value.path == path
    assert [(f.severity, f.path) for f in qr.lint(text)] == [(Severity.ERROR, path)]


def test_an_open_amount_and_a_minimum() -> None:
    assert qr.decode_upi("UPI://PAY?pa=a@b&am=").money is None
    assert qr.decode_upi("upi://pay?pa=a@b&am=10&mam=5.5").minimum == Money(550, "INR")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"vpa": "shop@bank", "name": "Shop"}, "upi://pay?pa=shop@bank&pn=Shop&cu=INR"),
        (
            {
                "vpa": "shop@bank",
                "name": "Tea & Co + Söhne",
                "mcc": "5812",
                "amount_minor": 1050,
                "reference": "ORD-1",
                "note": "2 teas",
                "lock_amount": True,
                "mode": "15",
            },
            (
                "upi://pay?pa=shop@bank&pn=Tea%20%26%20Co%20%2B%20S%C3%B6hne&mc=5812&tr=ORD-1&tn=2%20teas"
                "&am=10.50&mam=10.50&cu=INR&mode=15"
            ),
        ),
    ],
)
def test_a_link_is_written_in_the_documents_order(arguments: dict[str, Any], text: str) -> None:
    assert qr.upi_link(**arguments) == text
    assert qr.lint(text) == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"vpa": "nobody"}, "pa"),
        ({"vpa": "a@b&am=1"}, "pa"),
        ({"name": ""}, "pn"),
        ({"name": "\ud800"}, ""),
        ({"mcc": "58"}, "mc"),
        ({"mcc": "5812", "reference": None}, "tr"),
        ({"reference": "r" * 36}, "tr"),
        ({"note": "n" * 51}, "tn"),
        ({"amount_minor": 0}, "am"),
        ({"amount_minor": 1.5}, "am"),
        ({"amount_minor": 10**13}, "am"),
        ({"amount_minor": None, "lock_amount": True}, "am"),
    ],
)
def test_a_link_nobody_could_pay_is_not_written(change: dict[str, Any], path: str) -> None:
    good: dict[str, Any] = {"vpa": "shop@bank", "name": "Shop", "amount_minor": 100, "reference": "ORD-1"}
    qr.upi_link(**good)

    with pytest.raises(QrError) as refused:
        qr.upi_link(**good | change)
    assert refused.value.path == path


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.integers(min_value=1, max_value=10**11),
)
def test_what_a_link_says_is_read_again(text: str, paise: int) -> None:
    link = qr.decode_upi(qr.upi_link(vpa="shop@bank", name=text, amount_minor=paise, note=text))
    assert (link.name, link.note, link.amount_minor) == (text, text, paise)


@pytest.mark.parametrize(
    ("text", "severity", "path"),
    [
        ("upi://pay?pa=a@b", "error", "pn"),
        ("upi://pay?pa=a@b&pn=x&mc=5812", "error", "tr"),
        ("upi://pay?pa=a@b&pn=x&tn=" + "n" * 51, "warning", "tn"),
        ("upi://pay?pa=a@b&pn=My Shop", "warning", ""),
        ("upi://pay?pa=a@b&pn=x%E2%80%AEy", "warning", "pn"),
        (NPCI, "info", "mam"),
        (NPCI, "info", "sign"),
    ],
)
def test_what_is_odd_about_a_link_is_reported(text: str, severity: str, path: str) -> None:
    assert (severity, path) in [(f.severity, f.path) for f in qr.lint(text)]


@pytest.mark.parametrize(
    "text",
    [
        "https://checkout.paycom.uz/bT01ODdmNzJjNzJjYWMwZDE2MmMyMmFl",
        "HTTP://example.com",
        "https://app.paynet.uz/qr-online/",
        "https://app.paynet.uz/qr-online/%ff",
        "https://app.paynet.uz.example.com/qr-online/000201",
        "   ",
    ],
)
def test_other_links_are_not_payment_codes(text: str) -> None:
    with pytest.raises(QrError):
        qr.read(text)
