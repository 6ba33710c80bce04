"""What an idle hub costs, and how soon it answers."""

from __future__ import annotations

import time

from bench.contestant import answers
from bench.figure import Figure, Outcome, Setup
from bench.hub import Hub, hub_command, hub_environment
from bench.process import Server, clean_environment, free_port
from bench.rounds import say

TITLE = "start-up time and idle memory"
_SETTLE_S = 3.0


def run(setup: Setup) -> Outcome:
    directory = setup.disk.directory("footprint")
    fresh: list[float] = []
    again: list[float] = []
    idle: list[float] = []
    for turn in range(setup.rounds):
        database = directory / f"{turn}.db"
        for times in (fresh, again):
            port = free_port()
            server = Server(
                "footprint", [*hub_command(), "up", "--sandbox"],
                clean_environment(**hub_environment(f"sqlite:///{database}", port)), directory, port=port,
            )  # fmt: skip
            times.append(server.wait_until(lambda port=port: answers(port, "/healthz"), every_s=0.005))  # type: ignore[misc]
            if times is again:
                time.sleep(_SETTLE_S)
                idle.append(server.rss_mib())
            server.stop()
    hub = Hub("footprint-loaded")
    hub.start(setup.disk)
    hub.measure(setup.seconds)
    after = hub.server.rss_mib()
    hub.finish()
    say(f"  new database {fresh[-1]:.2f} s, existing {again[-1]:.2f} s")
    say(f"  idle {idle[-1]:.0f} MiB, after load {after:.0f} MiB")
    return Outcome(
        [
            Figure("start until /healthz answers, new database", "disk", fresh, "s", 1.5, at_most=True),
            Figure("start until /healthz answers, existing database", "disk", again, "s", 1.5, at_most=True),
            # The bound is 90 MB; the kernel counts in KiB.
            Figure(
                "idle RSS",
                "disk",
                [mib * 1.048576 for mib in idle],
                "MB",
                90,
                at_most=True,
                note=f"after {setup.seconds:.0f} s of load {after * 1.048576:.0f} MB",
            ),
        ]
    )
