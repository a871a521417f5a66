"""Envelopes that were verified and kept, known again by their bytes: none is verified twice."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

MAX_KNOWN = 4096


class Known:
    """The latest `MAX_KNOWN`, each with this node's ack where it gave one. What is added has been verified and is
    durable. To be cleared when the roster changes: what it says of a key may be otherwise then."""

    def __init__(self) -> None:
        self._acks: OrderedDict[bytes, bytes] = OrderedDict()

    def __contains__(self, raw: bytes) -> bool:
        return _digest(raw) in self._acks

    def ack(self, raw: bytes) -> bytes | None:
        return self._acks.get(_digest(raw)) or None

    def add(self, raw: bytes, ack: bytes = b"") -> None:
        self._acks[_digest(raw)] = ack
        if len(self._acks) > MAX_KNOWN:
            self._acks.popitem(last=False)

    def clear(self) -> None:
        self._acks.clear()


def _digest(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()
