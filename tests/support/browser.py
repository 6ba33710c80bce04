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
    if found := _on_path() or _downloaded():
        return found
    raise NoBrowser("No Chromium was found. Run `make test` as root once: it installs one.")


def provide() -> Path:
    """`find`, after installing what is missing: Debian's packages as root, else Playwright's download."""
    packages = [
        *([] if _driver_starts() else ["libatomic1"]),  # its one library that a small Debian lacks
        *([] if _on_path() else ["chromium"]),
    ]
    if not packages or (packages == ["chromium"] and _downloaded()):
        return find()
    if os.geteuid() == 0 and shutil.which("apt-get"):
        # First choice, because Debian's browser brings the libraries that a bare machine lacks.
        print(f"browser: installing Debian's {' and '.join(packages)}, once", flush=True)
        if _run("apt-get", "-q", "update"):
            _run("apt-get", "-q", "install", "-y", "--no-install-recommends", *packages)
    elif packages == ["chromium"]:
        print("browser: downloading Playwright's chromium, once", flush=True)
        _run(sys.executable, "-m", "playwright", "install", "chromium")
    if not _driver_starts() or not (_on_path() or _downloaded()):
        raise NoBrowser(
            f"The tests of pages need a Chromium, and here is missing: {', '.join(packages)}."
            f" Run `make test` as root once, or `apt-get install {' '.join(packages)}`."
        )
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
        said = getattr(error, "stderr", None) or ""
        raise NoBrowser(f"{browser} does not start: {error} {said}".strip()) from error
    return done.stdout.strip()


def _on_path() -> Path | None:
    return next((Path(found) for name in NAMES if (found := shutil.which(name))), None)


def _downloaded() -> Path | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = Path(playwright.chromium.executable_path)
    return program if program.exists() else None


def _driver_starts() -> bool:
    """Whether the program by which Playwright drives any browser runs on this machine."""
    command = (sys.executable, "-m", "playwright", "--version")
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode == 0


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
