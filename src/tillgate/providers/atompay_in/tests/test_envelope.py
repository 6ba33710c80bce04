"""The envelope and the signatures: published examples byte for byte, and every way to spoil a message."""

from __future__ import annotations

import hashlib
import time

import pytest

from tillgate.providers.atompay_in import envelope, signing, wire
from tillgate.providers.atompay_in.envelope import Key, Sealed
from tillgate.providers.atompay_in.simulator_crypto import decrypt, encrypt

SECRET = "75AEF0FA1B94B3C10D4F5B268F757F11"
OTHER = "A4476C2062FFA58980DC8F79EB6A799E"
KEY = Key(SECRET, SECRET)


@pytest.mark.parametrize(
    ("key", "parts", "signature"),
    [
        (
            "KEY123657234",
            signing.refund_request("317157", "Test@123", "6545e02c9d835", "5", "INR"),
            (
                "a4df464724d1154cf2d33baf9b08cb6740637040e46d29034de472445b0df68a"
                "f31de3c7089c0355bf0b5c887d568cd87b43a7b875ded9de8c9c946d4e57d40d"
            ),
        ),
        (
            "KEY1234567234",
            signing.sale_request("8952", "Test@123", "1234567890", "SL", "10.00", "INR", "1"),
            (
                "7c643bbd9418c23e972f5468377821d9f0486601e1749930816c409fddbc7beb"
                "5d2943d832b6382d3d4a8bd7755e914922fb85aa8c234210bf2993566686a46a"
            ),
        ),
    ],
    ids=["refund request", "sale request"],
)
def test_published_signatures_come_out_byte_for_byte(
    key: str, parts: tuple[str, ...], signature: str
) -> None:
    assert signing.sign(key, *parts) == signature
    assert signing.genuine(signature, [key], *parts)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (signing.refund_request("1", "pw", "T", "500.00", "INR"), "1pwT500.00INRREFUNDINIT"),
        (signing.requery_v1("1", "pw", "T", "10.00", "INR"), "1pwT10.00INRTXNVERIFICATION"),
        (signing.requery_v2("1", "T", "10.00", "INR"), "1T10.00INR"),
        (
            signing.payment_response("1", "11", "T", "4.54", "OTS0000", "NB", "B7"),
            "111T4.54OTS0000NBB7",
        ),
        (signing.paynetz_request("197", "pw", "t", "NSE", "7", "50", "INR"), "197pwtNSE750INR"),
        (signing.paynetz_response("M", "m", "Ok", "NSE", "NB", "50.00", "b"), "MmOkNSENB50.00b"),
    ],
)
def test_the_signed_text_of_each_message_kind(parts: tuple[str, ...], text: str) -> None:
    assert "".join(parts) == text


@pytest.mark.parametrize("forged", [None, "", "0" * 128, 5, ["x"], "é" * 128, "a4df"])
def test_what_is_no_signature_is_never_genuine(forged: object) -> None:
    assert not signing.genuine(forged, ["key", "old key"], "a", "b")


def test_an_old_key_counts_during_a_rotation_and_capitals_do_not_matter() -> None:
    made = signing.sign("old", "a", "b")
    assert signing.genuine(made.upper(), ["new", "old"], "a", "b")
    assert not signing.genuine(made, ["new"], "a", "b")


def test_the_key_is_the_printed_text_and_not_what_its_hex_means() -> None:
    plain = b'{"payInstrument":{}}'
    expected = hashlib.pbkdf2_hmac("sha512", SECRET.encode("ascii"), SECRET.encode("ascii"), 65_536, 32)
    assert envelope._derived(SECRET, SECRET) == expected
    assert decrypt(envelope.seal(plain, KEY), SECRET) == {"payInstrument": {}}


def test_equal_beginnings_give_equal_blocks_in_capitals() -> None:
    one, two = envelope.seal(b'{"payInstrument":{"a":1}}', KEY), envelope.seal(b'{"payInstrument":[]}', KEY)
    assert one[:32] == two[:32]
    assert one == one.upper()


def test_both_cases_and_a_previous_key_are_read() -> None:
    sealed = encrypt({"é": [1, 2]}, OTHER)
    message, key = envelope.unseal(sealed.lower(), [KEY, Key(OTHER, OTHER, "previous")])
    assert message == {"é": [1, 2]}
    assert key.label == "previous"


GOOD = encrypt({"payInstrument": {"payDetails": {"amount": 1.0}}}, SECRET)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        "zz" * 16,
        GOOD[:-2],
        GOOD[:-32],
        GOOD + "00",
        GOOD[:32] + "  " + GOOD[34:],
        GOOD[:32] + "é" + GOOD[33:],
        "00" * 16,
        encrypt({"payInstrument": {}}, OTHER),
        GOOD[:-2] + ("00" if GOOD[-2:] != "00" else "01"),
        "AB" * 5_000_000,
        encrypt("text", SECRET),
        encrypt(5, SECRET),
    ],
)
def test_anything_else_is_refused_in_one_and_the_same_way(text: str) -> None:
    with pytest.raises(Sealed) as refused:
        envelope.unseal(text, [KEY])
    assert str(refused.value) == ""


@pytest.mark.parametrize(
    "plain",
    [
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b"\xff\xfe{}",
        b'{"a":1',
        b"[" * 9_000 + b"]" * 9_000,
        b'{"a":' + b"9" * 5_000 + b"}",
    ],
)
def test_json_that_two_readers_could_understand_differently_is_refused(plain: bytes) -> None:
    with pytest.raises(Sealed):
        envelope.unseal(envelope.seal(plain, KEY), [KEY])


def test_every_flipped_bit_is_noticed_or_changes_what_is_signed() -> None:
    plain = b'{"payInstrument":{"payDetails":{"amount":100.00,"totalAmount":100.00}}}'
    sealed = bytes.fromhex(envelope.seal(plain, KEY))
    for position in range(len(sealed)):
        spoiled = bytearray(sealed)
        spoiled[position] ^= 1
        try:
            message, _ = envelope.unseal(bytes(spoiled).hex(), [KEY])
        except Sealed:
            continue
        assert message != wire.loads(plain)


def test_a_flood_of_garbage_derives_no_key() -> None:
    envelope._derived.cache_clear()
    flood = ["zz" * 400, "0" * 801, "Ü" * 800, "00" * 100_000, ""]
    begun = time.process_time()
    for n in range(2_000):
        with pytest.raises(Sealed):
            envelope.unseal(flood[n % 5], [Key(f"key-{n}", "salt")])
    assert envelope._derived.cache_info().misses == 0
    assert time.process_time() - begun < 2


def test_keys_are_derived_once_and_a_bounded_number_of_them_kept() -> None:
    envelope._derived.cache_clear()
    for _ in range(50):
        envelope.unseal(GOOD, [KEY])
    assert envelope._derived.cache_info().misses == 1
    assert envelope._derived.cache_info().maxsize == 64


def test_a_key_does_not_show_itself() -> None:
    assert SECRET not in repr(KEY)
