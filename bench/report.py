"""The results as a table for people and as JSON for everything else."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.figure import Figure
    from bench.rounds import Rounds

RESULTS = Path(__file__).parent / "results"


def number(value: float) -> str:
    if value >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


def figures_table(figures: list[Figure]) -> str:
    """One line per figure: the median, its spread over the rounds, and the bound."""
    rows: list[tuple[str, ...]] = [("figure", "where", "median", "rounds", "bound", "", "note")]
    for f in figures:
        unit = f" {f.unit}" if f.unit else ""
        spread = f"{number(min(f.values))} – {number(max(f.values))}" if len(f.values) > 1 else ""
        bound = "" if f.bound is None else f"{'≤' if f.at_most else '≥'} {number(f.bound)}"
        verdict = "" if f.bound is None else "**missed**" if f.missed else "ok"
        rows.append((f.name, f.where, number(f.value) + unit, spread, bound, verdict, f.note))
    return _markdown(rows, right=(2, 3))


def rounds_table(rounds: Rounds) -> str:
    """One line per contestant: medians over the kept rounds."""
    rows: list[tuple[str, ...]] = [(rounds.storage, "per s", "p50 ms", "p99 ms", "cpu s/1k", "pg cpu s/1k")]
    for name, row in sorted(rounds.table().items(), key=lambda item: -item[1]["rate"]):
        cpu = [f"{row[c]:.3f}" if c in row else "" for c in ("cpu_per_1k", "db_cpu_per_1k")]
        times = [number(row[c]) if c in row else "" for c in ("p50_ms", "p99_ms")]
        rows.append((name, f"{row['rate']:,.0f}", *times, *cpu))
    table = _markdown(rows, right=(1, 2, 3, 4, 5))
    kept = rounds.kept
    fsync = median(us for r in kept for us in r.fsync_us)
    about = f"{len(kept)} rounds kept, {len(rounds.dropped)} dropped; fsync {fsync:.0f} µs"
    about += f", load {median(r.load for r in kept):.1f}, steal at most {max(r.steal for r in kept):.1%}"
    return f"{table}\n{about}\n"


def _markdown(rows: list[tuple[str, ...]], right: tuple[int, ...] = ()) -> str:
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]

    def line(row: tuple[str, ...]) -> str:
        cells = [
            c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = [f"{'-' * (w - 1)}:" if i in right else "-" * w for i, w in enumerate(widths)]
    return "\n".join([line(rows[0]), f"| {' | '.join(rule)} |", *map(line, rows[1:])]) + "\n"


def write(
    host: dict[str, str],
    options: dict[str, Any],
    figures: list[Figure],
    rounds: list[Rounds],
    problems: dict[str, str],
) -> str:
    """Write `results/<time>.json`, `.md`, and `latest.*`; returns the text."""
    now = datetime.now(UTC)
    parts = [f"# {now:%Y-%m-%d %H:%M} UTC\n", ", ".join(f"{k} {v}" for k, v in host.items()) + "\n"]
    if figures:
        parts.append(figures_table(figures))
    parts += [rounds_table(r) for r in rounds if r.kept]
    parts += [f"**{name} failed:** {why}\n" for name, why in problems.items()]
    text = "\n".join(parts)
    found = {
        "at": now.isoformat(timespec="seconds"), "host": host, "options": options,
        "figures": [f.as_json() for f in figures], "rounds": [r.as_json() for r in rounds],
        "problems": problems,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    for stem in (f"{now:%Y%m%dT%H%M%SZ}", "latest"):
        (RESULTS / f"{stem}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        (RESULTS / f"{stem}.md").write_text(text)
    return text
