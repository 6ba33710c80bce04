"""A figure: one line of the table. And what all the modules in `bench/figures/` share."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import standin, storage
from bench.floors import Template
from bench.hub import learn_template
from bench.shape import learn

if TYPE_CHECKING:
    from bench.rounds import Rounds
    from bench.storage import Storage


@dataclass(frozen=True)
class Figure:
    """A measured value against its bound; `bound` None is told, not judged."""

    name: str
    where: str
    values: list[float]
    unit: str
    bound: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def missed(self) -> bool:
        if self.bound is None:
            return False
        return self.value > self.bound if self.at_most else self.value < self.bound

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"value": self.value, "missed": self.missed}


@dataclass
class Outcome:
    """What a module of `bench/figures/` brings back."""

    figures: list[Figure]
    rounds: list[Rounds] = field(default_factory=list)


@dataclass
class Setup:
    """How a run is to be done; `standin` puts a schema of the hub's shape in its place."""

    rounds: int = 5
    seconds: float = 2.0
    quick: bool = False
    standin: bool = False
    payments: int = 5_000_000
    storages: tuple[str, ...] = ("disk", "shm")
    _memories: dict[int, Storage] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def disk(self) -> Storage:
        return storage.disk()

    def memory(self, fsync_delay_us: int = 1000) -> Storage:
        if fsync_delay_us not in self._memories:
            self._memories[fsync_delay_us] = storage.memory(fsync_delay_us)
        return self._memories[fsync_delay_us]

    def stores(self) -> list[Storage]:
        return [self.disk if name == "disk" else self.memory() for name in self.storages]

    @cached_property
    def template(self) -> Template:
        """A migrated database and what a create writes: the hub's own."""
        if not self.standin:
            return learn_template(self.memory(100))
        database = self.memory(100).directory("standin") / "standin.db"
        standin.make(database)
        return Template(database, learn(database, lambda: standin.create(database)))
