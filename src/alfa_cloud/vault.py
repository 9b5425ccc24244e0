"""Secrets at rest: AES-GCM with the place of a ciphertext as associated data, so that a moved one fails."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import string
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from alfa_cloud.specs import Secret

NONCE_BYTES = 12
ALPHABET = string.ascii_letters + string.digits


class Vault:
    """A ring of keys: the first encrypts, any decrypts."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Take 32-byte keys in base64.

        Raises:
            ValueError: a key is not that.
        """
        self._ciphers = [AESGCM(_decode_key(key)) for key in keys]
        self._digest_key = hmac.digest(_decode_key(keys[0]), b"digest", "sha256") if keys else b""
        if not self._ciphers:
            raise ValueError("a vault needs a key")

    def seal(self, secret: Secret, place: str) -> bytes:
        """Encrypt for one place, `table.column.id`."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._ciphers[0].encrypt(nonce, secret.reveal().encode(), place.encode())

    def digest(self, data: bytes) -> bytes:
        """The same for equal data, and of no use without the key: nothing can be guessed from it."""
        return hmac.digest(self._digest_key, data, hashlib.sha256)

    def open(self, sealed: bytes, place: str) -> Secret:
        """Decrypt what was sealed for this place.

        Raises:
            ValueError: no key of the ring fits, or it was sealed for another place.
        """
        for cipher in self._ciphers:
            try:
                return Secret(cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode()).decode())
            except InvalidTag:
                continue
        raise ValueError(f"no key opens {place}")


def _decode_key(key: str) -> bytes:
    try:
        raw = base64.b64decode(key, validate=True)
    except binascii.Error as error:
        raise ValueError("a secret key is not base64") from error
    if len(raw) != 32:
        raise ValueError("a secret key is 32 bytes in base64")
    return raw


def new_key() -> str:
    """A key for a vault: 32 random bytes in base64."""
    return base64.b64encode(os.urandom(32)).decode()


def new_password(length: int = 32) -> Secret:
    """A password of letters and digits alone, so that no configuration file has to quote it."""
    return Secret("".join(secrets.choice(ALPHABET) for _ in range(length)))


def new_app_key() -> Secret:
    """A Laravel application key: `base64:` and 32 random bytes."""
    return Secret("base64:" + new_key())
