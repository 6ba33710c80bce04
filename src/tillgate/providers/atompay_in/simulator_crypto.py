"""The simulator's own envelope and signatures, made with other tools than the connector's."""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC


def signature(key: str, parts: list[str]) -> str:
    mac = hmac.HMAC(key.encode(), hashes.SHA512())
    for piece in parts:
        mac.update(piece.encode())
    return mac.finalize().hex()


def same(given: Any, made: str) -> bool:
    return isinstance(given, str) and given == made


_KEYS: dict[str, bytes] = {}


def _key(secret: str) -> bytes:
    if secret not in _KEYS:
        _KEYS[secret] = PBKDF2HMAC(hashes.SHA512(), 32, secret.encode(), 65_536).derive(secret.encode())
    return _KEYS[secret]


def encrypt(message: Any, secret: str) -> str:
    pad = padding.PKCS7(128).padder()
    data = pad.update(json.dumps(message, ensure_ascii=False).encode()) + pad.finalize()
    run = Cipher(algorithms.AES(_key(secret)), modes.CBC(bytes(range(16)))).encryptor()
    return (run.update(data) + run.finalize()).hex().upper()


def decrypt(text: str, secret: str) -> Any:
    """Raises `ValueError`."""
    run = Cipher(algorithms.AES(_key(secret)), modes.CBC(bytes(range(16)))).decryptor()
    pad = padding.PKCS7(128).unpadder()
    data = pad.update(run.update(bytes.fromhex(text)) + run.finalize()) + pad.finalize()
    # Amounts stay as they were written: the signature is over their text.
    return json.loads(data, parse_float=str, parse_int=str)
