"""The C tools: built by gcc when the benchmark starts, into `bench/bin/`, again whenever a source changed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from bench.process import BenchError

_HERE = Path(__file__).parent
_BIN = _HERE / "bin"
_FLAGS = {
    "loader": ["-lm"],
    "floor": ["-lsqlite3"],
    "shim.so": ["-shared", "-fPIC", "-ldl"],
}


def tool(name: str) -> Path:
    """The path of a built tool: `loader`, `floor` or `shim.so`.

    Raises BenchError, with the package to install, when gcc or the headers of SQLite are missing.
    """
    source = _HERE / "native" / f"{name.removesuffix('.so')}.c"
    target = _BIN / name
    if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
        return target
    _BIN.mkdir(exist_ok=True)
    fresh = target.with_suffix(".new")
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-o", str(fresh), str(source), *_FLAGS[name]]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise BenchError("gcc is missing: apt-get install -y gcc libc6-dev libsqlite3-dev") from None
    except subprocess.CalledProcessError as failed:
        if "sqlite3.h" in failed.stderr or "-lsqlite3" in failed.stderr:
            raise BenchError("the headers of SQLite are missing: apt-get install -y libsqlite3-dev") from None
        raise BenchError(f"{' '.join(command)} failed:\n{failed.stderr}") from None
    fresh.replace(target)
    return target


def run_json(
    command: list[str], *, timeout_s: float, accept: tuple[int, ...] = (0,), **how: Any
) -> dict[str, Any]:
    """Run a tool that prints one JSON object; BenchError on any other exit status than the accepted ones."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, **how)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command[0]} did not end within {timeout_s:.0f} s") from None
    if done.returncode not in accept:
        said = (done.stdout[-1000:] + done.stderr[-2000:]).strip()
        raise BenchError(f"{Path(command[0]).name} ended with status {done.returncode}: {said}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
