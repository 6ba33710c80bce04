"""Bytes to lines: a buffer with a hard cap. LF ends a frame, CRLF does too, blank lines mean nothing."""

import json

from tillgate.providers.mobypay.errors import Reason, RemoteProtocolError

MAX_FRAME_BYTES = 64 * 1024
_MOST_GUESSES = 16


class LineReader:
    """Cuts a byte stream into frames, whatever the pieces it arrives in.

    The oldest form of the kiosk document does not mention line ends at all, so an object that is complete
    but has no LF behind it yet is a frame too: nothing that follows could still change it. That guess is
    made a bounded number of times per frame, so a peer that dribbles bytes buys no work with them.
    """

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES):
        self._buffer = bytearray()
        self._scanned = 0
        self._guesses = 0
        self._max_bytes = max_bytes

    @property
    def partial(self) -> bool:
        """Whether bytes of an unfinished frame are waiting."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take bytes as they came from the socket."""
        self._buffer += data

    def next_line(self) -> bytes | None:
        """The next frame without its line end, or None until more bytes come.

        Raises RemoteProtocolError (too_long, fatal) when a frame exceeds the cap; what was buffered is gone
        then.
        """
        while True:
            end = self._buffer.find(b"\n", self._scanned)
            if end < 0:
                self._scanned = len(self._buffer)
                if self._scanned > self._max_bytes + 1:  # a CR may be waiting for its LF
                    self._overflow()
                return self._unterminated()
            line = bytes(self._buffer[:end]).strip(b" \t\r")
            if len(line) > self._max_bytes:
                self._overflow()
            self._drop(end + 1)
            if line:
                return line

    def _unterminated(self) -> bytes | None:
        if self._buffer[-1:] != b"}" or self._guesses >= _MOST_GUESSES:
            return None
        self._guesses += 1
        try:
            text = self._buffer.decode("utf-8").lstrip(" \t\r")
            _, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            return None
        self._buffer[:] = text[end:].encode()
        self._scanned = self._guesses = 0
        return text[:end].encode()

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._scanned = self._guesses = 0

    def _overflow(self) -> None:
        self._buffer.clear()
        self._scanned = self._guesses = 0
        raise RemoteProtocolError(Reason.TOO_LONG, f"a frame exceeds {self._max_bytes} bytes", fatal=True)
