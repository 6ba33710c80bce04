from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from support.commands import Commands, Done


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    with Commands() as loaded:
        yield loaded


@pytest.fixture
def tillgate(commands: Commands, tmp_path: Path) -> Callable[..., Done]:
    """`tillgate("merchant", "list", database_url=…)` in the test's own directory."""
    directory = tmp_path / "here"
    directory.mkdir()
    return partial(commands.run, directory)
