"""The AtomPay envelope: JSON under AES-256-CBC with a fixed IV and a PBKDF2 key, as upper-case hex.

It hides and proves nothing: whoever reads a body by it has not yet learned who wrote it; `signing` says that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tillgate.providers.atompay_in import wire

IV: Final = bytes(range(16))
ROUNDS: Final = 65_536
BLOCK: Final = 16
MAX_HEX: Final = 64 * 1024
"""Longest `encData` we look at; the longest genuine callback seen has under 6,000 characters."""


class Sealed(ValueError):
    """The envelope cannot be opened."""


@dataclass(frozen=True, slots=True)
class Key:
    """`secret` is the 32-character text NDPS prints, used as ASCII and never hex-decoded; `salt` likewise."""

    secret: str = field(repr=False)
    salt: str = field(repr=False)
    label: str = "current"


@lru_cache(maxsize=64)
def _derived(secret: str, salt: str) -> bytes:
    """65,536 rounds cost some 30 ms of CPU: paid once per key, and never for a stranger's bytes."""
    return hashlib.pbkdf2_hmac("sha512", secret.encode(), salt.encode(), ROUNDS, 32)


def seal(message: bytes, key: Key) -> str:
    """`encData` for `message`: upper-case hex."""
    fill = BLOCK - len(message) % BLOCK
    encryptor = _cipher(key).encryptor()
    return (encryptor.update(message + bytes([fill]) * fill) + encryptor.finalize()).hex().upper()


def unseal(text: str, keys: Sequence[Key]) -> tuple[Any, Key]:
    """The JSON object or array in `text` and the key that opened it; several keys are a rotation.

    Raises `Sealed`, the same for hex, length, padding, encoding and JSON: a caller who could tell them apart
    would have a padding oracle.
    """
    data = _hex(text)
    for key in keys:
        try:
            message = wire.loads(_unpad(_decrypt(data, key)))
        except ValueError:
            continue
        if isinstance(message, (dict, list)):
            return message, key
    raise Sealed


def _hex(text: str) -> bytes:
    """Both cases of hex, whole blocks, within the limit; all of it checked before any key is derived."""
    if not 2 * BLOCK <= len(text) <= MAX_HEX or len(text) % (2 * BLOCK) or not text.isascii() or " " in text:
        raise Sealed
    try:
        data = bytes.fromhex(text)
    except ValueError:
        raise Sealed from None
    if 2 * len(data) != len(text):  # `fromhex` skips white space
        raise Sealed
    return data


def _cipher(key: Key) -> Cipher[modes.CBC]:
    return Cipher(algorithms.AES(_derived(key.secret, key.salt)), modes.CBC(IV))


def _decrypt(data: bytes, key: Key) -> bytes:
    decryptor = _cipher(key).decryptor()
    return decryptor.update(data) + decryptor.finalize()


def _unpad(data: bytes) -> bytes:
    fill = data[-1]
    if not 1 <= fill <= BLOCK or data[-fill:] != bytes([fill]) * fill:
        raise Sealed
    return data[:-fill]
