"""The pages' own files: each under a name that holds its digest, so that it may be kept for ever."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_PRESSED: Final = frozenset({".css", ".js", ".svg"})
_HEADERS: Final = {
    "cache-control": "public, max-age=31536000, immutable",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "cross-origin",
    "vary": "accept-encoding",
}


@dataclass(frozen=True)
class Asset:
    name: str  # as it is asked for: `checkout.0f3a9c41d2.css`
    body: bytes
    suffix: str

    @property
    def content_type(self) -> str:
        return TYPES[self.suffix]

    @cached_property
    def pressed(self) -> bytes | None:
        """gzip, where it is worth it; made when it is first asked for, so that the start does not wait."""
        if self.suffix not in _PRESSED:
            return None
        pressed = gzip.compress(self.body, mtime=0)
        return pressed if len(pressed) < len(self.body) else None


class Assets:
    """A directory's files, read once. Nothing else can be asked for, whatever the path says."""

    def __init__(self, directory: Path, prefix: str = "") -> None:
        self._prefix = prefix
        self._by_file: dict[str, Asset] = {}
        for path in sorted(directory.iterdir()):
            if path.suffix in TYPES:
                self._by_file[path.name] = _read(path)
        self._by_name = {one.name: one for one in self._by_file.values()}

    def url(self, file: str) -> str:
        """Where a page finds this file. Raises `KeyError` for one that is not there."""
        return f"{self._prefix}/static/{self._by_file[file].name}"

    def body(self, file: str) -> bytes:
        return self._by_file[file].body

    async def serve(self, request: Request) -> Response:
        asset = self._by_name.get(request.path_params["name"])
        if asset is None:
            return PlainTextResponse("Not found", 404, {"cache-control": "no-store"})
        if "gzip" in request.headers.get("accept-encoding", "") and asset.pressed is not None:
            headers = {**_HEADERS, "content-encoding": "gzip"}
            return Response(asset.pressed, headers=headers, media_type=asset.content_type)
        return Response(asset.body, headers=_HEADERS, media_type=asset.content_type)

    def route(self) -> Route:
        return Route("/static/{name}", self.serve, methods=["GET"])


def _read(path: Path) -> Asset:
    body = path.read_bytes()
    name = f"{path.stem}.{hashlib.sha256(body).hexdigest()[:10]}{path.suffix}"
    return Asset(name, body, path.suffix)
