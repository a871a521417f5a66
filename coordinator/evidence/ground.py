"""What is proven of an archive so far, and how its members are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tuf.api.metadata import Metadata, Root, Targets

from shared.canonical import parse_json
from shared.errors import BadInputError, UntrustedError
from shared.fleet import FleetDocument
from shared.messages import Message
from shared.operatorclear import OperatorClear
from shared.roster import Roster

MAX_VALUE_BYTES = 200 << 20
SHOWN = 5


@dataclass
class Ground:
    """What is proven so far."""

    members: dict[str, bytes]
    top: str
    fingerprint: str
    roots: list[Metadata[Root]] = field(default_factory=list)
    targets: list[Metadata[Targets]] = field(default_factory=list)
    fleets: dict[int, FleetDocument] = field(default_factory=dict)
    rosters: list[tuple[str, Roster]] = field(default_factory=list)
    """The newest first."""
    messages: list[Message] = field(default_factory=list)
    operator_clears: list[OperatorClear] = field(default_factory=list)

    def value(self, name: str) -> Any:
        """Raises BadInputError where there is no such member, or one that is no JSON."""
        raw = self.members.get(name)
        if raw is None:
            raise BadInputError(f"{name} is missing")
        return parse_json(raw, max_bytes=MAX_VALUE_BYTES)

    def under(self, folder: str) -> list[tuple[str, bytes]]:
        found = [(n, raw) for n, raw in self.members.items() if n.startswith(f"{folder}/")]
        return sorted(found)

    @property
    def fleet(self) -> FleetDocument:
        if not self.fleets:
            raise UntrustedError("no fleet document is proven")
        return self.fleets[max(self.fleets)]

    @property
    def rollout(self) -> dict[str, Any]:
        body = self.value("rollout.json")
        if not isinstance(body, dict) or body.get("id") != self.top:
            raise BadInputError("rollout.json is about another rollout than the archive")
        return body

    def nodes(self) -> list[dict[str, Any]]:
        nodes = self.rollout.get("nodes")
        if not isinstance(nodes, list) or not all(isinstance(each, dict) for each in nodes):
            raise BadInputError("rollout.json has no list of nodes")
        return nodes


def rows_of(ground: Ground, name: str) -> list[dict[str, Any]]:
    rows = ground.value(name)
    if not isinstance(rows, list) or not all(isinstance(each, dict) for each in rows):
        raise BadInputError(f"{name} is no list of rows")
    return rows


def in_short(wrong: list[str]) -> str:
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return "; ".join(wrong[:SHOWN]) + more
