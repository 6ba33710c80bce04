"""`tillgate …` run to its end in a process of its own, forked from one that has everything loaded already.

Loading takes most of a short command's second; a test that counts that second starts `python -m tillgate`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

TIMEOUT_S = 60


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


class Commands:
    """Use as a context manager."""

    def __init__(self) -> None:
        self._parent: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._parent = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._parent is not None
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait()
        assert self._parent.stdout is not None
        self._parent.stdout.close()

    def run(self, directory: Path, *arguments: str, **settings: object) -> Done:
        """Run a command in `directory`, with no settings of the environment's but these."""
        assert self._parent is not None
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        streams = [directory.parent / f"{directory.name}.{name}" for name in ("out", "err")]
        given = {f"TILLGATE_{name.upper()}": str(value) for name, value in settings.items()}
        asked = {
            "arguments": ["tillgate", *arguments],
            "environment": {**given, "HOME": str(directory), "PATH": os.environ["PATH"]},
            "directory": str(directory),
            "streams": [str(path) for path in streams],
        }
        self._parent.stdin.write(json.dumps(asked) + "\n")
        self._parent.stdin.flush()
        code = int(self._parent.stdout.readline())
        said = [path.read_text(errors="replace") for path in streams]
        for path in streams:
            path.unlink()
        return Done(code, *said)


def _serve() -> None:
    import tillgate.demo
    import tillgate.http.app
    import tillgate.http.server  # noqa: F401

    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        child = os.fork()
        if not child:
            _become(asked)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(asked: dict[str, Any]) -> None:
    """Be that command, and never come back."""
    import signal

    from tillgate.cli import main

    signal.alarm(TIMEOUT_S)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, path in enumerate(asked["streams"], 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["directory"])
    sys.argv = asked["arguments"]
    code: object = 0
    try:
        main()
    except SystemExit as error:
        code = error.code or 0
    except BaseException:  # noqa: BLE001 - as the interpreter would
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    _serve()
