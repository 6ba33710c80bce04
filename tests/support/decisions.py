"""Commands for tests of the journal, made of functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tillgate.store.book import Needs, Plan


@dataclass(frozen=True)
class Does:
    """A command made of a function."""

    merchant_id: str
    decision: Callable[[Plan], Any]
    needed: Needs = field(default_factory=Needs)

    def needs(self) -> Needs:
        return self.needed

    def decide(self, plan: Plan) -> Any:
        return self.decision(plan)
