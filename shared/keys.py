"""Ed25519 keys for messages, rosters and releases, through securesystemslib's DSSE signer."""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import field_validator
from securesystemslib.signer import CryptoSigner, SSlibKey

from shared.canonical import sha256_hex
from shared.durable import read_secret, write_durable
from shared.errors import BadInputError, UntrustedError
from shared.wire import Wire


class PublicKey(Wire):
    """A raw Ed25519 public key in base64. Its id is the SHA-256 of the 32 bytes."""

    ed25519: str

    @field_validator("ed25519")
    @classmethod
    def _is_a_key(cls, text: str) -> str:
        try:
            raw = base64.b64decode(text, validate=True)
        except ValueError as error:
            raise ValueError("not base64") from error
        if len(raw) != 32:
            raise ValueError(f"an Ed25519 key has 32 bytes, not {len(raw)}")
        return text

    @property
    def raw(self) -> bytes:
        return base64.b64decode(self.ed25519)

    @property
    def keyid(self) -> str:
        return sha256_hex(self.raw)

    def for_verifying(self) -> SSlibKey:
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return SSlibKey.from_crypto(key, keyid=self.keyid)


class SigningKey:
    """The private half. Lives in a 0600 PEM file."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        raw = private.public_key().public_bytes_raw()
        self.public = PublicKey(ed25519=base64.b64encode(raw).decode())
        self.signer = CryptoSigner(private, self.public.for_verifying())

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        try:
            key = serialization.load_pem_private_key(read_secret(path), password=None)
        except (ValueError, TypeError) as error:
            raise UntrustedError(f"{path} is not an unencrypted PEM key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UntrustedError(f"{path} is not an Ed25519 key")
        return cls(key)

    def save(self, path: Path) -> None:
        pem = self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_durable(path, pem)


def load_public_key(path: Path) -> PublicKey:
    """Read a `.pub` file as `rollcall keys init` writes it."""
    try:
        return PublicKey.from_bytes(path.read_bytes())
    except FileNotFoundError:
        raise BadInputError(
            f"{path} does not exist", remedy="make a key with: rollcall keys init"
        ) from None
