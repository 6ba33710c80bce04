"""Bytes to lines: a buffer with a hard cap. LF ends a frame, CRLF does too, blank lines mean nothing."""

import json
from collections import deque

from tillgate.providers.mobypay.errors import Reason, RemoteProtocolError

MAX_FRAME_BYTES = 64 * 1024
_MOST_GUESSES = 16
_BLANK = b" \t\r"


class LineReader:
    """Cuts a byte stream into frames, whatever the pieces it arrives in.

    The oldest form of the kiosk document does not mention line ends at all, so an object that is complete but
    has no LF behind it yet is a frame too: nothing that follows could still change it. That guess is made a
    bounded number of times per frame, so a peer that dribbles bytes buys no work with them.
    """

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES):
        self._lines: deque[bytes] = deque()
        self._rest = bytearray()
        self._guesses = 0
        self._max_bytes = max_bytes

    @property
    def partial(self) -> bool:
        """Whether bytes of an unfinished frame are waiting."""
        return bool(self._rest)

    def feed(self, data: bytes) -> None:
        """Take bytes as they came from the socket."""
        *lines, rest = data.split(b"\n")
        if lines:
            if self._rest:
                lines[0] = bytes(self._rest) + lines[0]
                self._rest.clear()
            self._lines.extend(lines)
            self._guesses = 0
        self._rest += rest

    def next_line(self) -> bytes | None:
        """The next frame without its line end, or None until more bytes come.

        Raises RemoteProtocolError (too_long, fatal) when a frame exceeds the cap; what was buffered is gone
        then.
        """
        while self._lines:
            line = self._lines.popleft().strip(_BLANK)
            if len(line) > self._max_bytes:
                self._overflow()
            if line:
                return line
        if len(self._rest) > self._max_bytes + 1:  # a CR may be waiting for its LF
            self._overflow()
        return self._unterminated() if self._rest else None

    def _unterminated(self) -> bytes | None:
        if self._rest[-1:] != b"}" or self._guesses >= _MOST_GUESSES:
            return None
        self._guesses += 1
        try:
            text = self._rest.decode("utf-8").lstrip(" \t\r")
            _, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            return None
        self._rest[:] = text[end:].encode()
        self._guesses = 0
        return text[:end].encode()

    def _overflow(self) -> None:
        self._lines.clear()
        self._rest.clear()
        raise RemoteProtocolError(Reason.TOO_LONG, f"a frame exceeds {self._max_bytes} bytes", fatal=True)
