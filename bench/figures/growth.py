"""Creates on a database that already holds five million payments, against an empty one.

The rows are written by the C floor into the hub's own migrated schema, in tmpfs: bulk writing would spend a
shared disk's burst budget for everyone. Flushes take 100 µs, so that what is left to see is the b-trees.
"""

from __future__ import annotations

from bench.figure import Figure, Outcome, Setup
from bench.floors import bulk_load
from bench.host import available_gib
from bench.hub import Hub
from bench.process import BenchError
from bench.rounds import interleave, say

TITLE = "creates on a large database"
_TRIAL = 20_000
_ROOM = 0.7  # of the memory that is free


def run(setup: Setup) -> Outcome:
    storage = setup.memory(100)
    loaded = storage.directory("loaded") / "loaded.db"
    bulk_load(setup.template, loaded, _TRIAL)
    bytes_each = loaded.stat().st_size / _TRIAL
    gib = bytes_each * setup.payments / 2**30
    if gib > available_gib() * _ROOM:
        raise BenchError(
            f"{setup.payments:,} payments need {gib:.1f} GiB of tmpfs: pass --payments with fewer"
        )
    say(f"  loading {setup.payments:,} payments, about {gib:.1f} GiB")
    loaded.unlink()
    said = bulk_load(setup.template, loaded, setup.payments)
    say(f"  loaded in {said['seconds']:.0f} s ({bytes_each:.0f} bytes each)")
    empty, large = Hub("hub, empty"), Hub("hub, loaded", database=loaded)
    done = interleave([empty, large], storage, rounds=setup.rounds, seconds=setup.seconds)
    large.file.unlink()  # its gigabytes are wanted back before the next figure
    name = f"create rate at {setup.payments:,} payments / empty"
    note = f"{bytes_each:.0f} bytes per payment"
    return Outcome(
        [Figure(name, done.storage, done.ratios(large.name, empty.name), "x", 0.55, note=note)], [done]
    )
