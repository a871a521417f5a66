"""DSSE envelopes: the signature covers the exact bytes received; parsing comes after it is good."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Key

from shared.canonical import parse_json
from shared.errors import BadInputError, UntrustedError
from shared.keys import PublicKey, SigningKey
from shared.wire import Wire

MAX_ENVELOPE_BYTES = 512 << 10

JOIN = "application/vnd.rollcall.join+json"
RENEWAL = "application/vnd.rollcall.renewal+json"
ROSTER = "application/vnd.rollcall.roster+json"
OPERATOR_CLEAR = "application/vnd.rollcall.operator-clear+json"
MESSAGE = "application/vnd.rollcall.message+json"
EVIDENCE = "application/vnd.rollcall.evidence+json"


class UnknownKeyError(UntrustedError):
    """No key that is trusted here has signed it."""

    code = "unknown-key"


class BadSignatureError(UntrustedError):
    """A trusted key is named, and its signature does not fit the bytes."""

    code = "bad-signature"


class _Signature(Wire):
    keyid: str
    sig: str


class DsseEnvelope(Wire):
    """The JSON form of an envelope: `payload` and each `sig` in base64."""

    payload: str
    payloadType: str  # noqa: N815 - the name DSSE gives it
    signatures: Annotated[list[_Signature], Field(min_length=1, max_length=8)]


@dataclass(frozen=True)
class Opened:
    payload: bytes
    keyid: str


def seal(payload: bytes, payload_type: str, *keys: SigningKey) -> bytes:
    envelope = Envelope(payload, payload_type, {})
    for key in keys:
        envelope.sign(key.signer)
    return _written(envelope)


def _written(envelope: Envelope) -> bytes:
    """As RFC 8785 has it: what stands in an envelope is ASCII."""
    return json.dumps(envelope.to_dict(), sort_keys=True, separators=(",", ":")).encode()


def peek(raw: bytes, payload_type: str, *, max_bytes: int = MAX_ENVELOPE_BYTES) -> Opened:
    """The payload and the first key that is named, before anything is verified: to learn which key the
    sender claims to have, and for what was verified when it came in."""
    envelope = _read(raw, max_bytes)
    if envelope.payload_type != payload_type:
        raise UntrustedError(f"an envelope of type {envelope.payload_type!r}, not {payload_type!r}")
    return Opened(envelope.payload, next(iter(envelope.signatures)))


def open_envelope(
    raw: bytes,
    payload_type: str,
    trusted: Iterable[PublicKey],
    *,
    max_bytes: int = MAX_ENVELOPE_BYTES,
) -> Opened:
    """Verify, then hand out the payload.

    Raises BadInputError when `raw` is not an envelope and UntrustedError when its type is another
    one or none of the trusted keys signed it: UnknownKeyError, BadSignatureError.
    """
    envelope = _read(raw, max_bytes)
    if envelope.payload_type != payload_type:
        raise UntrustedError(f"an envelope of type {envelope.payload_type!r}, not {payload_type!r}")
    keys: list[Key] = [key.for_verifying() for key in trusted if key.keyid in envelope.signatures]
    if not keys:
        raise UnknownKeyError("signed by no key that is trusted here")
    try:
        accepted = envelope.verify(keys, threshold=1)
    except VerificationError as error:
        raise BadSignatureError("the signature does not match the content") from error
    return Opened(envelope.payload, next(iter(accepted)))


class TooFewError(UntrustedError):
    """Fewer have signed than must."""

    code = "too-few"


def add_signature(raw: bytes, key: SigningKey, *, max_bytes: int = MAX_ENVELOPE_BYTES) -> bytes:
    """The same envelope with one signature more."""
    envelope = _read(raw, max_bytes)
    envelope.sign(key.signer)
    return _written(envelope)


def open_threshold(
    raw: bytes,
    payload_type: str,
    keys: Iterable[Key],
    threshold: int,
    *,
    max_bytes: int = MAX_ENVELOPE_BYTES,
) -> bytes:
    """The payload, once `threshold` different keys of these have signed it.

    Raises BadInputError when `raw` is not an envelope, and UntrustedError: TooFewError, or for another type.
    """
    envelope = _read(raw, max_bytes)
    if envelope.payload_type != payload_type:
        raise UntrustedError(f"an envelope of type {envelope.payload_type!r}, not {payload_type!r}")
    named = [key for key in keys if key.keyid in envelope.signatures]
    reason = f"{threshold} of the keys that are trusted here must sign, and "
    if len({str(key.keyval) for key in named}) < threshold:
        raise TooFewError(f"{reason}{len(named)} are named")
    try:
        envelope.verify(named, threshold=threshold)
    except VerificationError as error:
        raise TooFewError(f"{reason}not so many signatures fit the content") from error
    return envelope.payload


def _read(raw: bytes, max_bytes: int) -> Envelope:
    shape = DsseEnvelope.from_value(parse_json(raw, max_bytes=max_bytes, max_depth=6))
    try:
        return Envelope.from_dict(shape.model_dump())
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"not a DSSE envelope: {error}") from error
