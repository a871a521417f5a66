"""Who is a node: signed by the coordinator's roster key, numbered, never replaced by an older one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Annotated

from pydantic import Field

from shared.envelope import ROSTER, open_envelope, seal
from shared.errors import NotFoundError, UntrustedError
from shared.fleet import FleetDocument, SiteName
from shared.keys import PublicKey, SigningKey
from shared.wire import MAX_INTEGER, NodeName, Sha256, Wire

DOMAIN = "rollcall.internal"
MAX_ROSTER_BYTES = 8 << 20
COORDINATOR_HOST = f"coordinator.{DOMAIN}"
"""TLS names: identity is the certificate's name, never the address that was dialled."""


CLOCK_GRAIN_S = 2.0
"""Certificates count whole seconds."""


@dataclass(frozen=True)
class PeerCertificate:
    """What a verified certificate says: whose it is, and when it was issued, in seconds."""

    name: str
    issued: float


class Role(StrEnum):
    CANARY = "canary"
    STABLE = "stable"
    WITNESS = "witness"


class NodeClass(StrEnum):
    """Which part of the service a node is (seed 004): it decides in which order classes move."""

    BOOTSTRAP = "bootstrap"
    GATEWAY = "gateway"
    WORKER = "worker"
    SCHEDULER = "scheduler"


class RosterNode(Wire):
    name: NodeName
    role: Role
    site: SiteName = ""
    key: PublicKey
    joined: float = 0.0
    """A certificate that was issued before counts no more: it is of the node's life before."""
    revoked: bool = False


class Roster(Wire):
    """Newer is a higher (`fleet_version`, `epoch`): a change of the roster key, which raises the fleet
    document's version, leaves behind whatever numbers a thief of the old key has used up."""

    fleet: Sha256
    fleet_version: Annotated[int, Field(ge=1, le=MAX_INTEGER)] = 1
    epoch: Annotated[int, Field(ge=0, le=MAX_INTEGER)]
    issued: float
    nodes: Annotated[list[RosterNode], Field(max_length=10_000)]

    def find(self, name: str) -> RosterNode:
        for node in self.nodes:
            if node.name == name:
                return node
        raise NotFoundError(f"{name!r} is not in the roster")

    @property
    def number(self) -> tuple[int, int]:
        return self.fleet_version, self.epoch

    @cached_property
    def _by_name(self) -> dict[str, RosterNode]:
        """Live ones: every request asks for one."""
        return {node.name: node for node in reversed(self.live())}

    @cached_property
    def by_keyid(self) -> dict[str, RosterNode]:
        """Revoked ones too."""
        return {node.key.keyid: node for node in self.nodes}

    def live(self) -> list[RosterNode]:
        return [node for node in self.nodes if not node.revoked]

    def admits(self, peer: PeerCertificate | None) -> bool:
        """Whether this certificate is a live node's, and of its present life."""
        node = None if peer is None else self._by_name.get(peer.name)
        return peer is not None and node is not None and peer.issued >= node.joined - CLOCK_GRAIN_S

    def has(self, name: str) -> bool:
        """Whether a live node is called so."""
        return name in self._by_name

    def key_of(self, name: str) -> PublicKey:
        """The message key of a node that may speak. Raises UntrustedError when it may not."""
        if (node := self._by_name.get(name)) is not None:
            return node.key
        raise UntrustedError(f"{name!r} is not in the roster, or was revoked")


def tls_name(node: str) -> str:
    return f"{node}.{DOMAIN}"


def sign_roster(roster: Roster, key: SigningKey) -> bytes:
    return seal(roster.canonical(), ROSTER, key)


def open_roster(raw: bytes, fleet: FleetDocument) -> Roster:
    """Raises UntrustedError for a roster of another fleet, another key, or another fleet document."""
    opened = open_envelope(raw, ROSTER, [fleet.roster_key], max_bytes=MAX_ROSTER_BYTES)
    roster = Roster.from_bytes(opened.payload, max_bytes=MAX_ROSTER_BYTES)
    if roster.fleet != fleet.fleet:
        raise UntrustedError("this roster belongs to another fleet")
    if roster.fleet_version != fleet.version:
        raise UntrustedError(
            f"this roster goes with version {roster.fleet_version} of the fleet document, "
            f"not with {fleet.version}"
        )
    return roster
