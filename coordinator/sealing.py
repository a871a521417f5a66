"""Answers with a secret in them, sealed for the database: its copies alone give none away. The key is a file in the
coordinator's home."""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from shared.errors import ConflictError

KEY_BYTES, NONCE_BYTES = 32, 12


class SealedError(ConflictError):
    """An answer that was kept under another key: the database came from elsewhere."""

    code = "sealed"


class Sealer:
    """`about` is part of the seal: what was sealed about one thing cannot be put in the place of another."""

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)

    def seal(self, text: bytes, about: str) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text, about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """Raises SealedError."""
        nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, rest, about.encode())
        except (InvalidTag, ValueError):
            raise SealedError(
                "this was answered before, with a secret that cannot be read again here",
                remedy="look whether it came true; if not, send it under a new Idempotency-Key",
            ) from None
