"""Payment codes against what schemes and acquirers published. Every expectation is written by hand."""

from __future__ import annotations

import pytest

from support.qr_codes import crc, signed
from tillgate import qr
from tillgate.domain.money import Money
from tillgate.qr import QrError

EMVCO = (
    "00020101021229300012D156000000000510A93FO3230Q31280012D15600000001030812345678520441115802CN5914"
    "BEST TRANSPORT"
    "6007BEIJING64200002ZH0104最佳运输0202北京540523.7253031565502016233030412340603***0708A60086670902ME"
    "91320016A0112233449988770708123456786304A13A"
)
PAYNET_1 = (
    "00020201021126410014A000000615000101065016640209123456789520499995303458540510.005802MY5909QRCSD"
    "NBHD6005BANGI"
    "6304343F"
)
PAYNET_2 = (
    "00020201021126410014A000000615000101065016640209123456789520400005303458540510.005802MY5909AUSER"
    "NAME6005BANGI"
    "63043A23"
)
PAYNET_3 = (
    "00020201021126410014A000000615000101065016640209123456789520499995303458540510.005802MY5909QRCSD"
    "NBHD6005BANGI"
    "8264f879ac6266d8d6da081fc1c17160021119747b190615c21076b3fc0fce56c6eb6304B623"
)
JOMPAY = (
    "00020201021126360014A00000061500010106898989020412345204111153034585802MY5903TNB6002KL6105592006"
    "21790130124007"
    "552406823231d4db4506dc9852b1c21c74be148b8363045DFB"
)
CONTOH = (
    "00020101021126680016ID.CO.CONTOH.WWW01189360082901234568900215MIDCONTOHACQ1230303UKE520411115303"
    "360550203"
    "570500.035802ID5913NamaMerchant16009NamaKota1610925441234162080704210163049140"
)
EXAMPLE2 = (
    "00020101021126670018ID.CO.EXAMPLE2.WWW01159360056701234560215MIDCONTOH1234560303UMI5204123453033"
    "605502015802ID"
    "5914NamaMerchantC76009NamaKota16110123456789062070703K1963040BE8"
)
CHATIME = (
    "00020101021226700017COM.TELKOMSEL.WWW0119936009110024567000002159203310116150010303UME5204111158"
    "02ID5907Chatime"
    "6007Jakarta61051219062180114BEJO12345678905303360550202560320054031006304A1DE"
)
NAPAS_CARD = (
    "00020101021138600010A00000072701300006970403011697040311012345670208QRIBFTTC53037045802VN63044F52"
)
NAPAS_ACCOUNT = (
    "00020101021238570010A00000072701270006970403011300110123456780208QRIBFTTA530370454061800005802VN"
    "62340107NPS68690819thanh toan don hang63042E2E"
)
NAPAS_CARD_DYNAMIC = (
    "00020101021238600010A00000072701300006970403011697040311012345670208QRIBFTTC530370454061800005802VN"
    "62340107NPS68690819thanh toan don hang6304A203"
)
NAPAS_CASH = (
    "00020101021238500010A000000727012200069704030108123456780206QRCASH5204601153037045802VN5915NGUYE"
    "N HUU HUAN"
    "6005HANOI6237052120190109155714228384707080000111163041009"
)
NAPAS_MALFORMED = (
    "00020101021138570010A00000072701270006970403011200110123456780208QRIBFTTA53037045802VN6304F4E5"
)
NAPAS_MENDED = (
    "00020101021138570010A00000072701270006970403011300110123456780208QRIBFTTA53037045802VN63049E6F"
)
ACB_STATIC = "00020101021138530010A0000007270123000697041601092576788590208QRIBFTTA53037045802VN6304AE9F"
ACB_1000 = (
    "00020101021238530010A0000007270123000697041601092576788590208QRIBFTTA5303704540410005802VN621508"
    "11Chuyen tien"
    "6304BBB8"
)
ACB_10000 = (
    "00020101021238530010A0000007270123000697041601092576788590208QRIBFTTA53037045405100005802VN62150"
    "811Chuyen tien"
    "630453E6"
)
PAYU = (
    "000201010211021644038470007469080415522024070007469061661000307000746960825HDFC00006225020001855"
    "322626470010"
    "A0000005240129yellowqr.payutest.94@hdfcbank27370010A0000005240119STQ9y45z1cv3z545092520456915303"
    "3565802IN"
    "5910vendorName6010vendorCity610650017262350519STQ9y45z1cv3z545092070870007469630417EF"
)
RAZORPAY = (
    "000201010212021643926300000000850415540461000000008061661005900000000890827YESB0CMSNOC2223330048"
    "82700126430010"
    "A0000005240117razorpaybqr@icici02041.1027350010A0000005240117RZPGT8ildsFTgS5Sp520475315303356540"
    "41.105802IN"
    "5906zxcbmn6005Delhi610611008562300514GT8ildsFTgS5Sp070838R004506304B6A9"
)

