"""Writes the pages that are made from the code: `python docs/generate.py`; with `--check` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import SecretStr

from tillgate.settings import Settings

HERE = Path(__file__).parent


def settings() -> str:
    lines = [
        "# Settings",
        "",
        "Read once at the start, from the environment. Every variable may also be given as a file: with",
        "`TILLGATE_SECRET_KEY_FILE=/run/secrets/key` the value is what is in that file. The table is made",
        "from the code (`python docs/generate.py`).",
        "",
        "| variable | default | what it does |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = field.default
        if default == "" or isinstance(default, SecretStr):
            shown = ""
        else:
            shown = f"`{str(default).lower() if isinstance(default, bool) else default}`"
        lines.append(f"| `TILLGATE_{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(lines) + "\n"


PAGES = {"settings.md": settings}


def main() -> int:
    stale = [name for name, make in PAGES.items() if not _same(HERE / name, make())]
    if "--check" in sys.argv:
        for name in stale:
            print(f"docs/{name} is not what the code says; run: python docs/generate.py")
        return 1 if stale else 0
    for name in stale:
        (HERE / name).write_text(PAGES[name](), encoding="utf-8")
        print(f"wrote docs/{name}")
    return 0


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
