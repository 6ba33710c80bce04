"""How much one caller may ask of one process."""

from __future__ import annotations

import math
from collections import OrderedDict
from time import monotonic
from typing import Final

from tillgate.domain.errors import TooManyRequests

_CALLERS: Final = 50_000


class Limited(TooManyRequests):
    """Too many requests. Try again later."""

    def __init__(self, wait_s: int) -> None:
        super().__init__()
        self.wait_s = wait_s


class RateLimit:
    """A bucket per caller that holds a minute's worth at most; 0 a minute is no limit."""

    def __init__(self, per_minute: int) -> None:
        self._per_s = per_minute / 60
        self._size = float(max(per_minute, 1))
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Raises `Limited`, which says for how long."""
        if not self._per_s:
            return
        now = monotonic()
        left, at = self._buckets.get(caller, (self._size, now))
        left = min(self._size, left + (now - at) * self._per_s)
        if left < 1:
            raise Limited(math.ceil((1 - left) / self._per_s))
        self._buckets[caller] = left - 1, now
        if len(self._buckets) > _CALLERS:
            self._buckets.popitem(last=False)
