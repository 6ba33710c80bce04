"""The wire, with no socket: framing, strictness, signatures, freshness, both roles and both dialects."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tillgate.providers.mobypay import messages, money, signing, strictjson
from tillgate.providers.mobypay.errors import BadAmount, LocalProtocolError, Reason, RemoteProtocolError
from tillgate.providers.mobypay.frames import LineReader
from tillgate.providers.mobypay.protocol import NEED_DATA, Key, Link, Role, SignedButRefused
from tillgate.providers.mobypay.replay import MemoryNonces
from tillgate.providers.mobypay.signing import Form, Secret
from tillgate.providers.mobypay.tests import oracle

NOW = 1_757_492_341_555


def key(secret: str = oracle.SECRET, name: str = "POS001") -> Key:
    return Key(name=name, secret=Secret(secret.encode()))


def kiosk_link(*keys: Key, nonces: MemoryNonces | None = None) -> Link:
    return Link(
        Role.KIOSK, list(keys) or [key()], nonces if nonces is not None else MemoryNonces(), sender="KIOSK001"
    )


def hear(link: Link, data: bytes, now: int = NOW) -> list:
    """Everything the link says about these bytes: messages, and reasons for what it refused."""
    link.receive_data(data)
    heard = []
    while True:
        try:
            event = link.next_event(now)
        except RemoteProtocolError as error:
            heard.append(error.reason)
            if error.fatal:
                return heard
            continue
        if event is NEED_DATA:
            return heard
        heard.append(event.message)


# --- the captured frames ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(oracle.CAPTURED["frames"])))
@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\r\n\n"])
def test_frames_captured_from_real_hardware_verify(number: int, ending: str) -> None:
    frame = oracle.CAPTURED["frames"][number]
    line = frame["line"]
    role = Role.KIOSK if frame["from"] == "pos" else Role.TERMINAL
    stamp = int(json.loads(line)["payload"]["timestamp"])
    link = Link(role, [key(oracle.CAPTURED["secret"])], MemoryNonces())

    (message,) = hear(link, (line + ending).encode(), stamp)

    assert message.txn_id == json.loads(line)["payload"]["txn_id"]


def test_the_captured_request_is_read_exactly() -> None:
    link = Link(Role.TERMINAL, [key(oracle.CAPTURED["secret"])], MemoryNonces())
    (message,) = hear(link, oracle.CAPTURED["frames"][0]["line"].encode())
    assert message == messages.TransactionRequest(
        txn_id="TXN1757492341554", amount_sen=1000, payment_mode=messages.PaymentMode.CARD
    )


def test_the_captured_plans_are_kept_as_sent() -> None:
    link = kiosk_link(key(oracle.CAPTURED["secret"]))
    (message,) = hear(link, oracle.CAPTURED["frames"][2]["line"].encode(), 1757492763490)
    assert message.status == "ipp_plans"
    assert (message.amount, message.amount_sen) == ("100.0", 10_000)
    assert message.plans == (
        '[{"planId":"pay-in-full","frequency":"","totalInstallments":0,"installmentDetails":[]}]'
    )


@pytest.mark.parametrize("secret", ["POS-KIOSK-SECRET-KEY-2025", "", "x"])
def test_a_captured_frame_does_not_verify_with_another_secret(secret: str) -> None:
    frame = oracle.CAPTURED["frames"][1]["line"].encode()
    assert hear(kiosk_link(key(secret)), frame, 1757482354771) == [Reason.BAD_SIGNATURE]


# --- framing ---------------------------------------------------------------------------------------------


def frames_of_every_kind() -> bytes:
    return b"".join(
        oracle.line(payload)
        for payload in (
            oracle.fresh(NOW, type="ack", txn_id="T1", status="processing", pos_id="POS001"),
            oracle.fresh(
                NOW, type="transaction_result", txn_id="T1", status="failed", error_message="卡 é ✓"
            ),
            oracle.fresh(NOW, type="error", txn_id="T1", message="no paper"),
        )
    )


def test_frames_split_at_every_byte_and_coalesced_are_all_heard() -> None:
    data = frames_of_every_kind()
    for cut in range(len(data) + 1):
        link = kiosk_link()
        heard = hear(link, data[:cut]) + hear(link, data[cut:])
        assert [type(message).__name__ for message in heard] == [
            "Ack",
            "TransactionResult",
            "TerminalError",
        ], cut


def test_frames_byte_by_byte() -> None:
    link = kiosk_link()
    heard = [message for byte in frames_of_every_kind() for message in hear(link, bytes([byte]))]
    assert [message.txn_id for message in heard] == ["T1"] * 3
    assert heard[1].error_message == "卡 é ✓"


def test_frames_without_any_line_end_are_heard_each() -> None:
    """The oldest form of the document frames nothing."""
    link = kiosk_link()
    data = frames_of_every_kind().replace(b"\n", b"")
    assert len(hear(link, data)) == 3
    assert not link.partial


def test_blank_lines_and_crlf_mean_nothing() -> None:
    link = kiosk_link()
    data = b"\r\n\n \n" + frames_of_every_kind().replace(b"\n", b"\r\n\r\n")
    assert len(hear(link, data)) == 3


def test_a_frame_of_64_kib_passes_and_one_byte_more_does_not() -> None:
    def framed(size: int) -> bytes:
        payload = oracle.fresh(NOW, type="ack", txn_id="T1", status="processing", filler="")
        missing = size - len(oracle.line(payload)) + 1
        return oracle.line({**payload, "filler": "x" * missing})

    assert len(framed(65536)) == 65537
    assert [type(m).__name__ for m in hear(kiosk_link(), framed(65536))] == ["Ack"]
    assert hear(kiosk_link(), framed(65537)) == [Reason.TOO_LONG]


def test_ten_megabytes_without_a_line_end_are_never_held() -> None:
    reader = LineReader()
    for _ in range(16):
        reader.feed(b"x" * 4096)
        assert reader.next_line() is None
    reader.feed(b"x" * 4096)
    with pytest.raises(RemoteProtocolError) as error:
        reader.next_line()
    assert error.value.fatal
    assert not reader.partial


def test_closing_braces_dribbled_in_buy_no_work() -> None:
    reader = LineReader()
    for _ in range(20_000):
        reader.feed(b"}")
        assert reader.next_line() is None


# --- strictness ------------------------------------------------------------------------------------------

VALID = oracle.fresh(NOW, type="ack", txn_id="T1", status="processing")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"hello\n", Reason.NOT_JSON),
        (b"\xff\xfe\n", Reason.NOT_UTF8),
        (b'{"payload":{"a":"\xff"},"signature":"00"}\n', Reason.NOT_UTF8),
        (b"\xef\xbb\xbf{}\n", Reason.NOT_JSON),
        (b"null\n", Reason.BAD_STRUCTURE),
        (b"[]\n", Reason.BAD_STRUCTURE),
        (b'"x"\n', Reason.BAD_STRUCTURE),
        (b"{}\n", Reason.BAD_STRUCTURE),
        (b'{"payload":{}}\n', Reason.BAD_STRUCTURE),
        (b'{"payload":[],"signature":"00"}\n', Reason.BAD_STRUCTURE),
        (b'{"payload":{},"signature":7}\n', Reason.BAD_STRUCTURE),
        (b'{"payload":{},"signature":"00","signature":"00"}\n', Reason.NOT_JSON),
        (b'{"payload":{"a":1,"a":1},"signature":"00"}\n', Reason.NOT_JSON),
        (b'{"payload":{"a":{"b":1,"b":2}},"signature":"00"}\n', Reason.NOT_JSON),
        (b'{"payload":{"a":NaN},"signature":"00"}\n', Reason.NOT_JSON),
        (b'{"payload":{"a":Infinity},"signature":"00"}\n', Reason.NOT_JSON),
        (b'{"payload":{"a":-Infinity},"signature":"00"}\n', Reason.NOT_JSON),
        (b'{"payload":{"a":01},"signature":"00"}\n', Reason.NOT_JSON),
        (b'{"payload":{"a":"\\ud800"},"signature":"00"}\n', Reason.NOT_JSON),
        (b'{"payload":{"a":"\\u0000"},"signature":"00"}\n', Reason.NOT_JSON),
        (b'{"payload":{"a":"\x00"},"signature":"00"}\n', Reason.NOT_JSON),
        (b'{"payload":{"a":"\t"},"signature":"00"}\n', Reason.NOT_JSON),
        (b'{"payload":{"a":1e999},"signature":"00"}\n', Reason.BAD_SIGNATURE),
        (b'{"payload":{"a":' + b"9" * 5000 + b'},"signature":"00"}\n', Reason.NOT_JSON),
        (b'{"payload":{"a":' + b"[" * 17 + b"]" * 17 + b'},"signature":"00"}\n', Reason.NOT_JSON),
        (b'{"payload":' + b"[" * 60000 + b"\n", Reason.NOT_JSON),
        (b'{"payload":' + b'{"a":' * 10000 + b"\n", Reason.NOT_JSON),
        (oracle.line(VALID).replace(b'"}\n', b'"} x\n'), Reason.NOT_JSON),
        (oracle.line(VALID).replace(b"processing", b"processinG"), Reason.BAD_SIGNATURE),
        (re.sub(rb'"signature":"(\w+)"', lambda m: m[0].upper(), oracle.line(VALID)), Reason.BAD_STRUCTURE),
    ],
)
def test_garbage_is_refused_with_a_reason(line: bytes, reason: Reason) -> None:
    assert hear(kiosk_link(), line) == [reason]


def test_an_upper_case_signature_is_refused() -> None:
    envelope = json.loads(oracle.line(VALID))
    envelope["signature"] = envelope["signature"].upper()
    assert hear(kiosk_link(), json.dumps(envelope).encode() + b"\n") == [Reason.BAD_SIGNATURE]


def test_unsigned_members_beside_the_payload_are_ignored() -> None:
    envelope = {**json.loads(oracle.line(VALID)), "status": "success", "extra": {"a": 1}}
    (message,) = hear(kiosk_link(), json.dumps(envelope).encode() + b"\n")
    assert message == messages.Ack(txn_id="T1", status="processing")


def test_a_bad_frame_does_not_take_the_next_one_with_it() -> None:
    assert hear(kiosk_link(), b"rubbish\n" + oracle.line(VALID)) == [
        Reason.NOT_JSON,
        messages.Ack(txn_id="T1", status="processing"),
    ]


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_survived(data: bytes) -> None:
    for heard in hear(kiosk_link(), data + b"\n"):
        assert isinstance(heard, Reason)


# --- signatures ------------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abz/é\x7f", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abz", max_size=3), JSON_VALUES, max_size=5), st.booleans(), st.booleans())
@settings(max_examples=400, deadline=None)
def test_the_norm_is_pythons_own_for_every_value_and_spelling(
    value: dict, ascii_wire: bool, spaced: bool
) -> None:
    wire = json.dumps(value, ensure_ascii=ascii_wire, separators=None if spaced else (",", ":"))
    line = oracle.line(value, wire=wire).rstrip()
    frame = signing.open_frame(line)
    assert Form.NORM in signing.verify(Secret(oracle.SECRET.encode()), frame, signing.ALL_FORMS)
    assert signing.canonical(strictjson.parse(wire.encode())) == oracle.norm(value).encode()
    if frame.text is not None:
        assert frame.text == oracle.norm(value).encode()


TAIL = ',"txn_id":"T1","type":"transaction_result"'


@pytest.mark.parametrize(
    ("wire", "signed", "form"),
    [
        # a terminal of the Android sample prints 100 and signs 100.0
        (',"zamount":1,"amount":100', '"amount":100.0', Form.POINT),
        # JavaScript, C# and Swift read 50.0 and sign 50
        (',"amount":50.0', '"amount":50', Form.INTEGER),
        # digits as they were sent
        (',"amount":50.00', '"amount":50.00', Form.LEXEME),
        # real letters instead of escapes
        (',"error_message":"\u5361"', '"error_message":"\u5361"', Form.UTF8),
        (
            ',"amount":50.0,"error_message":"\u5361"',
            '"amount":50,"error_message":"\u5361"',
            Form.UTF8_INTEGER,
        ),
    ],
)
def test_terminals_that_print_differently_are_understood_and_pinned(
    wire: str, signed: str, form: Form
) -> None:
    def frame(nonce: str, wire: str, signed: str) -> bytes:
        tail = f',"nonce":"{nonce}","status":"failed","timestamp":"{NOW}"' + TAIL
        extra = ',"zamount":1' if "zamount" in wire else ""
        return oracle.line(
            {}, wire="{" + wire.lstrip(",") + tail + "}", signed_text="{" + signed + tail + extra + "}"
        )

    link = kiosk_link()
    assert len(hear(link, frame("n1", wire, signed))) == 1
    assert form in link.forms
    assert Form.NORM not in link.forms
    assert len(hear(link, frame("n2", wire, signed))) == 1
    if form is Form.LEXEME:
        return
    # pinned: the norm's spelling of the same payload is now a forgery
    normal = json.loads("{" + wire.lstrip(",") + "}")
    forged = oracle.fresh(NOW, type="transaction_result", txn_id="T1", status="failed", **normal)
    assert hear(link, oracle.line(forged)) == [Reason.BAD_SIGNATURE]


def test_whole_ringgit_plans_of_the_android_sample_verify_but_counts_stay_counts() -> None:
    payload = (
        '{"amount":%s,"nonce":"n","plans":[{"installmentDetails":[{"amount":%s,"installmentNumber":1}],'
        '"totalInstallments":1}],"status":"ipp_plans","timestamp":"' + str(NOW) + '","txn_id":"T1",'
        '"type":"transaction_result"}'
    )
    line = oracle.line({}, wire=payload % (100, 100), signed_text=payload % ("100.0", "100.0"))
    (message,) = hear(kiosk_link(), line)
    assert message.amount_sen == 10_000


def test_the_form_that_does_not_escape_is_never_accepted() -> None:
    """Two published samples sign `"key":"value"` without escaping: a text could then be read as another
    member.
    """
    payload = oracle.fresh(
        NOW, type="transaction_result", txn_id="T1", status="failed", error_message='x","z":"y'
    )
    unescaped = "{" + ",".join(f'"{name}":"{payload[name]}"' for name in sorted(payload)) + "}"
    assert hear(kiosk_link(), oracle.line(payload, signed_text=unescaped)) == [Reason.BAD_SIGNATURE]


@given(JSON_VALUES, JSON_VALUES)
@settings(max_examples=300, deadline=None)
def test_no_two_payloads_share_a_signed_text(one: object, two: object) -> None:
    for form in signing.ALL_FORMS:
        parsed = [strictjson.parse(json.dumps({"a": value}).encode()) for value in (one, two)]
        texts = [signing.canonical(value, form) for value in parsed]
        if texts[0] == texts[1]:
            assert one == two  # 50 and 50.0 may meet, nothing else


def test_several_secrets_are_told_apart_and_the_first_one_is_pinned() -> None:
    link = kiosk_link(key("one" * 12, "POS001"), key("two" * 12, "POS002"))
    first = oracle.fresh(NOW, type="ack", txn_id="T1", status="processing")
    other = oracle.fresh(NOW, type="ack", txn_id="T2", status="processing")
    assert link.key is None
    assert len(hear(link, oracle.line(first, "two" * 12))) == 1
    assert link.key is not None
    assert link.key.name == "POS002"
    assert hear(link, oracle.line(other, "one" * 12)) == [Reason.BAD_SIGNATURE]


# --- freshness -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("off", "passes"), [(0, 1), (59_999, 1), (-59_999, 1), (60_000, 0), (-60_000, 0), (10**9, 0)]
)
def test_the_window_is_open_for_less_than_a_minute_each_way(off: int, passes: int) -> None:
    heard = hear(kiosk_link(), oracle.line(oracle.fresh(NOW + off, type="error", txn_id="T", message="")))
    assert heard == ([messages.TerminalError(txn_id="T")] if passes else [Reason.OUTSIDE_WINDOW])


@pytest.mark.parametrize(
    "stamp", [NOW, f" {NOW}", f"{NOW} ", "1_757_492_341_555", "١٧٥٧٤٩٢٣٤١٥٥٥", "", None, "-1", "1e12"]
)
def test_a_timestamp_is_a_text_of_digits(stamp: object) -> None:
    payload = {**VALID, "nonce": f"n{stamp}", "timestamp": stamp}
    assert hear(kiosk_link(), oracle.line(payload)) == [Reason.BAD_TIMESTAMP]


@pytest.mark.parametrize("nonce", ["", 7, None, ["x"], "x" * 129])
def test_a_nonce_is_a_text_of_some_length(nonce: object) -> None:
    assert hear(kiosk_link(), oracle.line({**VALID, "nonce": nonce})) == [Reason.BAD_NONCE]


def test_a_replay_is_refused_also_after_a_thousand_other_messages_and_on_another_connection() -> None:
    nonces = MemoryNonces()
    link = kiosk_link(nonces=nonces)
    frame = oracle.line(VALID)
    assert hear(link, frame) == [messages.Ack(txn_id="T1", status="processing")]
    assert hear(link, frame) == [Reason.REPLAYED]
    for _ in range(1100):
        assert (
            len(hear(link, oracle.line(oracle.fresh(NOW, type="ack", txn_id="T", status="processing")))) == 1
        )
    assert hear(link, frame) == [Reason.REPLAYED]
    assert hear(kiosk_link(nonces=nonces), frame) == [Reason.REPLAYED]


def test_a_nonce_outlives_every_moment_at_which_its_frame_would_pass() -> None:
    nonces = MemoryNonces()
    frame = oracle.line(oracle.fresh(NOW + 59_000, type="ack", txn_id="T1", status="processing"))
    assert len(hear(kiosk_link(nonces=nonces), frame)) == 1
    later = NOW + 59_000 + 59_999  # 119 s after it was heard, and still inside its window
    nonces.forget_expired(later)
    assert hear(kiosk_link(nonces=nonces), frame, later) == [Reason.REPLAYED]
    nonces.forget_expired(NOW + 59_000 + 180_001)
    assert nonces.count == 0


def test_skew_is_measured() -> None:
    link = kiosk_link()
    link.receive_data(oracle.line(oracle.fresh(NOW - 25_000, type="ack", txn_id="T1", status="x")))
    assert link.next_event(NOW).skew_ms == -25_000


def test_a_stale_frame_is_marked_as_truly_signed() -> None:
    link = kiosk_link()
    link.receive_data(
        oracle.line(oracle.fresh(NOW - 300_000, type="transaction_result", txn_id="T1", status="success"))
    )
    with pytest.raises(SignedButRefused) as refused:
        link.next_event(NOW)
    assert refused.value.payload["txn_id"] == "T1"


def test_our_own_frames_sent_back_to_us_are_refused() -> None:
    link = kiosk_link()
    frame = link.send(messages.CancelTransaction(txn_id="T1"), NOW)
    assert hear(link, frame) == [Reason.WRONG_ROLE]


# --- what is said ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "members"),
    [
        (
            messages.TransactionRequest(
                txn_id="T1", amount_sen=5000, payment_mode=messages.PaymentMode.DUITNOW_QR
            ),
            {"type": "transaction_request", "txn_id": "T1", "amount": 50.0, "payment_mode": "duitnow_qr"},
        ),
        (
            messages.PlanSelection(txn_id="T1", plan_id="IPP_3M"),
            {"type": "ipp_plan_selection", "txn_id": "T1", "plan_id": "IPP_3M"},
        ),
        (messages.CancelTransaction(txn_id="T1"), {"type": "cancel_transaction", "txn_id": "T1"}),
    ],
)
def test_what_a_kiosk_says_is_what_the_document_lists(message: messages.Message, members: dict) -> None:
    payload = oracle.payload_of(kiosk_link().send(message, NOW))
    nonce = payload.pop("nonce")
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", nonce)
    assert payload == {**members, "kiosk_id": "KIOSK001", "timestamp": str(NOW)}


@pytest.mark.parametrize(
    ("sen", "text"),
    [
        (5000, b"50.0"),
        (1, b"0.01"),
        (10, b"0.1"),
        (2550, b"25.5"),
        (9999, b"99.99"),
        (999_999_999, b"9999999.99"),
    ],
)
def test_amounts_leave_in_the_form_every_terminal_signs_alike(sen: int, text: bytes) -> None:
    frame = kiosk_link().send(
        messages.TransactionRequest(txn_id="T", amount_sen=sen, payment_mode=messages.PaymentMode.CARD), NOW
    )
    assert b'"amount":' + text + b"," in frame
    assert repr(float(text)).encode() == text
    assert oracle.payload_of(frame)["amount"] == sen / 100


def test_a_terminal_may_be_sent_whole_amounts_as_integers() -> None:
    link = Link(Role.KIOSK, [key()], MemoryNonces(), sender="KIOSK001", amount_form="integer")
    request = messages.TransactionRequest(txn_id="T", amount_sen=5000, payment_mode=messages.PaymentMode.CARD)
    assert b'"amount":50,' in link.send(request, NOW)


def test_a_role_cannot_say_the_others_words() -> None:
    with pytest.raises(LocalProtocolError):
        kiosk_link().send(messages.Ack(txn_id="T1"), NOW)
    with pytest.raises(LocalProtocolError):
        Link(Role.TERMINAL, [key()], MemoryNonces()).send(messages.CancelTransaction(txn_id="T1"), NOW)
    with pytest.raises(LocalProtocolError):
        kiosk_link().send(messages.PlanSelection(txn_id="T1", plan_id="卡"), NOW)
    with pytest.raises(LocalProtocolError):
        kiosk_link(key("a" * 32, "A"), key("b" * 32, "B")).send(messages.CancelTransaction(txn_id="T1"), NOW)


def test_a_kiosk_and_a_terminal_understand_each_other() -> None:
    kiosk, terminal = kiosk_link(), Link(Role.TERMINAL, [key()], MemoryNonces(), sender="POS001")
    plans = '[{"planId":"IPP_3M","installmentDetails":[{"amount":35.00,"installmentFee":1.50}]}]'
    down = [
        messages.TransactionRequest(txn_id="T1", amount_sen=10_000, payment_mode=messages.PaymentMode.IPP),
        messages.PlanSelection(txn_id="T1", plan_id="IPP_3M"),
        messages.CancelTransaction(txn_id="T1"),
    ]
    up = [
        messages.Ack(txn_id="T1", status="processing"),
        messages.TransactionResult(
            txn_id="T1", status="ipp_plans", amount="100.0", amount_sen=10_000, plans=plans
        ),
        messages.TransactionResult(
            txn_id="T1", status="success", transaction_id="000410", authorization_code="A1", card_last4="1234"
        ),
        messages.TerminalError(txn_id="T1", message="paper"),
    ]
    assert hear(terminal, b"".join(kiosk.send(message, NOW) for message in down)) == down
    heard = hear(kiosk, b"".join(terminal.send(message, NOW) for message in up))
    assert heard[0] == up[0]
    assert json.loads(heard[1].plans) == json.loads(plans)
    assert "35.00" in heard[1].plans
    assert heard[2:] == up[2:]


# --- what is heard ---------------------------------------------------------------------------------------


def heard_result(**members: object) -> messages.TransactionResult:
    payload = oracle.fresh(NOW, type="transaction_result", txn_id="T1", **members)
    (message,) = hear(kiosk_link(), oracle.line(payload))
    assert isinstance(message, messages.TransactionResult)
    return message


@pytest.mark.parametrize(
    ("wire", "sen"),
    [
        ("50", 5000), ("50.0", 5000), ("50.10", 5010), ("0.01", 1), ("5e1", 5000), ("1.5E2", 15000),
        ("0.30000000000000004", None), ("10.001", None), ("1e-3", None), ("-5.00", -500), ("1e39", None),
        ('"50.00"', None), ("true", None), ("[50]", None), ("1e-99999999999999999999", None),
    ],
)  # fmt: skip
def test_an_amount_is_read_from_its_digits(wire: str, sen: int | None) -> None:
    inner = f'{{"amount":{wire},"nonce":"n","status":"success","timestamp":"{NOW}"' + TAIL + "}"
    (message,) = hear(kiosk_link(), oracle.line({}, wire=inner, signed_text=oracle.norm(json.loads(inner))))
    assert message.amount_sen == sen
    assert message.amount is not None


def test_everything_in_a_result_is_kept() -> None:
    message = heard_result(
        status="success", amount=10.0, transaction_id="000410", authorization_code="ABC123", card_last4="1234"
    )
    assert (message.transaction_id, message.authorization_code, message.card_last4) == (
        "000410",
        "ABC123",
        "1234",
    )
    assert heard_result(status="failed", error_message="USER_ABORT").error_message == "USER_ABORT"


def test_null_members_are_absent_ones() -> None:
    message = heard_result(status="ipp_plans", amount=None, plans=None, transaction_id=None, card_last4=None)
    assert (message.amount, message.amount_sen, message.plans, message.transaction_id) == (
        None,
        None,
        None,
        None,
    )


def test_a_card_number_never_comes_to_rest() -> None:
    assert heard_result(status="success", card_last4="4111 1111 1111 1234").card_last4 == "1234"


@pytest.mark.parametrize("status", [None, 7, ["success"], {"a": "success"}, True])
def test_a_status_that_is_no_text_is_kept_but_is_no_success(status: object) -> None:
    assert heard_result(status=status).status not in messages.SUCCESS_STATUSES


@pytest.mark.parametrize("txn_id", [None, "", 7, "x" * 129])
def test_a_result_without_a_payment_is_refused(txn_id: object) -> None:
    payload = {**oracle.fresh(NOW, type="transaction_result", status="success"), "txn_id": txn_id}
    assert hear(kiosk_link(), oracle.line(payload)) == [Reason.BAD_FIELDS]


def test_an_unknown_type_identifies_but_says_nothing() -> None:
    assert hear(kiosk_link(), oracle.line(oracle.fresh(NOW, type="ping"))) == [messages.Other("ping")]


# --- money -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sen"), [("25", 2500), ("25.5", 2550), ("25.50", 2550), ("0.01", 1), (" 10.00 ", 1000)]
)
def test_typed_amounts(text: str, sen: int) -> None:
    assert money.parse_ringgit(text) == sen


@pytest.mark.parametrize(
    "text", ["", "abc", "-1", "+1", "1e3", "1,000", "0.001", ".5", "5.", "NaN", "١٠", "1_0", "0x10"]
)
def test_amounts_that_are_not_typed_amounts(text: str) -> None:
    with pytest.raises(BadAmount):
        money.parse_ringgit(text)


@pytest.mark.parametrize("sen", [0, -1, 500_001, 1_000_000_000])
def test_amounts_outside_the_limits(sen: int) -> None:
    with pytest.raises(BadAmount):
        money.check_amount(sen, 500_000)


def test_secrets_do_not_show() -> None:
    link = kiosk_link()
    for text in (repr(link.key), str(link.key), repr(link.key.secret), repr(Secret(b"x"))):
        assert oracle.SECRET not in text
        assert "'x'" not in text
