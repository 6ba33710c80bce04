"""`python -m bench.ci`: instructions per create, against the figure committed in bench/instructions.json.

Counted by cachegrind over an in-process driver, so that a busy or slow machine does not matter: it repeats
to a fraction of a per cent. The build fails when the count moved by more than 3 % either way, or passes the
bound. Moved down: run `python -m bench.ci --update`, commit the file, and the gain is kept.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.contestant import REPOSITORY
from bench.host import description
from bench.process import BenchError, clean_environment

COMMITTED = Path(__file__).parent / "instructions.json"
TOLERANCE = 0.03
BOUND = 600_000
WAVE = 32
_FEW, _MANY = 96, 2016  # whole waves of 32, so that both runs end on a full batch
_TIMEOUT_S = 900


def instructions(kind: str, count: int, wave: int) -> int:
    """What the whole process of the driver executes in user mode."""
    if not shutil.which("valgrind"):
        raise BenchError("valgrind is missing: apt-get install -y valgrind")
    command = [
        "valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null",
        sys.executable, "-m", "bench.driver", kind, str(count), str(wave),
    ]  # fmt: skip
    # libuv would try io_uring, which valgrind does not know.
    env = clean_environment(PYTHONHASHSEED="0", PYTHONPATH=str(REPOSITORY), UV_USE_IO_URING="0")
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_TIMEOUT_S, env=env, cwd=REPOSITORY
    )
    counted = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if done.returncode or not counted:
        said = [line for line in done.stderr.splitlines() if not re.match(r"[=-]{2}\d+", line)]
        raise BenchError("the driver failed:\n" + "\n".join(said[-15:]))
    return int(counted[1].replace(",", ""))


def per_create(kind: str = "hub", wave: int = WAVE) -> int:
    """Instructions per create: the difference of two runs, so that start-up falls out."""
    return round((instructions(kind, _MANY, wave) - instructions(kind, _FEW, wave)) / (_MANY - _FEW))


def judge(counted: int, committed: int | None) -> list[str]:
    """What is wrong with a count; nothing when it may pass."""
    wrong = []
    if counted > BOUND:
        wrong.append(f"{counted:,} instructions per create: the bound is {BOUND:,}")
    if committed is None:
        wrong.append("no figure is committed: run python -m bench.ci --update")
    elif abs(counted / committed - 1) > TOLERANCE:
        moved = f"{counted / committed - 1:+.1%} against the committed {committed:,}"
        wrong.append(f"{counted:,} instructions per create, {moved}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.ci", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", action="store_true", help="write the count down as the new figure")
    parser.add_argument(
        "--kind",
        choices=("hub", "naive", "payme"),
        default="hub",
        help="only the hub is judged (hub)",
    )
    parser.add_argument("--wave", type=int, default=WAVE, help="creates at once (32); only 32 is judged")
    options = parser.parse_args()
    try:
        counted = per_create(options.kind, options.wave)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    what = "flow of Payme's four calls" if options.kind == "payme" else "create"
    print(f"{options.kind}: {counted:,} instructions per {what}, {options.wave} at once")
    if options.kind != "hub" or options.wave != WAVE:
        return 0
    about = description()
    committed: dict[str, Any] = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    if options.update:
        COMMITTED.write_text(
            json.dumps({"instructions_per_create": counted, "counted_with": _relevant(about)}, indent=2)
            + "\n"
        )
        print(f"written to {COMMITTED.relative_to(REPOSITORY)}")
        return 0
    wrong = judge(counted, committed.get("instructions_per_create"))
    for line in wrong:
        print(line, file=sys.stderr)
    then = committed.get("counted_with", {})
    if wrong and then:
        for name, now in _relevant(about).items():
            if then.get(name) != now:
                print(f"  {name} was {then.get(name)}, is {now}", file=sys.stderr)
    return 1 if wrong else 0


def _relevant(about: dict[str, str]) -> dict[str, str]:
    """Versions that change a count; the machine does not."""
    return {
        name: value for name, value in about.items() if name not in ("cpu", "memory", "kernel", "tillgate")
    }


if __name__ == "__main__":
    sys.exit(main())
