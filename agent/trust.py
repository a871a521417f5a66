"""What this node holds true about the fleet: its document, its roster, and its own keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from agent.config import Identity
from agent.layout import Layout
from shared.durable import read_secret, write_durable
from shared.errors import ConfigError, RollcallError, UntrustedError
from shared.fleet import FleetDocument
from shared.keys import SigningKey
from shared.roster import Role, Roster, RosterNode, open_roster

log = structlog.get_logger()
MAX_ROSTER_BYTES = 8 << 20


class Trust:
    """Loaded at start. The roster only ever moves to a higher epoch, and is durable before it counts."""

    def __init__(
        self,
        identity: Identity,
        key: SigningKey,
        fleet: FleetDocument,
        roster: Roster,
        save: Callable[[bytes], None],
    ) -> None:
        self.identity, self.key, self.fleet, self.roster = identity, key, fleet, roster
        self._save = save

    @property
    def name(self) -> str:
        return self.identity.name

    @property
    def role(self) -> Role:
        return Role(self.identity.role)

    def peers(self) -> list[RosterNode]:
        return [node for node in self.roster.live() if node.name != self.name]

    def peer_names(self) -> list[str]:
        return [node.name for node in self.peers()]

    async def accept_roster(self, raw: bytes) -> bool:
        """True when it is newer and now in force. Raises UntrustedError for a forged one."""
        roster = open_roster(raw, self.fleet)
        if roster.epoch <= self.roster.epoch:
            return False
        await asyncio.to_thread(self._save, raw)
        self.roster = roster
        log.info("roster accepted", epoch=roster.epoch, nodes=len(roster.nodes))
        return True


def load_trust(layout: Layout) -> Trust:
    """Raises ConfigError when this node has not joined, UntrustedError when its files do not fit."""
    if not layout.node_file.exists():
        raise ConfigError(
            f"{layout.home} has not joined a fleet",
            remedy="run: rollcall-agent join TOKEN --name NAME --role ROLE",
        )
    try:
        identity = Identity.model_validate_json(read_secret(layout.node_file))
        fleet = FleetDocument.from_bytes(read_secret(layout.fleet_file))
        roster = open_roster(read_secret(layout.roster_file, max_bytes=MAX_ROSTER_BYTES), fleet)
    except UntrustedError:
        raise
    except (RollcallError, ValueError) as error:
        raise ConfigError(
            f"{layout.identity} is damaged: {error}", remedy="join again with a new token"
        ) from error
    key = SigningKey.load(layout.message_key)
    return Trust(identity, key, fleet, roster, lambda raw: write_durable(layout.roster_file, raw))
