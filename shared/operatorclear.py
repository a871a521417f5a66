"""An operator's clear: ends one red for all, under the threshold of the keys that sign releases
(docs/decisions/0022)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints
from tuf.api.metadata import Root

from shared.canonical import sha256_hex
from shared.envelope import (
    MESSAGE,
    OPERATOR_CLEAR,
    add_signature,
    open_threshold,
    peek,
    seal,
)
from shared.errors import BadInputError, UntrustedError
from shared.keys import SigningKey
from shared.messages import MAX_MESSAGE_BYTES, WrongFleetError, check_protocol, read_message
from shared.metadata import name_of_key
from shared.protocol import FIRST, SPOKEN, Number, ProtocolRange
from shared.wire import Reason, RedKey, Sha256, Wire

MAX_CLEAR_BYTES = 64 << 10
ROLE = "targets"
"""The role whose keys and threshold count."""


class OperatorClear(Wire):
    """`ref` is the red's key and `sha256` the hash of what its origin signed: together one red and no other.
    `protocol` and `newest` are as in a node's message."""

    protocol: Number = FIRST.min
    newest: Number = SPOKEN.max
    fleet: Sha256
    ref: RedKey
    sha256: Sha256
    reason: Annotated[Reason, StringConstraints(min_length=1)]
    issued: float


class ClearFile(Wire):
    """What goes from operator to operator: the red as it is, so that each reads what it ends, and the clear with
    the signatures so far; `envelope` is empty before the first."""

    red: Annotated[str, Field(max_length=MAX_MESSAGE_BYTES)]
    clear: OperatorClear
    envelope: Annotated[str, Field(max_length=MAX_CLEAR_BYTES)] = ""

    def check(self) -> None:
        """Raises BadInputError when the clear, or what was signed, is about something else than this red."""
        if (self.clear.ref, self.clear.sha256) != identity(self.red):
            raise BadInputError("this clear is about another red than the one beside it")
        if self.envelope and read_clear(self.envelope.encode()) != self.clear:
            raise BadInputError("what was signed is another clear than the one that is shown")

    @classmethod
    def draft(cls, red: str, reason: str, now: float) -> ClearFile:
        ref, sha256 = identity(red)
        fleet = read_message(red.encode()).payload.fleet
        clear = OperatorClear(fleet=fleet, ref=ref, sha256=sha256, reason=reason, issued=now)
        return cls(red=red, clear=clear)

    def signed(self, key: SigningKey) -> ClearFile:
        raw = (
            add_signature(self.envelope.encode(), key, max_bytes=MAX_CLEAR_BYTES)
            if self.envelope
            else seal(self.clear.canonical(), OPERATOR_CLEAR, key)
        )
        return self.model_copy(update={"envelope": raw.decode()})


def identity(red: str) -> tuple[str, str]:
    """Key and hash of a red, by its envelope. Of the signed bytes alone: whoever relays an envelope can write it
    otherwise, and it stays the same red."""
    opened = peek(red.encode(), MESSAGE, max_bytes=MAX_MESSAGE_BYTES)
    return read_message(red.encode()).key, sha256_hex(opened.payload)


def read_clear(raw: bytes) -> OperatorClear:
    """Before its signatures were looked at, or after that."""
    return OperatorClear.from_bytes(peek(raw, OPERATOR_CLEAR, max_bytes=MAX_CLEAR_BYTES).payload)


def open_clear(raw: bytes, root: Root, fleet: str, speaks: ProtocolRange = SPOKEN) -> OperatorClear:
    """Raises UntrustedError unless as many operators have signed as must sign a release, ProtocolError for one
    that is written for other versions, BadInputError for bytes of the wrong shape."""
    role = root.roles[ROLE]
    keys = [root.keys[keyid] for keyid in role.keyids]
    payload = open_threshold(raw, OPERATOR_CLEAR, keys, role.threshold, max_bytes=MAX_CLEAR_BYTES)
    check_protocol(payload, "an operator", speaks)
    clear = OperatorClear.from_bytes(payload)
    if clear.fleet != fleet:
        raise WrongFleetError("an operator's clear for another fleet")
    return clear


def signers_of(file: ClearFile, root: Root) -> list[str]:
    """Names of the operators whose signature on it holds."""
    found = []
    for keyid in root.roles[ROLE].keyids if file.envelope else []:
        key = root.keys[keyid]
        try:
            open_threshold(
                file.envelope.encode(), OPERATOR_CLEAR, [key], 1, max_bytes=MAX_CLEAR_BYTES
            )
        except UntrustedError:
            continue
        found.append(name_of_key(root, keyid))
    return sorted(found)
