"""Codes drawn once and kept: drawing takes tens of milliseconds of a processor."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from tillgate import qr

KEPT: Final = 512  # of each kind; some kilobytes each
AT_ONCE: Final = 2
SCALE: Final = 10

Kind: TypeAlias = Literal["png", "svg"]


class Pictures:
    """PNG and SVG of payloads. The same payload asked for many times at once is drawn once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Kind, str], asyncio.Task[bytes]] = OrderedDict()
        self._room = asyncio.Semaphore(AT_ONCE)

    async def draw(self, text: str, kind: Kind) -> bytes:
        """Raises `QrError` for a text that no code can carry."""
        task = self._kept.get((kind, text))
        if task is None:
            task = self._kept[kind, text] = asyncio.create_task(self._draw(text, kind))
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end((kind, text))
        # Shielded: who asked first may leave, and others wait for the same picture.
        return await asyncio.shield(task)

    async def _draw(self, text: str, kind: Kind) -> bytes:
        draw: Callable[[], bytes] = {
            "png": lambda: qr.png(text, SCALE),
            "svg": lambda: qr.svg(text).encode(),
        }[kind]
        async with self._room:
            return await asyncio.to_thread(draw)
