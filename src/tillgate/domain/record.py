"""`@record`: a dataclass that the type checker holds frozen, without paying for that at run time.

A frozen dataclass sets each field through `object.__setattr__`, which costs more than everything else that is
done to make one; a payment has thirty fields, and opening one makes a dozen records. Assigning to a field is
an error to mypy, in our code and in our users'.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, dataclass_transform

T = TypeVar("T")

if TYPE_CHECKING:

    @dataclass_transform(frozen_default=True, field_specifiers=(field,))
    def record(cls: type[T]) -> type[T]: ...

    @dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
    def row(cls: type[T]) -> type[T]: ...

else:

    def record(cls):
        return dataclass(slots=True)(cls)

    def row(cls):
        """A record whose fields are given by name only: a row of a table."""
        return dataclass(slots=True, kw_only=True)(cls)
