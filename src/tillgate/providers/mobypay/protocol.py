"""One end of the kiosk-terminal link with no I/O in it: bytes in, events out; messages in, bytes out.

Both roles are here, so two links in one process can talk to each other. The caller brings the clock and the
socket.
"""

import os
import secrets
from enum import StrEnum
from typing import Any, Final

import msgspec

from tillgate.providers.mobypay import messages, money, replay, signing
from tillgate.providers.mobypay.errors import LocalProtocolError, Reason, RemoteProtocolError
from tillgate.providers.mobypay.frames import MAX_FRAME_BYTES, LineReader


class Role(StrEnum):
    """Which end of the link we are."""

    KIOSK = "kiosk"
    TERMINAL = "terminal"


class Key(msgspec.Struct, kw_only=True):
    """A secret a peer may sign with. `name` scopes its nonces; `pos_id` is None when several terminals
    share it.
    """

    name: str
    secret: signing.Secret
    pos_id: str | None = None
    forms: signing.Forms = signing.ALL_FORMS


class NeedData:
    """Nothing to report until more bytes come."""

    def __repr__(self) -> str:
        return "NEED_DATA"


NEED_DATA: Final = NeedData()


class Received(msgspec.Struct, frozen=True, gc=False):
    """A message whose signature, nonce and timestamp are good. `skew_ms` is the sender's clock minus ours."""

    message: messages.Message
    key: Key
    pos_id: str | None
    kiosk_id: str | None
    nonce: str
    timestamp_ms: int
    skew_ms: int
    nonce_expires_ms: int
    raw: bytes
    blot: str | None = None
    """A text inside `raw` that must not be kept (more than four digits of a card)."""


class SignedButRefused(RemoteProtocolError):
    """A frame that was truly signed by the peer, yet cannot be acted on: stale, replayed or malformed."""

    def __init__(
        self,
        reason: Reason,
        detail: str,
        raw: bytes,
        key: Key,
        payload: dict[str, Any],
        expires_ms: int | None = None,
    ):
        super().__init__(reason, detail, raw=raw, signed=True)
        self.key = key
        self.payload = payload
        self.expires_ms = expires_ms
        """Until when its nonce must be remembered; None when it had none that was new."""


_encode_sorted = msgspec.json.Encoder(order="sorted").encode


