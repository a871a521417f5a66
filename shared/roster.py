"""Who is a node: signed by the fleet's roster key, numbered, never replaced by an older one."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from shared.envelope import ROSTER, open_envelope, seal
from shared.errors import NotFoundError, UntrustedError
from shared.fleet import FleetDocument
from shared.keys import PublicKey, SigningKey
from shared.wire import NodeName, Sha256, Wire

DOMAIN = "rollcall.internal"
COORDINATOR_HOST = f"coordinator.{DOMAIN}"
"""TLS names: identity is the certificate's name, never the address that was dialled."""


class Role(StrEnum):
    CANARY = "canary"
    STABLE = "stable"
    WITNESS = "witness"


class RosterNode(Wire):
    name: NodeName
    role: Role
    key: PublicKey
    revoked: bool = False


class Roster(Wire):
    fleet: Sha256
    epoch: int
    issued: float
    nodes: Annotated[list[RosterNode], Field(max_length=10_000)]

    def find(self, name: str) -> RosterNode:
        for node in self.nodes:
            if node.name == name:
                return node
        raise NotFoundError(f"{name!r} is not in the roster")

    def live(self) -> list[RosterNode]:
        return [node for node in self.nodes if not node.revoked]

    def key_of(self, name: str) -> PublicKey:
        """The message key of a node that may speak. Raises UntrustedError when it may not."""
        for node in self.nodes:
            if node.name == name and not node.revoked:
                return node.key
        raise UntrustedError(f"{name!r} is not in the roster, or was revoked")


def tls_name(node: str) -> str:
    return f"{node}.{DOMAIN}"


def sign_roster(roster: Roster, key: SigningKey) -> bytes:
    return seal(roster.canonical(), ROSTER, key)


def open_roster(raw: bytes, fleet: FleetDocument) -> Roster:
    opened = open_envelope(raw, ROSTER, [fleet.roster_key], max_bytes=8 << 20)
    roster = Roster.from_bytes(opened.payload, max_bytes=8 << 20)
    if roster.fleet != fleet.fleet:
        raise UntrustedError("this roster belongs to another fleet")
    return roster
