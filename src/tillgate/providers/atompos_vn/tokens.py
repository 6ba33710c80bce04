"""Bearer tokens of one partner: JWT with an algorithm fixed by configuration, never read from the token.

`exp`, `iat`, `sub` and `jti` are required, `nbf` is honoured, `aud` and `iss` are checked where configured
(ASVS 5.0, 9.1 and 9.2). Two keys may be alive, told apart by `kid`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from tillgate.domain.errors import Misconfigured
from tillgate.providers.atompos_vn.contract import BadCredential, NotPermitted

Algorithm: TypeAlias = Literal["HS256", "HS384", "HS512", "RS256", "EdDSA"]
SCOPES: Final = ("ipn", "payment")
LEEWAY_S: Final = 30
MIN_KEY_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""As long as the hash (RFC 7518, 3.2): a shorter key is the weak part."""
MAX_TOKEN: Final = 8_192
_REMEMBERED: Final = 1_024


@dataclass(frozen=True, slots=True)
class Claims:
    """A verified token. No `scope` in it means any: who holds the key may say so."""

    subject: str
    expires_at: float  # epoch seconds
    scopes: frozenset[str] | None

    def allow(self, scope: str) -> None:
        """Raises `NotPermitted`."""
        if self.scopes is not None and scope not in self.scopes:
            raise NotPermitted


@dataclass(frozen=True, slots=True)
class _Key:
    kid: str
    verify: Any = field(repr=False)
    sign: Any = field(repr=False)  # None: only the partner can


class Tokens:
    """Issues and verifies the tokens of one partner.

    `secret` is a text of at least 32 bytes (HS256) or a PEM key, private or public (RS256, EdDSA).
    """

    def __init__(
        self,
        secret: str,
        algorithm: Algorithm = "HS256",
        *,
        previous: str = "",
        audience: str = "",
        issuer: str = "",
        lifetime_s: int = 300,
    ) -> None:
        """Raises `Misconfigured`."""
        if not 30 <= lifetime_s <= 86_400:
            raise Misconfigured("ATOM POS: a token lives 30 to 86400 seconds")
        self._algorithm = algorithm
        self._keys = [_key(one, algorithm) for one in (secret, previous) if one]
        if not self._keys or not secret:
            raise Misconfigured("ATOM POS: jwt_secret is missing")
        self._audience, self._issuer, self.lifetime_s = audience, issuer, lifetime_s
        self._known: dict[str, Claims] = {}

    def issue(self, subject: str, now_s: float, scopes: tuple[str, ...] = SCOPES) -> str:
        """Raises `NotPermitted` where only the partner holds a private key."""
        key, now = self._keys[0], int(now_s)
        if key.sign is None:
            raise NotPermitted
        claims: dict[str, Any] = {
            "sub": subject,
            "iat": now,
            "exp": now + self.lifetime_s,
            "jti": secrets.token_urlsafe(16),
            "scope": " ".join(scopes),
        }
        if self._audience:
            claims["aud"] = self._audience
        if self._issuer:
            claims["iss"] = self._issuer
        return jwt.encode(claims, key.sign, self._algorithm, headers={"kid": key.kid})

    def verify(self, token: str, now_s: float) -> Claims:
        """Raises `BadCredential` for whatever is wrong with it, in the same words."""
        claims = self._known.get(token)
        if claims is None:
            claims = self._read(token, now_s)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[token] = claims
        if now_s >= claims.expires_at + LEEWAY_S:
            self._known.pop(token, None)
            raise BadCredential
        return claims

    def _read(self, token: str, now_s: float) -> Claims:
        if len(token) > MAX_TOKEN or not token.isascii():
            raise BadCredential
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.PyJWTError:
            raise BadCredential from None
        for key in self._keys:
            if kid is None or kid == key.kid:
                try:
                    return self._claims(self._decoded(token, key), now_s)
                except (jwt.PyJWTError, ValueError):
                    continue
        raise BadCredential

    def _decoded(self, token: str, key: _Key) -> Mapping[str, Any]:
        required = ["exp", "iat", "sub", "jti"]
        required += (["aud"] if self._audience else []) + (["iss"] if self._issuer else [])
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key.verify,
            algorithms=[self._algorithm],
            audience=self._audience or None,
            issuer=self._issuer or None,
            # The times are checked below, against the time the message came and not that of this line.
            options={
                "require": required,
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": bool(self._audience),
                "verify_iss": bool(self._issuer),
            },
        )
        return claims

    @staticmethod
    def _claims(claims: Mapping[str, Any], now_s: float) -> Claims:
        """Raises `ValueError`."""
        times = [claims["exp"], claims["iat"], claims.get("nbf", claims["iat"])]
        if any(type(at) not in (int, float) or not 0 <= at < 1e11 for at in times):
            raise ValueError("no time")
        expires_at, *begins = times
        if now_s >= expires_at + LEEWAY_S or any(at > now_s + LEEWAY_S for at in begins):
            raise ValueError("not now")
        if not all(isinstance(claims[name], str) and claims[name] for name in ("sub", "jti")):
            raise ValueError("no subject or id")
        scope = claims.get("scope")
        if scope is not None and not isinstance(scope, str):
            raise ValueError("no scope")
        return Claims(claims["sub"], expires_at, None if scope is None else frozenset(scope.split()))


def _key(secret: str, algorithm: Algorithm) -> _Key:
    kid = hashlib.sha256(b"kid" + secret.encode()).hexdigest()[:12]
    if algorithm.startswith("HS"):
        if len(secret.encode()) < MIN_KEY_BYTES[algorithm]:
            raise Misconfigured(f"ATOM POS: jwt_secret has less than {MIN_KEY_BYTES[algorithm]} bytes")
        return _Key(kid, secret, secret)
    public: Any
    private: Any = None
    try:
        if "PRIVATE" in secret:
            private = serialization.load_pem_private_key(secret.encode(), None)
            public = private.public_key()
        else:
            public = serialization.load_pem_public_key(secret.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Misconfigured(f"ATOM POS: jwt_secret is no PEM key for {algorithm}") from None
    wanted: Any = rsa.RSAPublicKey if algorithm == "RS256" else ed25519.Ed25519PublicKey
    if not isinstance(public, wanted):
        raise Misconfigured(f"ATOM POS: jwt_secret is no key for {algorithm}")
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < 2048:
        raise Misconfigured("ATOM POS: jwt_secret has less than 2048 bits")
    return _Key(kid, public, private)
