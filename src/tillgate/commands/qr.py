"""`tillgate qr`: read, check and write payment codes at a terminal.

Exit code 0 when all is well, 1 for a code that is refused, 2 for a command that makes no sense. With `--json`
every outcome, an error too, is one JSON document on standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from tillgate.qr import QrError

app = typer.Typer(name="qr", help="Read, check and write payment QR codes.", no_args_is_help=True)

MAX_INPUT: Final = 8192

_CURRENCY: Final = {"qris": "IDR", "sandbox": "IDR", "duitnow": "MYR", "vietqr": "VND", "upi": "INR"}

_Text = Annotated[
    str | None,
    typer.Argument(metavar="[TEXT]", help="What a scanner read. Absent or '-': read standard input."),
]
_Json = Annotated[bool, typer.Option("--json", help="One JSON document instead of a table.")]


@app.command()
def decode(text: _Text = None, as_json: _Json = False) -> None:
    """Say what a code asks for: who is paid, how much, and every field.

    Takes EMVCo codes (DuitNow, QRIS, VietQR, UzQR, Bharat QR and others), UPI links, and codes in a Paynet
    link.
    """
    from tillgate.qr import Qr, QrError, outline, read

    try:
        code = read(_input(text, as_json))
    except QrError as error:
        _refuse(error, as_json)
    if as_json:
        _print_json(code.as_dict())
        return
    summary = _table("", "")
    for name, value in code.as_dict().items():
        if value is not None and not isinstance(value, list | dict):
            shown = ("yes" if value else "no") if isinstance(value, bool) else str(value)
            summary.add_row(name.replace("_", " "), _shown(shown))
    _print(summary)
    fields = _table("tag", "name", "value") if isinstance(code, Qr) else _table("parameter", "value")
    rows: list[tuple[str, ...]] = [*outline(code)] if isinstance(code, Qr) else [*code.params]
    for row in rows:
        fields.add_row(*map(_shown, row))
    _print(fields)


@app.command()
def lint(text: _Text = None, as_json: _Json = False) -> None:
    """List everything that is wrong or odd about a code. Exit code 1 if anything is an error."""
    from tillgate.qr import Severity
    from tillgate.qr import lint as check

    findings = check(_input(text, as_json))
    failed = any(f.severity is Severity.ERROR for f in findings)
    if as_json:
        _print_json({"ok": not failed, "findings": [f.as_dict() for f in findings]})
    elif findings:
        table = _table("severity", "where", "what", "source")
        for f in findings:
            table.add_row(f.severity, _shown(f.path), _shown(f.message), f.source)
        _print(table)
    else:
        typer.echo("nothing to report")
    if failed:
        raise typer.Exit(1)


@app.command()
def encode(
    kind: Annotated[str, typer.Argument(help="qris, duitnow, vietqr, upi, sandbox, or fields.")],
    values: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]...", help="What goes into it; none: list the names."),
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Also draw it into this PNG file.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Also draw it into this SVG file.")] = None,
    scale: Annotated[int, typer.Option(help="Pixels to a module in the PNG.")] = 8,
    as_json: _Json = False,
) -> None:
    """Write a code and print it.

    Amounts are decimal text in the scheme's currency: `tillgate qr encode vietqr bank_bin=970403
    account=0011012345678 amount=180000`. With `fields`, names are tag paths (`53=360
    26.00=ID.CO.EXAMPLE.WWW`), or '-' takes a JSON object as `decode --json` prints it under "fields" from
    standard input.
    """
    from tillgate import qr

    try:
        text = _fields(values or [], as_json) if kind == "fields" else _built(kind, values or [], as_json)
        drawn = [(png, qr.png(text, scale))] if png else []
        if svg:
            drawn.append((svg, qr.svg(text).encode()))
    except qr.QrError as error:
        _refuse(error, as_json)
    for path, data in drawn:
        try:
            path.write_bytes(data)
        except OSError as error:
            _fail(f"cannot write {path}: {error.strerror}", as_json)
    if as_json:
        _print_json({"text": text, "files": [str(path) for path, _ in drawn]})
    else:
        typer.echo(text)


def _built(kind: str, values: list[str], as_json: bool) -> str:
    from inspect import signature

    from tillgate import qr

    builders: Mapping[str, Any] = {
        "qris": qr.qris,
        "duitnow": qr.duitnow,
        "vietqr": qr.vietqr,
        "upi": qr.upi_link,
        "sandbox": qr.sandbox_qris,
    }
    if kind not in builders:
        _fail(f"no such kind of code; there are {', '.join(builders)} and fields", as_json, code=2)
    parameters = signature(builders[kind]).parameters
    names = {name.removesuffix("_minor"): p for name, p in parameters.items()}
    required = [name for name, p in names.items() if p.default is p.empty]
    given = _pairs(values, as_json)
    unknown, missing = [n for n in given if n not in names], [n for n in required if n not in given]
    if unknown or missing:
        problem = f"no such name: {unknown[0]!a}" if unknown else f"missing: {', '.join(missing)}"
        optional = ", ".join(name for name in names if name not in required) or "nothing else"
        takes = f"{kind} takes {', '.join(required)} and may take {optional}"
        _fail(f"{problem}; {takes}", as_json, code=2)
    arguments: dict[str, Any] = {}
    for name, text in given.items():
        parameter = names[name]
        if parameter.name.endswith("_minor"):
            arguments[parameter.name] = qr.parse_amount(text, _CURRENCY[kind], name).minor
        elif "bool" in str(parameter.annotation):
            if text not in ("yes", "no"):
                _fail(f"{name} is yes or no", as_json, code=2)
            arguments[parameter.name] = text == "yes"
        else:
            arguments[parameter.name] = text
    return str(builders[kind](**arguments))


def _fields(values: list[str], as_json: bool) -> str:
    from tillgate import qr

    if values == ["-"]:
        try:
            tree = json.loads(_input("-", as_json))
        except (ValueError, RecursionError):
            _fail("standard input is not JSON", as_json)
        if not isinstance(tree, dict):
            _fail("standard input is not a JSON object", as_json)
        return qr.encode(tree)
    if not values:
        _fail("give fields as TAG=VALUE, such as 53=360", as_json, code=2)
    fields: dict[str, Any] = {}
    for path, value in _pairs(values, as_json).items():
        *parents, tag = path.split(".")
        inner = fields
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                _fail(f"{parent!a} is given both as text and as a template", as_json, code=2)
        if tag in inner:
            _fail(f"{path!a} is given both as text and as a template", as_json, code=2)
        inner[tag] = value
    return qr.encode(fields)


def _pairs(values: list[str], as_json: bool) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in values:
        name, equals, value = item.partition("=")
        if not equals:
            _fail(f"expected NAME=VALUE, not {ascii(item)[:60]}", as_json, code=2)
        if name in pairs:
            _fail(f"{ascii(name)[:60]} is given twice", as_json, code=2)
        pairs[name] = value
    return pairs


def _input(text: str | None, as_json: bool) -> str:
    if text not in (None, "-"):
        assert text is not None
        return text.strip(" \t\r\n")
    if sys.stdin.isatty() and text is None:
        _fail("give a code, or '-' and type one", as_json, code=2)
    data = sys.stdin.buffer.read(MAX_INPUT + 1)
    if len(data) > MAX_INPUT:
        _fail(f"standard input has more than {MAX_INPUT} bytes", as_json)
    try:
        return data.decode().strip(" \t\r\n")
    except UnicodeDecodeError:
        _fail("standard input is not UTF-8", as_json)


def _shown(text: str) -> str:
    """Names in a code are anyone's text: what could steer a terminal or turn the order is escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _table(*headers: str) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, show_header=any(headers))
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def _print(table: Table) -> None:
    from rich.console import Console

    Console(markup=False, highlight=False, emoji=False).print(table)


def _print_json(document: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(document, indent=2))


def _refuse(error: QrError, as_json: bool) -> NoReturn:
    if as_json:
        _print_json({"error": error.message, "path": error.path, "source": error.source})
    else:
        typer.echo(f"error: {error}", err=True)
    raise typer.Exit(1)


def _fail(message: str, as_json: bool, code: int = 1) -> NoReturn:
    if as_json:
        _print_json({"error": message, "path": "", "source": "tillgate"})
    else:
        typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)
