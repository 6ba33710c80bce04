"""Records are copied and made of rows without naming their fields; nothing of them may be lost on the way."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, fields
from typing import Any

import pytest

from tillgate.domain.payment import Attempt, Closed, Payment, Refund, StandingOrder
from tillgate.domain.record import of_row, record, replace, row
from tillgate.spi import Fetched, HttpCall, HttpReply, Inbound, Invites, Reply, can


@row
class Visit:
    shop: str
    cups: int = 1
    note: str | None = None
    at: int


def test_a_copy_is_equal_and_another() -> None:
    first = Visit(shop="Kopi", at=5)
    second = replace(first, cups=2, note="to go")
    assert first == Visit(shop="Kopi", cups=1, note=None, at=5)
    assert second == Visit(shop="Kopi", cups=2, note="to go", at=5)
    assert replace(second) == second
    assert replace(second) is not second


def test_a_copy_takes_no_field_that_is_not_there() -> None:
    with pytest.raises(AttributeError):
        replace(Visit(shop="Kopi", at=5), cup=2)  # type: ignore[call-arg]


def test_a_row_is_in_the_order_of_the_fields() -> None:
    assert of_row(Visit, ("Kopi", 3, None, 9)) == Visit(shop="Kopi", cups=3, note=None, at=9)
    for wrong in (("Kopi", 3, None), ("Kopi", 3, None, 9, 9)):
        with pytest.raises(ValueError, match="values to unpack"):
            of_row(Visit, wrong)


@pytest.mark.parametrize("kind", [Payment, Attempt, Refund, StandingOrder])
def test_every_field_of_a_row_has_its_place(kind: type) -> None:
    names = [one.name for one in fields(kind)]
    made: Any = of_row(kind, names)
    assert [getattr(made, name) for name in names] == names
    copied = replace(made, version=7)
    assert [getattr(copied, name) for name in names] == [*names[:-1], 7]


def test_what_has_no_fields_or_is_no_record_is_copied_too() -> None:
    @record
    class Nothing:
        pass

    @dataclass(frozen=True)
    class Other:
        a: int = 1

    assert replace(Nothing()) == Nothing()
    assert replace(Other(), a=2) == Other(2)
    with pytest.raises(FrozenInstanceError):
        Other().a = 3  # type: ignore[misc]


def test_facts_can_be_taken_apart() -> None:
    match replace(Closed("failed"), reason="declined"):
        case Closed(why, reason, of_paid):
            assert (why, reason, of_paid) == ("failed", "declined", False)


def test_what_a_connector_can_is_asked_of_its_class() -> None:
    class Inviting:
        def invite(self, order: object) -> None: ...

    class Silent:
        pass

    for _ in range(2):  # found out, and remembered
        assert can(Inviting(), Invites)
        assert not can(Inviting(), Fetched)
        assert not can(Silent(), Invites)


def test_what_crosses_the_wire_shows_no_secret() -> None:
    """An exception's text, a log's field or a debugger may show a repr."""
    secret = {"authorization": "Basic s3cret"}
    for one in (
        Inbound("POST", "/in/acc_1", "token=s3cret", secret, b"s3cret", "127.0.0.1", 1),
        HttpCall("POST", "https://pay.example", secret, b"s3cret"),
        HttpReply(200, secret, b"s3cret"),
        Reply(200, b"s3cret"),
    ):
        assert "s3cret" not in repr(one) + str(one)
        assert replace(one) == one
    assert "/in/acc_1" in repr(Inbound("POST", "/in/acc_1", "", {}, b"", "127.0.0.1", 1))
