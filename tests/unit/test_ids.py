"""Names that are unique, say when they were made, and cannot be guessed; digests that no two things share."""

from __future__ import annotations

import re

from hypothesis import assume, given
from hypothesis import strategies as st

from tillgate.store.ids import digest, new_id, now_ms

texts = st.lists(st.text(max_size=20), max_size=4)


def test_an_id_is_its_time_and_chance() -> None:
    made = new_id("pay_", 0x0123456789AB)
    assert re.fullmatch(r"pay_0123456789ab[0-9a-f]{20}", made)


def test_ids_sort_by_their_time() -> None:
    ids = [new_id("pay_", 1_790_000_000_000 + number) for number in range(1_000)]
    assert ids == sorted(ids)


def test_ids_of_one_moment_differ() -> None:
    assert len({new_id("pay_", 5) for _ in range(10_000)}) == 10_000


def test_the_clock_counts_milliseconds() -> None:
    assert 1_700_000_000_000 < now_ms() < 5_000_000_000_000


@given(texts)
def test_a_digest_is_sixteen_bytes_and_the_same_again(parts: list[str]) -> None:
    assert len(digest(*parts)) == 16
    assert digest(*parts) == digest(*parts)


@given(texts, texts)
def test_other_parts_have_another_digest(one: list[str], other: list[str]) -> None:
    assume(one != other)
    assert digest(*one) != digest(*other)


def test_parts_do_not_run_together() -> None:
    spellings = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), ("1:a", "b"), ("1", ":ab")]
    assert len({digest(*one) for one in spellings}) == len(spellings)


def test_half_a_character_has_a_digest_too() -> None:
    assert digest("\ud800") != digest("\udc00")
