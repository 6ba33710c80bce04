"""Fixtures: a real kiosk on this test's own journal."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from tillgate.providers.mobypay.tests.kit import Bench, OpenBench, open_bench


@pytest.fixture
def bench_at(tmp_path: Path) -> OpenBench:
    """Opens a kiosk, with changes to its configuration; opened again, it is a restart."""
    return partial(open_bench, tmp_path / "kiosk.db")


@pytest.fixture
async def bench(bench_at: OpenBench) -> AsyncIterator[Bench]:
    async with bench_at() as opened:
        yield opened
