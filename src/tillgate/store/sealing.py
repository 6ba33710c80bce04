"""Secrets at rest. AES-256-GCM under a key derived from `TILLGATE_SECRET_KEY`, bound to where it is kept.

A sealed value starts with the id of its key, so that keys rotate: the first key seals, every key opens.
API secrets are not kept at all: 256 random bits are known again by a keyed hash.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tillgate.domain.errors import Misconfigured

_ID, _NONCE = 4, 12


def derive(secret_key: str, purpose: str) -> bytes:
    """32 bytes for one purpose; different purposes share nothing."""
    kdf = HKDF(algorithm=SHA256(), length=32, salt=b"tillgate", info=purpose.encode())
    return kdf.derive(secret_key.encode())


class Sealer:
    """`secret_keys`: the current one first, then those that old values may still be sealed with."""

    def __init__(self, secret_keys: Sequence[str]) -> None:
        if not secret_keys:
            raise Misconfigured("TILLGATE_SECRET_KEY is not set")
        sealing = [derive(key, "sealing") for key in secret_keys]
        self._boxes = {_key_id(key): AESGCM(key) for key in reversed(sealing)}
        self._current = _key_id(sealing[0])
        self._hashing = [derive(key, "api secrets") for key in secret_keys]

    def seal(self, plain: bytes, where: str) -> bytes:
        """`where` is `table:row:column`: a sealed value moved elsewhere does not open."""
        nonce = os.urandom(_NONCE)
        return self._current + nonce + self._boxes[self._current].encrypt(nonce, plain, where.encode())

    def open(self, sealed: bytes, where: str) -> bytes:
        box = self._boxes.get(sealed[:_ID])
        try:
            if box is None:
                raise InvalidTag
            return box.decrypt(sealed[_ID : _ID + _NONCE], sealed[_ID + _NONCE :], where.encode())
        except (InvalidTag, ValueError):  # a value cut short has no whole nonce
            raise Misconfigured(f"{where} was sealed with another TILLGATE_SECRET_KEY") from None

    def is_current(self, sealed: bytes) -> bool:
        return sealed[:_ID] == self._current

    def hash_secret(self, secret: str) -> bytes:
        return hmac.digest(self._hashing[0], secret.encode(), "sha256")

    def knows_secret(self, secret: str, stored: bytes) -> bool:
        text = secret.encode("utf-8", "surrogatepass")
        matches = [hmac.compare_digest(hmac.digest(key, text, "sha256"), stored) for key in self._hashing]
        return any(matches)  # every key is tried, whichever it was


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"key id" + key).digest()[:_ID]
