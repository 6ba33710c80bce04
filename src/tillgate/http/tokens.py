"""Bearer tokens: JWT with one fixed algorithm. A verified token is remembered; its end is always checked."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import jwt

from tillgate.domain.errors import Unauthorized
from tillgate.domain.record import record

_REMEMBERED: Final = 10_000
_ISSUER: Final = "tillgate"


@record
class Claims:
    merchant_id: str
    credential_id: str
    expires_at_s: int


class Tokens:
    """`keys`: the signing key first, then those whose tokens are still good."""

    def __init__(self, keys: Sequence[bytes], ttl_s: int, clock: Callable[[], int]) -> None:
        self._keys, self.ttl_s, self._clock = keys, ttl_s, clock
        self._known: OrderedDict[str, Claims] = OrderedDict()

    def issue(self, merchant_id: str, credential_id: str) -> str:
        now_s = self._clock() // 1000
        claims = {
            "iss": _ISSUER,
            "sub": merchant_id,
            "cid": credential_id,
            "iat": now_s,
            "exp": now_s + self.ttl_s,
            "jti": secrets.token_hex(8),
        }
        return jwt.encode(claims, self._keys[0], algorithm="HS256")

    def read(self, token: str) -> Claims:
        """Raises `Unauthorized`."""
        claims = self._known.get(token)
        if claims is None:
            claims = self._verify(token)
            self._known[token] = claims
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        if self._clock() >= claims.expires_at_s * 1000:
            self._known.pop(token, None)
            raise Unauthorized()
        return claims

    def _verify(self, token: str) -> Claims:
        options = {"require": ["exp", "iat", "sub", "cid"], "verify_exp": False, "verify_iat": False}
        for key in self._keys:
            try:
                found = jwt.decode(token, key, algorithms=["HS256"], issuer=_ISSUER, options=options)  # type: ignore[arg-type]
                return Claims(str(found["sub"]), str(found["cid"]), int(found["exp"]))
            except (jwt.InvalidTokenError, ValueError, TypeError):
                continue
        raise Unauthorized()
