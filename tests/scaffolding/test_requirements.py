"""The pins are in step with what pyproject.toml asks for; `make lock` makes them so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN = PROJECT["project"]["dependencies"]
EXTRAS = [line for extra in PROJECT["project"].get("optional-dependencies", {}).values() for line in extra]
OTEL = PROJECT["project"]["optional-dependencies"]["otel"]
BUILD, DEV = PROJECT["dependency-groups"]["build"], PROJECT["dependency-groups"]["dev"]

PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[^ ]+).*\n(?P<rest>(?:^ .*\n)*)", re.MULTILINE)


@pytest.mark.parametrize(
    ("file", "declared"),
    [
        ("runtime", RUN),
        ("otel", RUN + OTEL),
        ("build", BUILD),
        ("dev", RUN + EXTRAS + BUILD + DEV),
    ],
)
def test_pins_are_what_is_declared(file: str, declared: list[str]) -> None:
    pins = list(PIN.finditer((ROOT / "requirements" / f"{file}.txt").read_text()))
    versions = {pin["name"]: pin["version"] for pin in pins}
    asked = {canonicalize_name(line.name): line for line in map(Requirement, declared)}

    # A pin says on whose account it is there; ours are exactly those that we declare.
    assert {pin["name"] for pin in pins if "tillgate (pyproject.toml" in pin["rest"]} == asked.keys()
    wrong = [str(line) for name, line in asked.items() if not line.specifier.contains(versions[name])]
    assert wrong == []


def test_every_pin_has_a_hash() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        pins = list(PIN.finditer(path.read_text()))
        assert pins
        assert [pin["name"] for pin in pins if "--hash=sha256:" not in pin["rest"]] == []


def test_what_runs_is_what_was_tested() -> None:
    """A library has one version in all files."""
    runtime, otel, build, dev = (
        {
            pin["name"]: pin["version"]
            for pin in PIN.finditer((ROOT / "requirements" / f"{name}.txt").read_text())
        }
        for name in ("runtime", "otel", "build", "dev")
    )
    assert runtime.items() <= otel.items()
    assert (otel | build).items() <= dev.items()
