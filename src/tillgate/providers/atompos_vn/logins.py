"""Wrong passwords at `/authorize`, counted by the address and the user they came for. In memory only."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from tillgate.providers.atompos_vn.contract import TooManyLogins

WRONG: Final = 10
"""So many in a minute; what comes after them in that minute is not even compared."""
_MINUTE_MS: Final = 60_000
_REMEMBERED: Final = 10_000
_USER_CHARS: Final = 256


class Logins:
    """One user's guesses do not lock out another, nor those from elsewhere. A user that there is not is
    counted alike: the answer must not tell who there is."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    def allow(self, peer: str, user: str, now: int) -> None:
        """Raises `TooManyLogins`."""
        if self._counted(peer, user, now)[1] >= WRONG:
            raise TooManyLogins

    def failed(self, peer: str, user: str, now: int) -> None:
        since, wrong = self._counted(peer, user, now)
        self._wrong[peer, user[:_USER_CHARS]] = since, wrong + 1
        if len(self._wrong) > _REMEMBERED:
            self._wrong.popitem(last=False)

    def _counted(self, peer: str, user: str, now: int) -> tuple[int, int]:
        since, wrong = self._wrong.get((peer, user[:_USER_CHARS]), (now, 0))
        return (since, wrong) if 0 <= now - since < _MINUTE_MS else (now, 0)