class Link:
    """One connection's protocol state.

    Give it every key the peer may hold; the first good signature pins one of them for the life of the
    connection, and `forms` narrows to the ways of printing that the peer can be using.
    """

    def __init__(
        self,
        role: Role,
        keys: list[Key],
        nonces: replay.NonceStore,
        *,
        sender: str | None = None,
        amount_form: money.AmountForm = "decimal",
        max_bytes: int = MAX_FRAME_BYTES,
    ):
        """`sender` is our kiosk_id or pos_id, put into every message we send. Raises ValueError without
        keys.
        """
        if not keys:
            raise ValueError("a link needs at least one key")
        self.role = role
        self.amount_form: money.AmountForm = amount_form
        self.key: Key | None = keys[0] if len(keys) == 1 else None
        self.forms: signing.Forms = self.key.forms if self.key else signing.ALL_FORMS
        self._keys = keys
        self._nonces = nonces
        self._sender = sender
        self._ours = frozenset(messages.KIOSK_TYPES if role is Role.KIOSK else messages.TERMINAL_TYPES)
        self._lines = LineReader(max_bytes)

    @property
    def partial(self) -> bool:
        """Whether an unfinished frame is waiting for its rest."""
        return self._lines.partial

    def receive_data(self, data: bytes) -> None:
        """Bytes from the peer, cut anywhere."""
        self._lines.feed(data)

    def next_event(self, now_ms: int) -> Received | NeedData:
        """The next believed message, or NEED_DATA.

        Raises RemoteProtocolError for a frame that is not believed; unless it is fatal, call again for the
        next one.
        """
        line = self._lines.next_line()
        return NEED_DATA if line is None else self._believe(line, now_ms)

    def send(self, message: messages.Message, now_ms: int, nonce: str | None = None) -> bytes:
        """The signed frame for a message. Raises LocalProtocolError when it is not ours to say or the peer
        is unknown.
        """
        if messages.WIRE_NAMES.get(type(message)) not in self._ours and type(message) is not messages.Other:
            raise LocalProtocolError(f"a {self.role} does not send {type(message).__name__}")
        if self.key is None:
            raise LocalProtocolError("the peer has not shown which secret it holds")
        payload = messages.write(message, self.amount_form)
        payload["timestamp"] = str(now_ms)
        if self.role is Role.KIOSK:
            payload["nonce"] = nonce or _uuid4()
            payload["kiosk_id"] = self._sender
        else:
            payload["nonce"] = nonce or secrets.token_urlsafe(16)
            if self._sender is not None:
                payload["pos_id"] = self._sender
        return seal(payload, self.key.secret)

    def _believe(self, line: bytes, now_ms: int) -> Received:
        try:
            frame = signing.open_frame(line)
        except UnicodeDecodeError:
            raise RemoteProtocolError(Reason.NOT_UTF8, "the frame is not UTF-8", raw=line) from None
        except TypeError as error:
            raise RemoteProtocolError(Reason.BAD_STRUCTURE, str(error), raw=line) from None
        except ValueError as error:
            raise RemoteProtocolError(Reason.NOT_JSON, str(error), raw=line) from None
        key = self._verified_by(frame)
        if key is None:
            raise RemoteProtocolError(Reason.BAD_SIGNATURE, "the signature does not match", raw=line)
        payload = frame.payload
        nonce = payload.get("nonce")
        if type(nonce) is not str or not 0 < len(nonce) <= replay.LONGEST_NONCE:
            raise SignedButRefused(
                Reason.BAD_NONCE, "nonce is not a text of 1 to 128 characters", line, key, payload
            )
        if self._nonces.seen(key.name, nonce):
            raise SignedButRefused(Reason.REPLAYED, "this nonce was used before", line, key, payload)
        sent_ms = replay.timestamp_ms(payload.get("timestamp"))
        expires_ms = replay.nonce_expiry_ms(sent_ms or now_ms, now_ms)
        self._nonces.remember(key.name, nonce, expires_ms)
        if sent_ms is None:
            raise SignedButRefused(
                Reason.BAD_TIMESTAMP, "timestamp is not a text of digits", line, key, payload, expires_ms
            )
        skew_ms = sent_ms - now_ms
        if not -replay.WINDOW_MS < skew_ms < replay.WINDOW_MS:
            detail = f"the sender's clock is off by {skew_ms} ms"
            raise SignedButRefused(Reason.OUTSIDE_WINDOW, detail, line, key, payload, expires_ms)
        kind = payload.get("type")
        if type(kind) is not str:
            raise SignedButRefused(Reason.BAD_FIELDS, "type is not a text", line, key, payload, expires_ms)
        if kind in self._ours:
            # One secret serves both directions, so our own frames would verify if somebody sent them back.
            detail = f"a {kind} is ours to send, not to receive"
            raise SignedButRefused(Reason.WRONG_ROLE, detail, line, key, payload, expires_ms)
        try:
            message = messages.read(kind, payload)
        except ValueError as error:
            raise SignedButRefused(Reason.BAD_FIELDS, str(error), line, key, payload, expires_ms) from None
        return Received(
            message,
            key,
            _name(payload.get("pos_id")),
            _name(payload.get("kiosk_id")),
            nonce,
            sent_ms,
            skew_ms,
            expires_ms,
            line,
            messages.sensitive_text(payload) if "card_last4" in payload else None,
        )

    def _verified_by(self, frame: signing.OpenedFrame) -> Key | None:
        if self.key is not None:
            forms = signing.verify(self.key.secret, frame, self.forms)
            if not forms:
                return None
            self.forms = forms
            return self.key
        for key in self._keys:
            forms = signing.verify(key.secret, frame, key.forms)
            if forms:
                self.key, self.forms = key, forms
                return key
        return None


def seal(payload: dict[str, Any], secret: signing.Secret) -> bytes:
    """A frame: the payload in canonical order, its signature, LF. ASCII only, as every known terminal needs
    it.

    Raises LocalProtocolError for text that is not ASCII, on which implementations disagree.
    """
    canonical = _encode_sorted(payload)
    if not canonical.isascii() or b"\x7f" in canonical:
        raise LocalProtocolError(
            "only ASCII may be sent: terminals sign other characters each in their own way"
        )
    return b'{"payload":%b,"signature":"%b"}\n' % (canonical, secret.sign(canonical).encode())


class _Nonces:
    """Random UUIDs. The system is asked for many at once: a call of it costs as much as half a signature."""

    def __init__(self) -> None:
        self._digits, self._at = "", 0
        if hasattr(os, "register_at_fork"):  # a child must not say what its parent says
            os.register_at_fork(after_in_child=self._forget)

    def __call__(self) -> str:
        at = self._at
        if at >= len(self._digits):
            self._digits, at = os.urandom(16 * _NONCES_AT_ONCE).hex(), 0
        self._at = at + 32
        digits = self._digits[at : at + 32]
        variant = "89ab"[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"

    def _forget(self) -> None:
        self._digits, self._at = "", 0


_NONCES_AT_ONCE: Final = 128
_uuid4: Final = _Nonces()


def _name(value: object) -> str | None:
    return value if type(value) is str and 0 < len(value) <= messages.LONGEST_ID else None
