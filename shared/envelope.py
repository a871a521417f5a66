"""DSSE envelopes: the signature covers the exact bytes received; parsing comes after it is good."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Key

from shared.canonical import canonical_json, parse_json
from shared.errors import BadInputError, UntrustedError
from shared.keys import PublicKey, SigningKey
from shared.wire import Wire

MAX_ENVELOPE_BYTES = 512 << 10

RELEASE = "application/vnd.rollcall.release+json"
ROSTER = "application/vnd.rollcall.roster+json"
MESSAGE = "application/vnd.rollcall.message+json"


class _Signature(Wire):
    keyid: str
    sig: str


class _Shape(Wire):
    payload: str
    payloadType: str  # noqa: N815 - the name DSSE gives it
    signatures: Annotated[list[_Signature], Field(min_length=1, max_length=8)]


@dataclass(frozen=True)
class Opened:
    payload: bytes
    keyid: str


def seal(payload: bytes, payload_type: str, key: SigningKey) -> bytes:
    envelope = Envelope(payload, payload_type, {})
    envelope.sign(key.signer)
    return canonical_json(envelope.to_dict())


def open_envelope(
    raw: bytes,
    payload_type: str,
    trusted: Iterable[PublicKey],
    *,
    max_bytes: int = MAX_ENVELOPE_BYTES,
) -> Opened:
    """Verify, then hand out the payload.

    Raises BadInputError when `raw` is not an envelope and UntrustedError when its type is another
    one or none of the trusted keys signed it.
    """
    envelope = _read(raw, max_bytes)
    if envelope.payload_type != payload_type:
        raise UntrustedError(f"an envelope of type {envelope.payload_type!r}, not {payload_type!r}")
    keys: list[Key] = [key.for_verifying() for key in trusted if key.keyid in envelope.signatures]
    if not keys:
        raise UntrustedError("signed by no key that is trusted here")
    try:
        accepted = envelope.verify(keys, threshold=1)
    except VerificationError as error:
        raise UntrustedError("the signature does not match the content") from error
    return Opened(envelope.payload, next(iter(accepted)))


def _read(raw: bytes, max_bytes: int) -> Envelope:
    shape = _Shape.from_value(parse_json(raw, max_bytes=max_bytes, max_depth=6))
    try:
        return Envelope.from_dict(shape.model_dump())
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"not a DSSE envelope: {error}") from error
