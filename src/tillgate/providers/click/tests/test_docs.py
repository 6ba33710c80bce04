"""`docs/click.md` says all of it: settings, codes and faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tillgate.providers.click.codes import NOTES
from tillgate.providers.click.config import Config
from tillgate.providers.click.simulator import FAULTS

PAGE = (Path(__file__).parents[5] / "docs" / "click.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*Config.__struct_fields__, *FAULTS])
def test_it_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("code", NOTES)
def test_every_code_is_documented(code: int) -> None:
    assert f"\n| {code} | " in PAGE
