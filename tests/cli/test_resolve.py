"""`tillgate resolve`: what it refuses. That it settles is shown where a kiosk's payment is unknown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from support.commands import Done


def test_a_word_that_cannot_be_taken_is_refused_clearly(
    tillgate: Callable[..., Done], sqlite_url: str
) -> None:
    shop = partial(tillgate, database_url=sqlite_url, sandbox=1)
    assert shop("migrate").returncode == 0
    assert shop("merchant", "create", "shop").returncode == 0
    why = ["--reason", "the slip is in the drawer"]
    for arguments, code, said in (
        (["pay_none", "paid", *why], 1, "there is no payment pay_none"),
        (["A-17", "paid", *why, "--merchant", "nobody"], 1, "there is no merchant named nobody"),
        (["A-17", "perhaps", *why], 1, "paid, failed or accept"),
        (["A-17", "paid", "--reason", "a\x1b[2J"], 1, "printable"),
        (["A-17", "paid", "--reason", "x" * 301], 1, "1 to 300"),
        (["A-17", "paid", *why, "--by", ""], 1, "--by"),
        (["A-17", "paid"], 2, "--reason"),
    ):
        done = shop("resolve", *arguments)
        assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (code, True, False), done
