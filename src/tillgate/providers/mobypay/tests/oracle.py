"""What a frame is, written from the kiosk document with the standard library only; the code under test is
not asked.
"""

import base64
import hashlib
import hmac
import itertools
import json
import os
import time
from pathlib import Path

SECRET = "a-secret-of-thirty-two-characters-or-more"
CAPTURED = json.loads((Path(__file__).parent / "captured_frames.json").read_text())

_counter = itertools.count()


def hmac_hex(secret: str, text: str) -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def norm(payload: object) -> str:
    return json.dumps(payload, sort_keys=True, separators=(",", ":"))


def line(
    payload: dict, secret: str = SECRET, signed_text: str | None = None, wire: str | None = None
) -> bytes:
    """A frame whose `payload` may be printed as `wire` while `signed_text` is what was signed."""
    body = wire if wire is not None else json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
    signature = hmac_hex(secret, norm(payload) if signed_text is None else signed_text)
    return f'{{"payload":{body},"signature":"{signature}"}}\n'.encode()


def fresh(now_ms: int | None = None, **members: object) -> dict:
    """A payload with a timestamp and a nonce as real terminals write them."""
    now_ms = int(time.time() * 1000) if now_ms is None else now_ms
    nonce = base64.b64encode(os.urandom(12) + next(_counter).to_bytes(4)).decode()
    return {**members, "timestamp": str(now_ms), "nonce": nonce}


def ack(txn_id: str, status: str = "processing", pos_id: str | None = "POS001", **more: object) -> dict:
    return fresh(type="ack", txn_id=txn_id, status=status, **({"pos_id": pos_id} if pos_id else {}), **more)


def result(txn_id: str, status: str, pos_id: str | None = "POS001", **more: object) -> dict:
    who = {"pos_id": pos_id} if pos_id else {}
    return fresh(type="transaction_result", txn_id=txn_id, status=status, **who, **more)


def payload_of(frame: bytes, secret: str = SECRET) -> dict:
    """The payload of a frame we were sent, its signature checked the way the document says."""
    envelope = json.loads(frame)
    assert hmac_hex(secret, norm(envelope["payload"])) == envelope["signature"]
    return envelope["payload"]
