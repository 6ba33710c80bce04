"""The fixtures every test may ask for, in `tests/` and in a provider's own folder: databases and a browser.

Loaded as a plugin (`-p support.fixtures` in pyproject.toml) rather than a `conftest.py`, whose fixtures would
end at its own directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import hypothesis
import pytest

from support import browser as browsers
from support.postgres import Run, Server, sweep
from tillgate.store import schema

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

RUN = pytest.StashKey[Run]()
# A developer's own settings must not decide what a test sees; these are said to the tests themselves.
KEPT = ("TILLGATE_TEST_", "TILLGATE_CRASH_")

# On a machine shared with other work a deadline per example measures the neighbours.
hypothesis.settings.register_profile("tillgate", deadline=None)
hypothesis.settings.load_profile("tillgate")


def pytest_configure(config: pytest.Config) -> None:
    for name in [name for name in os.environ if name.startswith("TILLGATE_") and not name.startswith(KEPT)]:
        del os.environ[name]
    if worker := getattr(config, "workerinput", None):
        config.stash[RUN] = Run(Path(worker["tillgate_run"]))
        return
    sweep()
    run, alive = Run.begin()
    config.stash[RUN] = run
    config.add_cleanup(lambda: os.close(alive))
    config.add_cleanup(run.end)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker where its run's directory is."""
    node.workerinput["tillgate_run"] = str(node.config.stash[RUN].directory)


@pytest.fixture(scope="session")
def pg_server_url(request: pytest.FixtureRequest) -> str:
    """The run's shared PostgreSQL, quick rather than durable; `TILLGATE_TEST_PG_URL` if that is set."""
    return os.environ.get("TILLGATE_TEST_PG_URL") or request.config.stash[RUN].shared("quick", durable=False)


@pytest.fixture(scope="session")
def durable_pg_server_url(request: pytest.FixtureRequest) -> str:
    """The same with `fsync` on, for tests that kill processes; `TILLGATE_TEST_PG_URL` if that is set."""
    return os.environ.get("TILLGATE_TEST_PG_URL") or request.config.stash[RUN].shared("durable", durable=True)


@pytest.fixture
def pg_url(pg_server_url: str) -> Iterator[str]:
    """A database of the test's own, empty: `postgresql://user:password@host:port/name`, dropped after."""
    with fresh_database(pg_server_url) as url:
        yield url


@pytest.fixture
def pg_till_url(pg_server_url: str, pg_template: str | None) -> Iterator[str]:
    """`pg_url` with this version's tables."""
    with fresh_database(pg_server_url, pg_template) as url:
        if pg_template is None:
            schema.upgrade(url)
        yield url


@pytest.fixture(scope="session")
def pg_template(request: pytest.FixtureRequest, pg_server_url: str) -> str | None:
    """The name of a database with this version's tables, to copy: migrating is most of what a small test
    would do. None on a server that outlives the run."""
    if os.environ.get("TILLGATE_TEST_PG_URL"):
        return None
    run, name = request.config.stash[RUN], "migrated"
    with run.locked():
        noted = run.directory / "template"
        if not noted.exists():
            _finish(_execute(pg_server_url, f"CREATE DATABASE {name} TEMPLATE template0"))
            schema.upgrade(urlunsplit(urlsplit(pg_server_url)._replace(path=f"/{name}")))
            noted.touch()
    return name


@pytest.fixture(scope="session")
def sqlite_template(request: pytest.FixtureRequest) -> Path:
    """A database file with this version's tables, to copy."""
    run = request.config.stash[RUN]
    with run.locked():
        made = run.directory / "migrated.db"
        if not made.exists():
            schema.upgrade(f"sqlite:///{made}.new")
            made.with_name(f"{made.name}.new").rename(made)
    return made


@pytest.fixture(scope="module")
def module_pg_url(pg_server_url: str) -> Iterator[str]:
    """One database for all tests of a module, which then must not trip over each other's rows."""
    with fresh_database(pg_server_url) as url:
        yield url


@pytest.fixture
def durable_pg_url(durable_pg_server_url: str) -> Iterator[str]:
    """`pg_url` on the server with `fsync` on."""
    with fresh_database(durable_pg_server_url) as url:
        yield url


@pytest.fixture
def own_pg(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A PostgreSQL of the test's own, durable and started (in a second), to `stop`, `kill` and `start`."""
    server = request.config.stash[RUN].own(durable=True)
    server.start()
    yield server
    server.stop("immediate")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """`sqlite:////…/x.db`; the file does not exist yet."""
    return f"sqlite:///{tmp_path}/x.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The test runs twice: on a file and on a `pg_till_url`, both with this version's tables."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("pg_till_url")
        return url
    url = request.getfixturevalue("sqlite_url")
    shutil.copyfile(request.getfixturevalue("sqlite_template"), url.removeprefix("sqlite:///"))
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """The test runs twice: on `sqlite_url` and on `pg_url`, without any table."""
    found: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "pg_url")
    return found


@contextlib.contextmanager
def fresh_database(server_url: str, template: str | None = None) -> Iterator[str]:
    """Make a database on a server, empty or as the template is, and drop it afterwards, also if connections
    to it are still open."""
    name = f"test_{secrets.token_hex(8)}"
    how = f"{template} STRATEGY file_copy" if template else "template0"
    _finish(_execute(server_url, f"CREATE DATABASE {name} TEMPLATE {how}"))
    try:
        yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    finally:
        _finish(_execute(server_url, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(url: str, statement: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url, timeout=30)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on a loop of its own in a thread, out of the way of the test's loop."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


@pytest.fixture
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """A headless Chromium with an empty profile, as Playwright gives it."""
    from playwright.async_api import async_playwright

    home = tmp_path_factory.mktemp("browser-home")
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=browsers.find(), args=list(browsers.FLAGS), env={**os.environ, "HOME": str(home)}
        )
        yield chromium
        await chromium.close()


@pytest.fixture
async def browser_page(browser: Browser) -> AsyncIterator[Page]:
    """An empty desktop page (1280 by 800). The test fails if a script on it throws."""
    page = await browser.new_page(viewport={"width": 1280, "height": 800})
    thrown: list[str] = []
    page.on("pageerror", lambda error: thrown.append(str(error)))
    yield page
    await page.close()
    assert thrown == []
