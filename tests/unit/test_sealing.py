"""Secrets at rest open only with their key and only where they were put."""

from __future__ import annotations

import hmac
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from tillgate.domain.errors import Misconfigured
from tillgate.store.sealing import Sealer, derive

OLD, NEW, OTHER = ("an old key of the hub, long enough", "a new key of the hub, long enough", "not ours")
WHERE = "accounts:acc_1:config"


def test_what_is_sealed_opens() -> None:
    sealer = Sealer([NEW])
    sealed = sealer.seal(b'{"key":"s3cret"}', WHERE)
    assert b"s3cret" not in sealed
    assert sealer.open(sealed, WHERE) == b'{"key":"s3cret"}'


def test_the_layout_is_that_of_aes_256_gcm() -> None:
    """Read by hand: 4 bytes of key id, 12 of nonce, ciphertext and tag, bound to the place."""
    sealed = Sealer([NEW]).seal(b"plain", WHERE)
    assert len(sealed) == 4 + 12 + 5 + 16
    key = HKDF(SHA256(), 32, b"tillgate", b"sealing").derive(NEW.encode())
    assert AESGCM(key).decrypt(sealed[4:16], sealed[16:], WHERE.encode()) == b"plain"


def test_the_same_secret_is_sealed_differently_each_time() -> None:
    sealer = Sealer([NEW])
    assert len({sealer.seal(b"plain", WHERE) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "elsewhere",
    ["accounts:acc_2:config", "endpoints:acc_1:config", "accounts:acc_1:name", "", "accounts:acc_1:config "],
)
def test_a_sealed_value_moved_elsewhere_does_not_open(elsewhere: str) -> None:
    sealer = Sealer([NEW])
    with pytest.raises(Misconfigured, match="another TILLGATE_SECRET_KEY"):
        sealer.open(sealer.seal(b"plain", WHERE), elsewhere)


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(Misconfigured):
        Sealer([OTHER]).open(Sealer([NEW]).seal(b"plain", WHERE), WHERE)


def test_keys_rotate() -> None:
    """The first key seals, every key opens; a key that is taken away takes its values with it."""
    before = Sealer([OLD])
    old = before.seal(b"old", WHERE)
    rotated = Sealer([NEW, OLD])
    new = rotated.seal(b"new", WHERE)
    assert rotated.open(old, WHERE) == b"old"
    assert rotated.open(new, WHERE) == b"new"
    assert (rotated.is_current(old), rotated.is_current(new)) == (False, True)
    assert Sealer([NEW]).open(new, WHERE) == b"new"
    with pytest.raises(Misconfigured):
        Sealer([NEW]).open(old, WHERE)


@pytest.mark.parametrize("at", range(40))
def test_any_flipped_bit_is_noticed(at: int) -> None:
    sealer = Sealer([NEW, OLD])
    sealed = bytearray(sealer.seal(b"twelve bytes", WHERE))
    sealed[at] ^= 1
    with pytest.raises(Misconfigured):
        sealer.open(bytes(sealed), WHERE)


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 8, 15, 16, 17, 31, 32])
def test_a_cut_value_is_no_crash(length: int) -> None:
    sealer = Sealer([NEW])
    with pytest.raises(Misconfigured):
        sealer.open(sealer.seal(b"plain", WHERE)[:length], WHERE)


@given(st.binary(max_size=200))
def test_rubbish_is_no_crash(rubbish: bytes) -> None:
    with pytest.raises(Misconfigured):
        Sealer([NEW]).open(rubbish, WHERE)


@given(st.binary(max_size=2_000), st.text(max_size=60))
def test_anything_comes_back_as_it_was(plain: bytes, row: str) -> None:
    where = f"accounts:{row.encode('utf-8', 'replace').hex()}:config"
    assert Sealer([NEW]).open(Sealer([NEW]).seal(plain, where), where) == plain


def test_no_key_is_no_sealer() -> None:
    with pytest.raises(Misconfigured):
        Sealer([])


def test_errors_and_reprs_show_no_secret() -> None:
    sealer = Sealer([NEW])
    assert NEW not in repr(sealer)
    with pytest.raises(Misconfigured) as raised:
        Sealer([OTHER]).open(sealer.seal(b"s3cret", WHERE), WHERE)
    said = f"{raised.value!r} {raised.value.__cause__!r}"
    assert "s3cret" not in said
    assert NEW not in said
    assert OTHER not in said


# --- API secrets --------------------------------------------------------------------------------------------


def test_an_api_secret_is_known_by_a_keyed_hash() -> None:
    sealer = Sealer([NEW])
    stored = sealer.hash_secret("secret_abc")
    assert b"secret_abc" not in stored
    key = HKDF(SHA256(), 32, b"tillgate", b"api secrets").derive(NEW.encode())
    assert stored == hmac.new(key, b"secret_abc", sha256).digest()
    assert sealer.knows_secret("secret_abc", stored)


@pytest.mark.parametrize(
    "wrong", ["", "secret_ab", "secret_abcd", "SECRET_ABC", "secret_abc\0", "\ud800", "é"]
)
def test_another_secret_is_not_known(wrong: str) -> None:
    sealer = Sealer([NEW])
    assert not sealer.knows_secret(wrong, sealer.hash_secret("secret_abc"))


@pytest.mark.parametrize("stored", [b"", b"\0", bytes(32), b"x" * 31])
def test_no_secret_matches_a_damaged_hash(stored: bytes) -> None:
    assert not Sealer([NEW]).knows_secret("secret_abc", stored)


def test_secrets_survive_a_rotation_of_the_key() -> None:
    stored = Sealer([OLD]).hash_secret("secret_abc")
    assert Sealer([NEW, OLD]).knows_secret("secret_abc", stored)
    assert not Sealer([NEW]).knows_secret("secret_abc", stored)


def test_purposes_share_no_key() -> None:
    purposes = ("sealing", "api secrets", "tokens")
    assert len({derive(NEW, purpose) for purpose in purposes}) == len(purposes)
    assert all(len(derive(NEW, purpose)) == 32 for purpose in purposes)
    assert derive(NEW, "tokens") != derive(OLD, "tokens")