CODES = {
    "EMVCo annex": EMVCO,
    "PayNet 1": PAYNET_1,
    "PayNet 2": PAYNET_2,
    "PayNet 3": PAYNET_3,
    "JomPAY": JOMPAY,
    "CONTOH": CONTOH,
    "EXAMPLE2": EXAMPLE2,
    "Chatime": CHATIME,
    "NAPAS card": NAPAS_CARD,
    "NAPAS account": NAPAS_ACCOUNT,
    "NAPAS card 2": NAPAS_CARD_DYNAMIC,
    "NAPAS cash": NAPAS_CASH,
    "NAPAS mended": NAPAS_MENDED,
    "ACB static": ACB_STATIC,
    "ACB 1000": ACB_1000,
    "ACB 10000": ACB_10000,
    "PayU": PAYU,
    "Razorpay": RAZORPAY,
}

# A payee is tag:scheme:acquirer:account:service.
SAYS = """
EMVCo annex   | -        | dynamic | -      | 156 | BEST TRANSPORT  | 29:::: 31::::
PayNet 1      | duitnow  | static  | 1000   | MYR | QRCSDNBHD       | 26:duitnow:501664:123456789:
PayNet 2      | duitnow  | static  | 1000   | MYR | AUSERNAME       | 26:duitnow:501664:123456789:
PayNet 3      | duitnow  | static  | 1000   | MYR | QRCSDNBHD       | 26:duitnow:501664:123456789:
JomPAY        | duitnow  | static  | -      | MYR | TNB             | 26:duitnow:898989:1234:
CONTOH        | qris     | static  | -      | IDR | NamaMerchant1   | 26:qris::936008290123456890:
EXAMPLE2      | qris     | static  | -      | IDR | NamaMerchantC7  | 26:qris::936005670123456:
Chatime       | qris     | dynamic | 10000  | IDR | Chatime         | 26:qris::9360091100245670000:
NAPAS card    | vietqr   | static  | -      | VND | -          | 38:vietqr:970403:9704031101234567:QRIBFTTC
NAPAS account | vietqr   | dynamic | 180000 | VND | -               | 38:vietqr:970403:0011012345678:QRIBFTTA
NAPAS card 2  | vietqr   | dynamic | 180000 | VND | -          | 38:vietqr:970403:9704031101234567:QRIBFTTC
NAPAS cash    | vietqr   | dynamic | -      | VND | NGUYEN HUU HUAN | 38:vietqr:970403:12345678:QRCASH
NAPAS mended  | vietqr   | static  | -      | VND | -               | 38:vietqr:970403:0011012345678:QRIBFTTA
ACB static    | vietqr   | static  | -      | VND | -               | 38:vietqr:970416:257678859:QRIBFTTA
ACB 1000      | vietqr   | dynamic | 1000   | VND | -               | 38:vietqr:970416:257678859:QRIBFTTA
ACB 10000     | vietqr   | dynamic | 10000  | VND | -               | 38:vietqr:970416:257678859:QRIBFTTA
PayU          | bharatqr | static  | -      | INR | vendorName      | 02:visa::4403847000746908: \
    04:mastercard::522024070007469: 06:rupay::6100030700074696: 08:ifsc::HDFC000062250200018553226: \
    26:bharatqr::yellowqr.payutest.94@hdfcbank: 27:bharatqr:::
Razorpay      | bharatqr | dynamic | 110    | INR | zxcbmn          | 02:visa::4392630000000085: \
    04:mastercard::540461000000008: 06:rupay::6100590000000089: 08:ifsc::YESB0CMSNOC2223330048827001: \
    26:bharatqr::razorpaybqr@icici: 27:bharatqr:::
"""


def says() -> list[list[str]]:
    return [
        [cell.strip() for cell in line.split("|")] for line in SAYS.replace("\\\n", "").strip().splitlines()
    ]


@pytest.mark.parametrize(("text", "check"), [("", "FFFF"), ("A", "B915"), ("123456789", "29B1")])
def test_the_checksum_is_crc16_ccitt_false(text: str, check: str) -> None:
    assert qr.crc16(text) == check == crc(text)


@pytest.mark.parametrize(
    ("name", "profile", "kind", "minor", "currency", "merchant", "payees"),
    says(),
    ids=[row[0] for row in says()],
)
def test_a_published_code_is_read_as_its_publisher_says(
    name: str, profile: str, kind: str, minor: str, currency: str, merchant: str, payees: str
) -> None:
    text = CODES[name]

    code = qr.decode(text)

    assert (code.profile or "-") == profile
    assert code.dynamic is (kind == "dynamic")
    assert str(code.amount_minor or "-") == minor
    assert code.currency == currency
    assert (code.merchant_name or "-") == merchant
    read = [":".join((p.tag, p.scheme, p.acquirer, p.account, p.service)) for p in code.payees]
    assert read == payees.split()
    assert code.crc == text[-4:]
    assert not code.sandbox
    assert qr.encode(code.fields) == text, "written again letter by letter"
    assert [f for f in qr.lint(text) if f.severity is qr.Severity.ERROR] == []


def test_no_published_code_is_left_out() -> None:
    assert [row[0] for row in says()] == list(CODES)


