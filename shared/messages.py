"""What nodes sign and send each other: red, clear, ack, proven, attestation.

The payload is verified as bytes, then parsed (DESIGN.md, 6). `red` and `clear` are events that every
node keeps; `proven` asks the peers to look; `attestation` is the answer; an `ack` says that a message
is held, durably.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from shared.canonical import parse_json, sha256_hex
from shared.envelope import MESSAGE, open_envelope, peek, seal
from shared.errors import UntrustedError
from shared.keys import SigningKey
from shared.protocol import FIRST, SPOKEN, Number, ProtocolRange, check_overlap
from shared.roster import Roster
from shared.wire import MAX_INTEGER, NodeName, Order, Reason, Sha256, Wire

MAX_MESSAGE_BYTES = 24 << 10
"""A red with its longest reason, escaped at worst, takes two thirds of this."""


class RedKind(StrEnum):
    UPGRADE_FAILED = "upgrade-failed"
    STUCK = "stuck"
    READINESS = "readiness"
    JOURNAL = "journal"
    AGENT_FAILED = "agent-failed"
    """A new version of the agent did not work, and the old one runs again."""
    MISMATCH = "mismatch"
    """Green by itself, and not what most nodes on its release are."""


class Verdict(StrEnum):
    GREEN = "green"
    RED = "red"
    UNKNOWN = "unknown"


KindWord = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,31}$")]


class Red(Wire):
    """`kind` is a RedKind of the origin's version, which may be newer than the reader's: a red counts
    whatever its kind is called."""

    type: Literal["red"] = "red"
    kind: KindWord
    reason: Reason
    release: Sha256 | None = None


class Clear(Wire):
    """Ends one red. Only its origin may say so; `ref` is the red's key."""

    type: Literal["clear"] = "clear"
    ref: str
    reason: Reason


class Ack(Wire):
    type: Literal["ack"] = "ack"
    ref: str
    sha256: Sha256


class Proven(Wire):
    """The sender claims to be green on `release`. A peer that has not heard of that release asks the
    sender for the metadata and the manifest, which prove themselves."""

    type: Literal["proven"] = "proven"
    order: Order
    release: Sha256
    ready_probe_sha256: Sha256
    nonce: Sha256


class Attestation(Wire):
    type: Literal["attestation"] = "attestation"
    subject: NodeName
    order: Order
    release: Sha256
    nonce: Sha256
    verdict: Verdict
    ready_probe_sha256: Sha256 | None
    reason: Reason = ""


Body = Annotated[Red | Clear | Ack | Proven | Attestation, Field(discriminator="type")]


class Payload(Wire):
    """`protocol` is the oldest protocol whose readers understand the body as it is meant, `newest` the
    newest that its writer speaks: one message goes to readers of several versions. A body of which an
    older reader must not ignore a part is written with a higher `protocol`."""

    protocol: Number = FIRST.min
    newest: Number = SPOKEN.max
    fleet: Sha256
    origin: NodeName
    epoch: Annotated[int, Field(ge=1, le=MAX_INTEGER)]
    sequence: Annotated[int, Field(ge=1, le=MAX_INTEGER)]
    issued: float
    expires: float | None = None
    body: Body

    @property
    def key(self) -> str:
        return f"{self.origin}:{self.epoch}:{self.sequence}"


class Message(Wire):
    """A payload whose signature was good, with the very bytes that carried it."""

    payload: Payload
    raw: str
    keyid: str = ""
    """Whose signature was good."""

    @property
    def key(self) -> str:
        return self.payload.key

    @property
    def sha256(self) -> str:
        return sha256_hex(self.raw.encode())

    @property
    def ref(self) -> str:
        """What the message is about: the red of a clear, the order of a claim or an attestation."""
        match self.payload.body:
            case Clear(ref=ref) | Ack(ref=ref):
                return ref
            case Proven(order=order) | Attestation(order=order):
                return order
            case _:
                return ""


def read_message(raw: bytes) -> Message:
    """A message out of this host's own database, which was verified when it came in. The roster of
    today may not know its key any more; a red does not end with its origin's key."""
    seen = peek(raw, MESSAGE, max_bytes=MAX_MESSAGE_BYTES)
    payload = Payload.from_bytes(seen.payload)
    return Message(payload=payload, raw=raw.decode(), keyid=seen.keyid)


def sign_message(payload: Payload, key: SigningKey) -> Message:
    """DSSE covers the very bytes, so they need no canonical form."""
    raw = seal(payload.model_dump_json().encode(), MESSAGE, key)
    return Message(payload=payload, raw=raw.decode(), keyid=key.public.keyid)


class RevokedError(UntrustedError):
    """A good signature of a node that was locked out."""

    code = "revoked"


class WrongFleetError(UntrustedError):
    code = "wrong-fleet"


class WrongOriginError(UntrustedError):
    """One node speaks in another's name, or clears another's red."""

    code = "wrong-origin"


class TooManyError(UntrustedError):
    """More open reds of one origin than anybody needs to be frozen by it."""

    code = "too-many"


class StaleError(UntrustedError):
    """Below the origin's high-water mark: long closed, and sent again."""

    code = "stale"


class _Written(Wire):
    """As much of a payload as every protocol has; `newest` is missing in what was written before ranges."""

    protocol: Number = FIRST.min
    newest: Number | None = None


def check_protocol(payload: bytes, origin: str, speaks: ProtocolRange) -> None:
    """Before the body is looked at, whose type may be one that this reader has never heard of."""
    _check_protocol(_Written.from_bytes(payload), origin, speaks)


def _check_protocol(written: _Written, origin: str, speaks: ProtocolRange) -> None:
    span = ProtocolRange.from_value(
        {"min": written.protocol, "max": written.newest or written.protocol}
    )
    check_overlap(speaks, span, here="this node", there=f"a message of {origin}")


def open_message(raw: bytes, roster: Roster, speaks: ProtocolRange = SPOKEN) -> Message:
    """Verify against the roster, then parse (DESIGN.md, 6).

    Raises UntrustedError for a stranger, a revoked node, another fleet, or a node speaking in
    another's name; ProtocolError for one that is written for other versions than this; BadInputError
    for bytes of the wrong shape.
    """
    opened = open_envelope(
        raw, MESSAGE, [node.key for node in roster.nodes], max_bytes=MAX_MESSAGE_BYTES
    )
    node = roster.by_keyid[opened.keyid]
    if node.revoked:
        raise RevokedError(f"{node.name!r} was revoked")
    value = parse_json(opened.payload)
    _check_protocol(_Written.from_value(value), node.name, speaks)
    payload = Payload.from_value(value)
    if payload.fleet != roster.fleet:
        raise WrongFleetError("a message of another fleet")
    if node.name != payload.origin:
        raise WrongOriginError(f"{node.name!r} spoke in the name of {payload.origin!r}")
    return Message(payload=payload, raw=raw.decode(), keyid=opened.keyid)
