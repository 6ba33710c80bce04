"""The house rules that no reader should have to remember: who may import whom, and what no file may hold."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "tillgate"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if "tests" not in path.relative_to(SOURCE).parts)

MODULE_LINES = 450
# Only these may speak to the person at the terminal; everything else logs or answers.
TALKS_TO_A_TERMINAL = re.compile(r"^(cli|commands|demo|__main__)(\.py$|/|_)")
# The program without its cache, which concurrent runs would share.
LINT_IMPORTS = "from importlinter import cli; raise SystemExit(cli.lint_imports(no_cache=True))"
# Spelled in pieces, so that this file does not hold them.
REGISTRIES = re.compile("|".join(("py" + r"pi\.org", "python" + "hosted", "npm" + r"js\.(com|org)")))
SOMEONES_MACHINE = re.compile(r"(?<![\w.$}])/(?:home|Users)/\w+/|(?<![\w.$}])/(?:ro" + "ot|wo" + r"rk)/\w")


def test_the_import_contracts_are_kept() -> None:
    """The contracts are in pyproject.toml, `[tool.importlinter]`."""
    done = run("-c", LINT_IMPORTS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "statement", "contract"),
    [
        ("store/journal", "import tillgate.hub", "Imports point down only"),
        ("webhooks", "from tillgate import settings", "Imports point down only"),
        ("spi", "from tillgate.schemas import A", "Imports point down only"),
        ("nobodys_layer", "", "not listed as layers"),
        (
            "providers/a/connector",
            "from tillgate.providers.b import connector",
            "Providers do not know each other",
        ),
        ("providers/a/simulator", "from . import connector", "A simulator shares no code"),
        ("providers/a/simulator", "from tillgate.domain.money import A", "A simulator shares no code"),
        (
            "providers/a/simulator",
            "import tillgate.schemas",
            "A simulator shares no code",
        ),  # it uses the domain
        ("providers/a/connector", "import asyncio", "A connector is pure"),
        ("providers/a/connector", "from . import server", "A connector is pure"),  # it uses a socket
        ("domain/money", "import time", "The domain has no clock"),
        ("domain/money", "import msgspec", "The domain has no clock"),
        ("hub", "def late():\n    import sqlalchemy.orm", "Only store and embed speak SQL"),
        ("__init__", "import sqlite3", "Only store and embed speak SQL"),
    ],
)
def test_each_contract_notices_what_it_forbids(
    tmp_path: Path, module: str, statement: str, contract: str
) -> None:
    """On a small stand-in for the package: lawful as it is, and with one unlawful line reported."""
    house = {
        "__init__": "", "domain/__init__": "", "domain/money": "", "spi": "from tillgate.domain import money",
        "schemas": "import tillgate.domain", "settings": "", "webhooks": "", "embed": "import sqlalchemy.orm",
        "store/__init__": "import sqlalchemy", "store/journal": "import sqlite3, asyncpg, tillgate.embed",
        "providers/__init__": "", "providers/a/__init__": "", "providers/a/connector": "import tillgate.spi",
        "providers/a/simulator": "import aiohttp", "providers/a/server": "import socket",
        "providers/b/__init__": "", "providers/b/connector": "import tillgate.domain.money",
        "providers/b/tests/__init__": "from tillgate.providers.a import connector; import sqlalchemy",
        "hub": "from tillgate.store import journal", "cli": "import tillgate.hub",
    }  # fmt: skip
    for name, text in house.items():
        path = tmp_path / "tillgate" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    lawful = run("-c", LINT_IMPORTS, path=tmp_path)
    assert lawful.returncode == 0, lawful.stdout + lawful.stderr

    (tmp_path / "tillgate" / f"{module}.py").write_text(f"{house.get(module, '')}\n{statement}\n")

    unlawful = run("-c", LINT_IMPORTS, path=tmp_path)
    assert unlawful.returncode == 1
    assert contract in unlawful.stdout.partition("Broken contracts")[2]


@pytest.mark.parametrize("module", ["tillgate", "tillgate.domain"])
def test_importing_the_library_loads_no_framework(module: str) -> None:
    heavy = ("fastapi", "starlette", "sqlalchemy", "aiohttp", "typer", "pydantic", "uvicorn")
    done = run("-c", f"import sys, {module}; print(*[name for name in {heavy!r} if name in sys.modules])")
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_the_domain_uses_the_standard_library_only() -> None:
    foreign = [
        f"{place}: {name}"
        for path in MODULES
        if path.is_relative_to(SOURCE / "domain")
        for place, name in imports(path)
        if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith("tillgate.domain")
    ]
    assert foreign == []


def test_no_float_touches_money() -> None:
    """Amounts are exact: whole numbers of minor units, parsed from and printed as text."""
    assert [
        place for path in MODULES if path.is_relative_to(SOURCE / "domain") for place in calls(path, "float")
    ] == []


def test_only_the_terminal_programs_print() -> None:
    quiet = [path for path in MODULES if not TALKS_TO_A_TERMINAL.match(str(path.relative_to(SOURCE)))]
    assert [place for path in quiet for place in calls(path, "print")] == []


def test_a_module_fits_in_the_head() -> None:
    long = {str(path.relative_to(ROOT)): lines(path) for path in MODULES if lines(path) > MODULE_LINES}
    assert long == {}, f"split by use case; {MODULE_LINES} lines at most"


def test_no_file_names_a_registry_or_someones_machine() -> None:
    """Where packages come from and where a checkout lies is for each machine to say."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in own_files()
        for number, line in enumerate(path.read_text(errors="ignore").splitlines(), 1)
        if REGISTRIES.search(line) or SOMEONES_MACHINE.search(line)
    ]
    assert found == []


def run(*arguments: str, path: Path = ROOT / "src") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Where, and which module, absolutely named."""
    package = path.relative_to(ROOT / "src").with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            yield from ((place, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield place, ".".join((*base, *filter(None, [node.module])))


def calls(path: Path, name: str) -> Iterator[str]:
    """Where a function is called by this bare name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield f"{path.relative_to(ROOT)}:{node.lineno}"


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def own_files() -> Iterator[Path]:
    """The text files of this checkout, committed or about to be, but for other people's libraries."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if name and "vendor" not in path.parts and path.is_file() and b"\0" not in path.read_bytes()[:8192]:
            yield path