def test_every_field_of_the_emvco_example_is_found() -> None:
    code = qr.decode(EMVCO)

    assert {
        path: code.get(path) for path in ("00", "29.00", "29.05", "31.03", "54", "55", "62.03", "62.09")
    } == {
        "00": "01",
        "29.00": "D15600000000",
        "29.05": "A93FO3230Q",
        "31.03": "12345678",
        "54": "23.72",
        "55": "01",
        "62.03": "1234",
        "62.09": "ME",
    }
    assert (code.get("64.01"), code.get("64.02")) == ("最佳运输", "北京")
    assert code.get("91.07") == "12345678"
    assert code.get("59.01") is None
    assert code.get("99") is None


def test_the_example_that_napas_printed_wrongly_pays_nobody() -> None:
    """Its account says 12 digits and has 13: read carelessly, it pays another person's account."""
    with pytest.raises(QrError, match="left over") as refused:
        qr.decode(NAPAS_MALFORMED)

    assert refused.value.path == "38.01"
    assert qr.decode(NAPAS_MENDED).payees[0].account == "0011012345678"


BUILT = [
    (qr.vietqr, {"bank_bin": "970403", "account": "9704031101234567", "service": "QRIBFTTC"}, NAPAS_CARD),
    (
        qr.vietqr,
        {
            "bank_bin": "970403",
            "account": "0011012345678",
            "amount_minor": 180_000,
            "bill": "NPS6869",
            "purpose": "thanh toan don hang",
        },
        NAPAS_ACCOUNT,
    ),
    (
        qr.vietqr,
        {
            "bank_bin": "970403",
            "account": "9704031101234567",
            "service": "QRIBFTTC",
            "amount_minor": 180_000,
            "bill": "NPS6869",
            "purpose": "thanh toan don hang",
        },
        NAPAS_CARD_DYNAMIC,
    ),
    (qr.vietqr, {"bank_bin": "970403", "account": "0011012345678"}, NAPAS_MENDED),
    (qr.vietqr, {"bank_bin": "970416", "account": "257678859"}, ACB_STATIC),
    (
        qr.vietqr,
        {"bank_bin": "970416", "account": "257678859", "amount_minor": 10_000, "purpose": "Chuyen tien"},
        ACB_10000,
    ),
    (
        qr.duitnow,
        {
            "acquirer_id": "501664",
            "merchant_id": "123456789",
            "merchant_name": "QRCSDNBHD",
            "city": "BANGI",
            "mcc": "9999",
            "amount_minor": 1000,
        },
        PAYNET_1,
    ),
    (
        qr.duitnow,
        {
            "acquirer_id": "501664",
            "merchant_id": "123456789",
            "merchant_name": "AUSERNAME",
            "city": "BANGI",
            "amount_minor": 1000,
        },
        PAYNET_2,
    ),
    (
        qr.qris,
        {
            "acquirer": "ID.CO.CONTOH.WWW",
            "merchant_pan": "936008290123456890",
            "merchant_id": "MIDCONTOHACQ123",
            "criteria": "UKE",
            "mcc": "1111",
            "tip_percent": "00.03",
            "merchant_name": "NamaMerchant1",
            "city": "NamaKota1",
            "postal_code": "254412341",
            "terminal": "2101",
        },
        CONTOH,
    ),
    (
        qr.qris,
        {
            "acquirer": "ID.CO.EXAMPLE2.WWW",
            "merchant_pan": "936005670123456",
            "merchant_id": "MIDCONTOH123456",
            "mcc": "1234",
            "tip_ask": True,
            "merchant_name": "NamaMerchantC7",
            "city": "NamaKota1",
            "postal_code": "1234567890",
            "terminal": "K19",
        },
        EXAMPLE2,
    ),
]


@pytest.mark.parametrize(("build", "arguments", "text"), BUILT, ids=[text[-4:] for *_, text in BUILT])
def test_a_builder_writes_the_published_code(build: object, arguments: dict[str, object], text: str) -> None:
    assert build(**arguments) == text  # type: ignore[operator]


def test_a_qris_code_for_an_order_carries_everything_that_was_given() -> None:
    text = qr.qris(
        acquirer="ID.CO.EXAMPLE.WWW",
        merchant_pan="936000140000000001",
        merchant_name="WARUNG CONTOH",
        city="JAKARTA",
        postal_code="10110",
        nmid="ID1020000000001",
        mcc="5812",
        amount_minor=15_000_00,
        tip_fixed_minor=500_00,
        bill="INV-1",
        reference="ORD-1",
        terminal="A01",
    )

    assert text == signed(
        "000201010212"
        "26500017ID.CO.EXAMPLE.WWW01189360001400000000010303UMI"
        "51440014ID.CO.QRIS.WWW0215ID10200000000010303UMI"
        "5204581253033605405150005502025603500"
        "5802ID5913WARUNG CONTOH6007JAKARTA610510110"
        "62250105INV-10505ORD-10703A01"
    )
    code = qr.decode(text)
    assert code.money == Money(1_500_000, "IDR")
    assert [(p.tag, p.account) for p in code.payees] == [
        ("26", "936000140000000001"),
        ("51", "ID1020000000001"),
    ]
