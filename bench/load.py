"""HTTP load: flows of requests, played by the C loader over keep-alive connections."""

from __future__ import annotations

import itertools
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.process import BenchError
from bench.tools import run_json, tool

ID = "\x01"
"""Stands in a request for the flow's own 12-digit number, unique in the run."""
PICK = "\x02"
"""Stands in a path for the next of the given picks."""
CAPTURED = "\x03"
"""Stands in a path for what an earlier step of the flow captured."""

ONE_OF_1000 = "\x04"
"""Stands in a request for the last three digits of the flow's number: the same row for every 1000th flow."""

# A step is more flows than a loader can play in the time it is given.
_ids_given = itertools.count(100_000_000_000, 10_000_000)


@dataclass(frozen=True)
class Step:
    """One request of a flow and how its answer is judged.

    `status` 0 accepts any 2xx; `marker` must stand in the body; `capture` is a prefix: the text between it
    and the next quote is kept for CAPTURED.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: str = ""
    status: int = 200
    marker: str = ""
    capture: str = ""

    def encoded(self) -> bytes:
        body = self.body.encode()
        length = len(body) + 11 * body.count(ID.encode()) + 2 * body.count(ONE_OF_1000.encode())
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        template = f"{head}\r\n".encode() + body
        marker, capture = self.marker.encode(), self.capture.encode()
        return b"STEP %d %d %d %d\n%b%b%b\n" % (
            self.status, len(template), len(marker), len(capture), template, marker, capture,
        )  # fmt: skip


@dataclass(frozen=True)
class Load:
    """What the loader saw; times in milliseconds, `rate` in flows per second inside the window."""

    rate: float
    p50_ms: float
    p99_ms: float
    longest_ms: float
    all_flows: int
    all_requests: int
    elapsed: float
    stalled: bool
    starved: int
    waiting: int
    errors: int
    first_error: str
    cpu_s: float

    def right(self, who: str) -> Load:
        """This load, or BenchError when it stalled or any answer was not the expected one."""
        if self.stalled:
            raise BenchError(f"{who} stalled: {self.waiting} connections without an answer for 20 s")
        if self.errors:
            raise BenchError(f"{who}: {self.errors} wrong answers, the first: {self.first_error}")
        return self


def play(
    port: int,
    flow: list[Step],
    *,
    seconds: float,
    connections: int = 32,
    warm: float = 0.3,
    flows: int = 0,
    picks: list[str] | None = None,
    stall_s: float = 20,
) -> Load:
    """Run a flow in a closed loop; `flows` > 0 stops after that many instead of after `seconds`."""
    with tempfile.TemporaryDirectory(prefix="bench-load-") as directory:
        script = Path(directory, "script")
        script.write_bytes(b"".join(step.encoded() for step in flow))
        limit = max(seconds, 600) if flows else seconds
        arguments: dict[str, float | str] = {
            "connections": connections, "seconds": limit, "warm": 0 if flows else warm, "flows": flows,
            "first": next(_ids_given), "stall": stall_s,
        }  # fmt: skip
        if picks:
            arguments["picks"] = str(Path(directory, "picks"))
            Path(directory, "picks").write_text("\n".join(picks))
        said = run_json(
            [str(tool("loader")), str(port), str(script), *(f"{k}={v}" for k, v in arguments.items())],
            timeout_s=limit + warm + 3 * stall_s, accept=(0, 2, 3),
        )  # fmt: skip
    return Load(**{name: said[name] for name in Load.__dataclass_fields__})


def json_post(path: str, body: dict[str, Any], headers: dict[str, str] | None = None, **rest: Any) -> Step:
    """A POST of JSON in its shortest form."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    # json.dumps writes a control character as an escape: put the placeholder itself back.
    for mark in (ID, PICK, CAPTURED, ONE_OF_1000):
        text = text.replace(json.dumps(mark)[1:-1], mark)
    return Step("POST", path, {"Content-Type": "application/json"} | (headers or {}), text, **rest)
