"""`@record`: a dataclass that the type checker holds frozen, without paying for that at run time.

A frozen dataclass sets each field through `object.__setattr__`, which costs more than everything else that is
done to make one; a payment has thirty fields, and opening one makes a dozen records. Assigning to a field is
an error to mypy, in our code and in our users'.

`replace` and `of_row` make a record from another and from a row without giving each field by its name: five
and twenty times quicker than `dataclasses.replace` and a call with thirty names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar, dataclass_transform

T = TypeVar("T")

_COPY: Final[dict[type, Callable[[Any], Any]]] = {}
_MAKE: Final[dict[type, Callable[[Sequence[Any]], Any]]] = {}


def _learn(kind: type[T]) -> type[T]:
    """Write down how one of a kind is copied, and made of its values: assignments, as the class would be
    spelled out by hand. `__post_init__` is not asked again."""
    names = [one.name for one in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if not names:
        return kind
    copies = "".join(f"    made.{name} = one.{name}\n" for name in names)
    given = ", ".join(f"made.{name}" for name in names)
    known: dict[str, Any] = {"new": object.__new__, "kind": kind}
    lines = (
        f"def copy(one):\n    made = new(kind)\n{copies}    return made\n"
        f"def make(values):\n    made = new(kind)\n    {given}, = values\n    return made\n"
    )
    exec(lines, known)  # noqa: S102 - of the names of fields alone, as dataclasses does
    _COPY[kind], _MAKE[kind] = known["copy"], known["make"]
    return kind


def of_row(kind: type[T], values: Sequence[Any]) -> T:
    """A record from all its values, in the order of its fields. Raises `ValueError` for another number."""
    made: T = _MAKE[kind](values)
    return made


if TYPE_CHECKING:
    from dataclasses import replace as replace

    @dataclass_transform(frozen_default=True, field_specifiers=(field,))
    def record(cls: type[T]) -> type[T]: ...

    @dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
    def row(cls: type[T]) -> type[T]: ...

else:

    def record(cls):
        return _learn(dataclass(slots=True)(cls))

    def row(cls):
        """A record whose fields are given by name only: a row of a table."""
        return _learn(dataclass(slots=True, kw_only=True)(cls))

    def replace(one, /, **changes):
        """A copy with some fields changed; of any dataclass."""
        copy = _COPY.get(type(one))
        if copy is None:
            return dataclasses.replace(one, **changes)
        made = copy(one)
        for name, value in changes.items():
            setattr(made, name, value)
        return made
