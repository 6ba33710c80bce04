"""The Chromium that the page tests drive: found, else installed, else a clear error; never a skip.

`make test` runs this file before pytest, so that installing it (as root, from Debian) is done once and seen.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The last five keep a browser on a closed network from looking up its maker's hosts at every start.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
INSTALL_TIMEOUT_S = 600


class NoBrowser(Exception):
    """No Chromium can be found here; the message says what to do."""


def find() -> Path:
    """The browser's program: one on PATH, else Playwright's earlier download. Raises `NoBrowser`."""
    for name in NAMES:
        if found := shutil.which(name):
            return Path(found)
    if (own := _playwrights_own()).exists():
        return own
    raise NoBrowser(
        "No Chromium was found. Run `make test` as root, which installs Debian's;"
        " or `apt-get install chromium`; or `.venv/bin/playwright install --with-deps chromium`."
    )


def provide() -> Path:
    """`find`, after installing what is missing: Debian's package as root, else Playwright's download."""
    try:
        return find()
    except NoBrowser:
        pass
    if os.geteuid() == 0 and shutil.which("apt-get"):
        # First choice, because Debian's package brings the libraries that a bare machine lacks.
        print("browser: installing Debian's chromium, once", flush=True)
        if _run("apt-get", "-q", "update") and _run(
            "apt-get", "-q", "install", "-y", "--no-install-recommends", "chromium"
        ):
            return find()
    print("browser: downloading Playwright's chromium, once", flush=True)
    _run(sys.executable, "-m", "playwright", "install", "chromium")
    return find()


def version(browser: Path) -> str:
    """What the browser says of itself. Raises `NoBrowser` if it does not even start."""
    try:
        done = subprocess.run(
            [browser, "--version"],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NoBrowser(
            f"{browser} does not start: {error} {getattr(error, 'stderr', None) or ''}"
        ) from error
    return done.stdout.strip()


def _playwrights_own() -> Path:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return Path(playwright.chromium.executable_path)


def _run(*command: str) -> bool:
    """Whether the command succeeded; what it says is shown only if it did not, because it is long."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        print(f"browser: {' '.join(command)}: {error}", flush=True)
        return False
    if done.returncode != 0:
        print(f"browser: {' '.join(command)} failed:\n{done.stdout[-2000:]}", flush=True)
    return done.returncode == 0


def main() -> int:
    try:
        browser = provide()
        print(f"browser: {browser} ({version(browser)})", flush=True)
    except NoBrowser as error:
        print(f"browser: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
