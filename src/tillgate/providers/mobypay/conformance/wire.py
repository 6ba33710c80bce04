"""Frames as the kiosk document and the captured frames have them, with the standard library only."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import time
from typing import Any, Final

from tillgate.conform import Exchange, Failed, NoAnswer, Wire

LONGEST_LINE: Final = 64 * 1024
WINDOW_MS: Final = 60_000


def canonical(payload: Any) -> str:
    """What is signed: keys sorted at every depth, no spaces, ASCII escapes."""
    return json.dumps(payload, sort_keys=True, separators=(",", ":"))


def sign(secret: str, text: str) -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def stamped(*, age_ms: int = 0, **members: Any) -> dict[str, Any]:
    """A payload with the time and a nonce, as real terminals write them."""
    nonce = base64.b64encode(os.urandom(16)).decode()
    return {**members, "timestamp": str(int(time.time() * 1000) - age_ms), "nonce": nonce}


def frame(payload: dict[str, Any], secret: str) -> bytes:
    body = json.dumps(payload, separators=(",", ":"), ensure_ascii=True)
    return f'{{"payload":{body},"signature":"{sign(secret, canonical(payload))}"}}\n'.encode()


class Talk:
    """One TCP connection to the other end. Every frame is recorded, without the secret."""

    def __init__(
        self, wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: str
    ) -> None:
        self.secret = secret
        self._wire, self._reader, self._writer = wire, reader, writer

    async def send(self, data: bytes, pieces: int = 1) -> None:
        """`pieces`: in so many TCP segments."""
        self._record("we sent", data)
        size = max(1, -(-len(data) // pieces))
        try:
            for start in range(0, len(data), size):
                self._writer.write(data[start : start + size])
                await self._writer.drain()
                if pieces > 1:
                    await asyncio.sleep(0.005)
        except OSError as error:
            raise NoAnswer(f"the connection broke ({type(error).__name__})") from None

    async def say(self, payload: dict[str, Any]) -> None:
        await self.send(frame(payload, self.secret))

    async def line(self, within_s: float) -> bytes:
        """Raises `NoAnswer` where none comes, `Failed` for one that is no frame."""
        try:
            async with asyncio.timeout(within_s):
                data = await self._reader.readline()
                while data.strip() == b"" and data:
                    data = await self._reader.readline()
        except TimeoutError:
            raise NoAnswer(f"nothing came within {within_s:g} s") from None
        except ValueError:
            raise Failed("a line is longer than 64 KiB") from None
        except OSError as error:
            raise NoAnswer(f"the connection broke ({type(error).__name__})") from None
        if not data:
            raise NoAnswer("the other end closed the connection")
        self._record("it sent", data)
        return data

    async def hear(self, within_s: float = 10.0, kind: str | None = None) -> dict[str, Any]:
        """The next believable payload (of a kind). Raises `Failed` for a frame that does not verify."""
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            left = deadline - asyncio.get_running_loop().time()
            payload = read(await self.line(max(left, 0.01)), self.secret)
            if kind is None or payload.get("type") == kind:
                return payload

    async def silent(self, for_s: float) -> bool:
        """Whether nothing is said for so long; the end of the connection is silence, too."""
        try:
            await self.line(for_s)
        except NoAnswer:
            return True
        return False

    async def end(self, within_s: float = 2.0) -> None:
        """Say that nothing more comes, and wait for the other side to have heard it all: a line that is cut
        at once takes with it what is not read yet."""
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            self._writer.write_eof()
            async with asyncio.timeout(within_s):
                while await self._reader.read(65536):
                    pass
        self.close()

    def close(self) -> None:
        self._writer.transport.abort()

    def _record(self, who: str, data: bytes) -> None:
        text = f"{who}: {data[:2000].decode('utf-8', 'replace').strip()}".replace(self.secret, "***")
        self._wire.exchanges.append(Exchange(text, "", 0.0))


def read(line: bytes, secret: str) -> dict[str, Any]:
    """The payload of a frame. Raises `Failed` with what is wrong with it."""
    if not line.endswith(b"\n"):
        raise Failed("a frame ends with a line feed")
    try:
        envelope = json.loads(line)
    except ValueError:
        raise Failed("a frame is one JSON object on a line") from None
    if not isinstance(envelope, dict) or not isinstance(envelope.get("payload"), dict):
        raise Failed("a frame is an object with payload and signature")
    payload: dict[str, Any] = envelope["payload"]
    given = envelope.get("signature")
    if not isinstance(given, str) or len(given) != 64 or given != given.lower():
        raise Failed("the signature is 64 lower-case hex digits")
    if not hmac.compare_digest(given, sign(secret, canonical(payload))):
        raise Failed("the signature is not that of the canonical payload under this secret")
    return payload


def fresh(payload: dict[str, Any]) -> None:
    """Raises `Failed` unless it has a time of now and a nonce."""
    stamp, nonce = payload.get("timestamp"), payload.get("nonce")
    if not isinstance(stamp, str) or not stamp.isascii() or not stamp.isdigit() or len(stamp) != 13:
        raise Failed("timestamp is a text of 13 digits: epoch milliseconds")
    if abs(int(stamp) - time.time() * 1000) >= WINDOW_MS:
        raise Failed("timestamp is a minute or more away from this machine's clock")
    if not isinstance(nonce, str) or len(nonce) < 16:
        raise Failed("nonce is a text of at least 16 characters")
