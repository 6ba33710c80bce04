"""`python -m bench`: every figure, as a table on stdout and as JSON in bench/results/.

Exit status: 0 all bounds held (or --quick), 1 a bound was missed, 2 a figure could not be measured.
"""

from __future__ import annotations

import argparse
import sys

from bench import host, report
from bench.figure import Figure, Setup
from bench.figures import modules
from bench.process import BenchError, exit_cleanly_on_signals, stop_servers
from bench.rounds import Rounds, say


def main() -> int:
    found = modules()
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one short round of each, to see that all of it works: no verdict",
    )
    parser.add_argument("--only", metavar="NAMES", help=f"some of: {', '.join(found)}")
    parser.add_argument("--rounds", type=int, help="kept rounds per figure (5)")
    parser.add_argument("--seconds", type=float, help="of each contestant in each round (2)")
    parser.add_argument(
        "--storage", choices=("both", "disk", "shm"), default="both", help="for the creates (both)"
    )
    parser.add_argument("--payments", type=int, help="rows of the large database (5,000,000)")
    parser.add_argument(
        "--standin", action="store_true", help="floors and peers alone, on a schema of the hub's shape"
    )
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else [*found]
    if unknown := set(chosen) - found.keys():
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    if options.standin:
        chosen = ["creates"]
    exit_cleanly_on_signals()
    quick = options.quick
    setup = Setup(
        rounds=options.rounds or (1 if quick else 5),
        seconds=options.seconds or (1.0 if quick else 2.0),
        quick=quick,
        standin=options.standin,
        payments=options.payments or (50_000 if quick else 5_000_000),
        storages=("disk", "shm") if options.storage == "both" else (options.storage,),
    )
    figures: list[Figure] = []
    rounds: list[Rounds] = []
    problems: dict[str, str] = {}
    for name in chosen:
        say(f"{name}: {found[name].TITLE}")
        try:
            outcome = found[name].run(setup)
        except BenchError as error:
            # One figure that cannot be measured must not cost the others.
            problems[name] = str(error)
            say(f"  FAILED: {error}")
        else:
            figures += outcome.figures
            rounds += outcome.rounds
        finally:
            stop_servers()
    print(report.write(host.description(), vars(options), figures, rounds, problems))
    if problems:
        return 2
    return 1 if any(f.missed for f in figures) and not quick else 0


if __name__ == "__main__":
    sys.exit(main())
