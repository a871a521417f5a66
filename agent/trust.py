"""What this node holds true about the fleet: its document, its roster, and its own keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from agent.config import Identity
from agent.layout import Layout
from shared.durable import read_secret, write_durable
from shared.envelope import ROSTER, peek
from shared.errors import ConfigError, RollcallError, UntrustedError
from shared.fleet import FleetDocument
from shared.keys import PublicKey, SigningKey
from shared.roster import MAX_ROSTER_BYTES, Role, Roster, RosterNode, open_roster

log = structlog.get_logger()


class Trust:
    """Loaded at start. Roster and fleet document only ever move forward, and are durable before they
    count. `on_change` is called after either did."""

    def __init__(
        self,
        layout: Layout,
        identity: Identity,
        key: SigningKey,
        fleet: FleetDocument,
        roster: Roster,
    ) -> None:
        self._layout = layout
        self.identity, self.key, self.fleet, self.roster = identity, key, fleet, roster
        self.roster_raw = b""
        self._listeners: list[Callable[[], None]] = []
        self._moving = asyncio.Lock()

    def listen(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    @property
    def name(self) -> str:
        return self.identity.name

    @property
    def role(self) -> Role:
        """As the roster has it now: operators may change it after the node has joined."""
        mine = (node.role for node in self.roster.nodes if node.name == self.name)
        return next(mine, Role(self.identity.role))

    @property
    def revoked(self) -> bool:
        return any(node.revoked for node in self.roster.nodes if node.name == self.name)

    def peers(self) -> list[RosterNode]:
        return [node for node in self.roster.live() if node.name != self.name]

    def peer_names(self) -> list[str]:
        return [node.name for node in self.peers()]

    def signs(self, name: str, keyid: str | None) -> bool:
        """Whether this is the key that the roster names for a live node today."""
        return any(node.name == name and node.key.keyid == keyid for node in self.roster.live())

    async def accept_roster(self, raw: bytes) -> bool:
        """True when it is newer and now in force. Raises UntrustedError for a forged one, and for one
        that goes with another version of the fleet document."""
        async with self._moving:
            roster = open_roster(raw, self.fleet)
            if roster.number <= self.roster.number:
                return False
            await asyncio.to_thread(write_durable, self._layout.roster_file, raw)
            self.roster, self.roster_raw = roster, raw
        log.info("roster accepted", epoch=roster.epoch, nodes=len(roster.nodes))
        self._tell()
        return True

    async def accept_fleet(self, document: FleetDocument) -> bool:
        """True when it is newer and now in force, or says what an older agent of this node has left out. Operators
        signed it: the caller has checked that.

        Raises UntrustedError for another fleet's.
        """
        if document.fleet != self.fleet.fleet:
            raise UntrustedError("this fleet document belongs to another fleet")
        async with self._moving:
            if document.version < self.fleet.version or document == self.fleet:
                return False
            await asyncio.to_thread(self._keep_fleet, document)
            self.fleet = document
        log.info("fleet document accepted", version=document.version)
        self._tell()
        return True

    def _keep_fleet(self, document: FleetDocument) -> None:
        """The document last: a crash in between is repaired by hearing of it again."""
        write_durable(self._layout.tls.ca, document.bundle)
        write_durable(self._layout.fleet_file, document.canonical())

    async def following_key(self) -> SigningKey:
        """A message key to change to; the one of an attempt that was cut short, or a new one."""

        def make() -> SigningKey:
            if not self._layout.next_message_key.exists():
                SigningKey.generate().save(self._layout.next_message_key)
            return SigningKey.load(self._layout.next_message_key)

        return await asyncio.to_thread(make)

    async def settle_key(self) -> None:
        """Once the roster names the next message key, it is the one to sign with."""
        path = self._layout.next_message_key
        if not path.exists():
            return
        following = await asyncio.to_thread(SigningKey.load, path)
        if _key_in(self.roster, self.name) == following.public:
            await asyncio.to_thread(path.replace, self._layout.message_key)
            self.key = following
            log.info("message key changed", keyid=following.public.keyid)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


def _key_in(roster: Roster, name: str) -> PublicKey | None:
    return next((node.key for node in roster.nodes if node.name == name), None)


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
        raw = read_secret(layout.roster_file, max_bytes=MAX_ROSTER_BYTES)
        roster = _kept_roster(raw, fleet)
    except UntrustedError:
        raise
    except (RollcallError, ValueError) as error:
        raise ConfigError(
            f"{layout.identity} is damaged: {error}", remedy="join again with a new token"
        ) from error
    trust = Trust(layout, identity, SigningKey.load(layout.message_key), fleet, roster)
    trust.roster_raw = raw
    return trust


def _kept_roster(raw: bytes, fleet: FleetDocument) -> Roster:
    """The roster on disk was verified when it came. After a change of the roster key it may still be one
    of the version before, until the coordinator or a peer hands over its successor."""
    roster = Roster.from_bytes(
        peek(raw, ROSTER, max_bytes=MAX_ROSTER_BYTES).payload, max_bytes=MAX_ROSTER_BYTES
    )
    if roster.fleet_version < fleet.version and roster.fleet == fleet.fleet:
        return roster
    return open_roster(raw, fleet)
