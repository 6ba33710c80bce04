"""`tillgate qr` as its user sees it: what is printed, where, and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tillgate.commands.qr import app

ACCOUNT = (
    "00020101021238570010A00000072701270006970403011300110123456780208QRIBFTTA530370454061800005802VN"
    "62340107NPS68690819thanh toan don hang63042E2E"
)
PAYNET = (
    "00020201021126410014A000000615000101065016640209123456789520499995303458540510.005802MY5909QRCSDNBHD"
    "6005BANGI6304343F"
)
MALFORMED = "00020101021138570010A00000072701270006970403011200110123456780208QRIBFTTA53037045802VN6304F4E5"


def run(*arguments: str, stdin: str | bytes | None = None) -> Any:
    return CliRunner().invoke(app, arguments, input=stdin)


def test_decode_prints_who_is_paid_and_every_field() -> None:
    done = run("decode", ACCOUNT)

    assert done.exit_code == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for line in ("profile vietqr", "amount 180000", "currency VND", "38.01.01 account or card 0011012345678"):
        assert line in lines


def test_decode_as_json_says_the_same_to_a_program() -> None:
    done = run("decode", "--json", ACCOUNT)

    said = json.loads(done.stdout)
    assert done.exit_code == 0
    assert (said["kind"], said["profile"], said["dynamic"], said["amount_minor"]) == (
        "emv",
        "vietqr",
        True,
        180000,
    )
    assert said["payees"] == [
        {
            "tag": "38",
            "scheme": "vietqr",
            "guid": "A000000727",
            "acquirer": "970403",
            "account": "0011012345678",
            "service": "QRIBFTTA",
        }
    ]
    assert said["fields"]["62"] == {"01": "NPS6869", "08": "thanh toan don hang"}


def test_what_decode_prints_as_fields_encode_takes_back() -> None:
    fields = json.loads(run("decode", "--json", ACCOUNT).stdout)["fields"]
    done = run("encode", "fields", "-", stdin=json.dumps(fields))
    assert done.stdout.strip() == ACCOUNT


def test_a_code_comes_from_a_pipe_with_the_line_end_of_a_scanner() -> None:
    for arguments in (["decode", "--json"], ["decode", "-", "--json"]):
        assert json.loads(run(*arguments, stdin=ACCOUNT + "\r\n").stdout)["crc"] == "2E2E"
    assert run("lint", "-", stdin=ACCOUNT + "\n").exit_code == 0


def test_a_upi_link_is_decoded_too() -> None:
    link = "upi://pay?pa=nadeem@npci&pn=nadeem%20chinna&am=10&cu=INR"
    assert json.loads(run("decode", "--json", link).stdout)["payee_vpa"] == "nadeem@npci"
    assert "nadeem chinna" in run("decode", link).stdout


def test_a_refused_code_says_why_on_the_error_stream_and_exits_1() -> None:
    done = run("decode", MALFORMED)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: tag 38.01: ")
    assert "Traceback" not in done.stderr


def test_a_refused_code_is_json_when_json_was_asked_for() -> None:
    done = run("decode", "--json", MALFORMED)
    assert done.exit_code == 1
    assert json.loads(done.stdout)["path"] == "38.01"


def test_lint_lists_findings_and_fails_on_an_error() -> None:
    done = run("lint", MALFORMED)
    assert done.exit_code == 1
    assert "38.01" in done.stdout

    said = json.loads(run("lint", "--json", MALFORMED).stdout)
    assert said["ok"] is False
    assert [(f["severity"], f["path"]) for f in said["findings"]] == [("error", "38.01")]
    assert set(said["findings"][0]) == {"severity", "path", "message", "source"}


def test_lint_of_a_good_code_is_ok() -> None:
    assert run("lint", ACCOUNT).exit_code == 0
    assert json.loads(run("lint", "--json", ACCOUNT).stdout) == {"ok": True, "findings": []}


def test_names_in_a_code_cannot_steer_the_terminal() -> None:
    link = "upi://pay?pa=a@b&pn=%1b[31m%E2%80%AE[bold]x"
    for command in ("decode", "lint"):
        for options in ([], ["--json"]):
            done = run(command, *options, link)
            assert "\x1b" not in done.stdout
            assert "\u202e" not in done.stdout
    assert "[bold]x" in run("decode", link).stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            (
                "vietqr bank_bin=970403 account=0011012345678 amount=180000 bill=NPS6869"
                " purpose=thanh_toan_don_hang"
            ),
            ACCOUNT,
        ),
        (
            (
                "duitnow acquirer_id=501664 merchant_id=123456789 merchant_name=QRCSDNBHD city=BANGI"
                " mcc=9999 amount=10"
            ),
            PAYNET,
        ),
        (
            "upi vpa=a@b name=Shop amount=10.5 lock_amount=yes",
            "upi://pay?pa=a@b&pn=Shop&am=10.50&mam=10.50&cu=INR",
        ),
    ],
)
def test_encode_writes_the_published_codes(arguments: str, text: str) -> None:
    words = [word.replace("_", " ") if word.startswith("purpose=") else word for word in arguments.split()]
    assert run("encode", *words).stdout.strip() == text
    assert json.loads(run("encode", "--json", *words).stdout) == {"text": text, "files": []}


def test_encode_takes_single_fields_by_their_path() -> None:
    done = run("encode", "fields", "01=11", "26.00=XX.OTHER", "26.01=7", "59=a=b")
    assert done.stdout.startswith("000201010211261700" + "08XX.OTHER01017" + "5903a=b" + "6304")


def test_encode_draws_what_it_prints(tmp_path: Path) -> None:
    png, svg = tmp_path / "code.png", tmp_path / "code.svg"
    done = run("encode", "upi", "vpa=a@b", "name=Shop", "--png", str(png), "--svg", str(svg), "--scale", "2")

    assert done.exit_code == 0
    assert png.read_bytes().startswith(b"\x89PNG")
    assert svg.read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["encode", "vietqr"], 2, "missing: bank_bin, account"),
        (["encode", "vietqr", "bank_bin=970403", "account=1", "amuont=1"], 2, "no such name: 'amuont'"),
        (["encode", "vietqr", "bank_bin=970403", "account=1", "amount=1.5"], 1, "VND"),
        (["encode", "vietqr", "bank_bin=970403", "account=1", "amount=ten"], 1, "not an amount"),
        (["encode", "vietqr", "bank_bin=970403", "account=1", "dynamic=1"], 2, "yes or no"),
        (["encode", "vietqr", "bank_bin"], 2, "NAME=VALUE"),
        (["encode", "vietqr", "bank_bin=1", "bank_bin=2"], 2, "twice"),
        (["encode", "pix"], 2, "no such kind"),
        (["encode", "fields"], 2, "TAG=VALUE"),
        (["encode", "fields", "26=x", "26.00=y"], 2, "both as text and as a template"),
        (["encode", "fields", "26.00=y", "26=x"], 2, "both as text and as a template"),
        (["encode", "fields", "63=0000"], 1, "checksum"),
        (["encode", "upi", "vpa=a@b", "name=x", "--png", "/nonexistent/x.png"], 1, "cannot write"),
        (["encode", "upi", "vpa=a@b", "name=x", "--png", "/tmp/x.png", "--scale", "99"], 1, "scale"),
        (["decode", ""], 1, "empty"),
        (["lint", ""], 1, "empty"),
    ],
)
def test_a_mistake_is_explained(arguments: list[str], code: int, says: str) -> None:
    done = run(*arguments)
    assert done.exit_code == code
    assert says in done.stderr + done.stdout
    as_json = run(*arguments, "--json")
    assert as_json.exit_code == code
    assert isinstance(json.loads(as_json.stdout), dict)


@pytest.mark.parametrize("stdin", [b"\xff\xfe", b"x" * 9000, b""])
def test_input_that_is_no_code_is_refused(stdin: bytes) -> None:
    for arguments in (["decode"], ["lint"], ["encode", "fields", "-"]):
        assert run(*arguments, stdin=stdin).exit_code == 1


@pytest.mark.parametrize("stdin", ["[]", "5", '{"59": 5}', '{"59": [1]}', "{", "[" * 8000])
def test_json_that_is_no_fields_is_refused(stdin: str) -> None:
    done = run("encode", "fields", "-", stdin=stdin)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")


def test_the_group_loads_nothing_heavy_until_it_runs() -> None:
    heavy = ("segno", "rich.table", "tillgate.qr", "tillgate.domain")
    program = f"import sys, tillgate.commands.qr; print([m for m in {heavy!r} if m in sys.modules])"
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert done.stdout.strip() == "[]"
