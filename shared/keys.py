"""Ed25519 keys for messages, rosters and TUF metadata, through securesystemslib's signer."""

from __future__ import annotations

import base64
import secrets
from functools import cached_property
from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import Field, field_validator
from securesystemslib.signer import CryptoSigner, SSlibKey

from shared.canonical import sha256_hex
from shared.durable import read_secret, write_durable
from shared.errors import BadInputError, UntrustedError, UsageError
from shared.wire import NodeName, Wire

SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 17, 8, 1
SHORTEST_PASSPHRASE = 12


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

    @cached_property
    def keyid(self) -> str:
        return sha256_hex(self.raw)

    def for_verifying(self) -> SSlibKey:
        return self._for_verifying

    @cached_property
    def _for_verifying(self) -> SSlibKey:
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
        write_durable(path, self._pem(serialization.NoEncryption()))

    def seal(self, passphrase: str) -> SealedKey:
        """The key as it may lie on an operator's disk. Raises UsageError for a short passphrase."""
        if len(passphrase) < SHORTEST_PASSPHRASE:
            raise UsageError(f"a passphrase has at least {SHORTEST_PASSPHRASE} characters")
        salt = secrets.token_bytes(16)
        stretched = _stretch(passphrase, salt, SCRYPT_N)
        pem = self._pem(serialization.BestAvailableEncryption(stretched))
        return SealedKey(
            public=self.public,
            salt=base64.b64encode(salt).decode(),
            scrypt_n=SCRYPT_N,
            pem=pem.decode(),
        )

    def _pem(self, encryption: serialization.KeySerializationEncryption) -> bytes:
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )


class SealedKey(Wire):
    """A private key under a passphrase: PKCS #8 whose password is scrypt (RFC 7914) of the
    passphrase, because PKCS #8's own stretching is 2,048 rounds of PBKDF2 and a stolen file could be
    tried offline."""

    public: PublicKey
    salt: str
    scrypt_n: Annotated[int, Field(ge=1 << 14, le=1 << 20)]
    pem: str

    def open(self, passphrase: str) -> SigningKey:
        """Raises UntrustedError for a wrong passphrase or a file that was tampered with."""
        try:
            stretched = _stretch(passphrase, base64.b64decode(self.salt), self.scrypt_n)
            key = serialization.load_pem_private_key(self.pem.encode(), password=stretched)
        except (ValueError, TypeError) as error:
            raise UntrustedError("the passphrase does not open this key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UntrustedError("this is not an Ed25519 key")
        opened = SigningKey(key)
        if opened.public != self.public:
            raise UntrustedError("the key in this file is not the one that it names")
        return opened


def _stretch(passphrase: str, salt: bytes, n: int) -> bytes:
    key = Scrypt(salt=salt, length=32, n=n, r=SCRYPT_R, p=SCRYPT_P).derive(passphrase.encode())
    return base64.b64encode(key)


class OperatorKeys(Wire):
    """What an operator shows to others: the public halves, in a `.pub` file."""

    name: NodeName
    root: PublicKey
    targets: PublicKey


def load_operator_keys(path: Path) -> OperatorKeys:
    """Read a `.pub` file as `rollcall keys make` writes it."""
    try:
        return OperatorKeys.from_bytes(path.read_bytes())
    except BadInputError as error:
        raise BadInputError(f"{path} is not an operator's .pub file: {error.message}") from error
    except FileNotFoundError:
        raise BadInputError(
            f"{path} does not exist", remedy="it is made by: rollcall keys make --name NAME"
        ) from None
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}") from error
