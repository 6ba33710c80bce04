"""Terminal secrets at rest: AES-256-GCM, bound to the terminal's name, under a key that lives beside the
journal.

The key file keeps secrets out of copies and backups of the journal. `TILLGATE_KIOSK_KEY` (64 hex digits) or
`TILLGATE_KIOSK_KEY_FILE` keeps the key elsewhere.
"""

import os
from pathlib import Path

from tillgate.providers.mobypay.errors import JournalUnavailable

_NONCE_BYTES = 12


class Vault:
    """Seals and opens the secrets of one journal."""

    def __init__(self, key: bytes):
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        return "Vault(***)"

    def seal(self, pos_id: str, secret: bytes) -> bytes:
        """The sealed form of a terminal's secret."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, _bound_to(pos_id))

    def open(self, pos_id: str, sealed: bytes) -> bytes:
        """The secret. Raises JournalUnavailable when the key is not the one that sealed it."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound_to(pos_id))
        except InvalidTag:
            raise JournalUnavailable(
                "the kiosk's key does not open the terminal secrets in its journal"
            ) from None


def vault_for(journal: Path) -> Vault:
    """The vault of a journal; its key file is made on first use. Raises JournalUnavailable for an unusable
    key.
    """
    return Vault(_key(journal.with_name(journal.name + ".key")))


def _key(default: Path) -> bytes:
    text = os.environ.get("TILLGATE_KIOSK_KEY")
    if text is None:
        path = Path(os.environ.get("TILLGATE_KIOSK_KEY_FILE") or default)
        try:
            if path == default and not path.exists():
                _create(path)
            text = path.read_text().strip()
        except OSError as error:
            raise JournalUnavailable(f"cannot use the key file {path.name}: {error.strerror}") from error
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise JournalUnavailable("the kiosk's key must be 64 hex digits")
    return key


def _create(path: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(os.urandom(32).hex())
        file.flush()
        os.fsync(file.fileno())


def _bound_to(pos_id: str) -> bytes:
    return f"terminals:{pos_id}:secret".encode()
