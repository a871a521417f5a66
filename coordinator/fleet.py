"""The coordinator's knowledge of the fleet: roster, reports, reds, attestations it checked itself."""

from __future__ import annotations

import asyncio

import structlog

from coordinator.home import KeyRing
from coordinator.notifier import Notifier
from coordinator.reds import Reds, red_views
from coordinator.repository import Repository
from coordinator.rollout.decide import Fleet
from coordinator.store.nodes import NodeQueries, StoredNode
from coordinator.store.queries import Queries
from shared.canonical import canonical_json, sha256_hex
from shared.clock import Clock
from shared.errors import BadInputError, UntrustedError
from shared.messages import (
    Attestation,
    Message,
    Verdict,
    open_message,
    read_message,
)
from shared.operatorclear import open_clear
from shared.report import MAX_LISTED, NodeAddresses, NodeReport
from shared.rollout import FleetView, NodeView, RedView
from shared.roster import Roster, sign_roster

log = structlog.get_logger()


class FleetState:
    """Reports are kept as they come; signed messages only when their signature holds."""

    def __init__(
        self,
        queries: Queries,
        nodes: NodeQueries,
        ring: KeyRing,
        repository: Repository,
        notifier: Notifier,
        clock: Clock,
    ) -> None:
        self._queries, self._nodes, self._notifier, self._clock = queries, nodes, notifier, clock
        self._ring, self._repository = ring, repository
        self._joining = asyncio.Lock()
        self.known_reds = Reds(queries, clock)
        self.roster = Roster(fleet=ring.current.fleet, epoch=0, issued=0, nodes=[])
        self.roster_raw = ""
        self._addresses: dict[str, list[str]] = {}
        self._listed: tuple[tuple[int, int], NodeAddresses] | None = None
        """The list for the roster of this number; None after an address has changed."""
        self._read: dict[str, Message] = {}
        """Stored messages, parsed once; their signatures were good when they came."""

    async def load(self) -> None:
        await self.publish_roster()
        for node in await self._nodes.nodes():
            if node.report is not None:
                self._note_addresses(node.report)

    def addresses(self) -> NodeAddresses:
        """Where the nodes of the roster say that they are, the newest word of each."""
        if self._listed is None or self._listed[0] != self.roster.number:
            live = sorted(node.name for node in self.roster.live())
            told = [(name, self._addresses[name]) for name in live if self._addresses.get(name)]
            nodes = dict(told[:MAX_LISTED])
            tag = sha256_hex(canonical_json(nodes))[:16]
            self._listed = (self.roster.number, NodeAddresses(tag=tag, nodes=nodes))
        return self._listed[1]

    def _note_addresses(self, report: NodeReport) -> None:
        if self._addresses.get(report.node) != report.addresses:
            self._addresses[report.node] = report.addresses
            self._listed = None

    async def publish_roster(self) -> None:
        """Sign who is a node now, under a number above every earlier one."""
        async with self._joining:
            fleet = self._repository.fleet
            roster = Roster(
                fleet=self._ring.current.fleet,
                fleet_version=fleet.version if fleet is not None else 1,
                epoch=await self._queries.next_number(
                    "roster_epoch", int(self._clock.now() * 1000)
                ),
                issued=self._clock.now(),
                nodes=await self._nodes.roster_nodes(),
            )
            self.roster_raw = sign_roster(roster, self._ring.current.roster).decode()
            self.roster = roster
        self._notifier.notify()

    async def hear(self, report: NodeReport, raws: list[str]) -> list[str]:
        """Keep a node's word. Returns the hashes of the messages that are durable now; one that does
        not verify is named too, so that its sender does not offer it for ever."""
        kept: list[Message] = []
        for raw in raws:
            try:
                kept.append(open_message(raw.encode(), self.roster))
            except (UntrustedError, BadInputError) as error:
                log.warning("message refused", node=report.node, reason=str(error))
        now = self._clock.now()
        await self._queries.keep_messages(kept, now)
        await self._nodes.hear(report, now)
        self._note_addresses(report)
        self._notifier.notify()
        return [sha256_hex(raw.encode()) for raw in raws]

    async def hear_clears(self, node: str, raws: list[str]) -> list[str]:
        """Operators' clears that a node has and hands on. Returns the hashes of what came; one that does not verify
        is named too, as in `hear`."""
        root, fleet = self._repository.root, self._repository.fleet
        for raw in raws:
            if root is None or fleet is None:
                break
            try:
                clear = await asyncio.to_thread(open_clear, raw.encode(), root.signed, fleet.fleet)
                await self.known_reds.keep(clear, raw)
            except (UntrustedError, BadInputError) as error:
                log.warning("an operator's clear was refused", node=node, reason=str(error))
        return [sha256_hex(raw.encode()) for raw in raws]

    async def fleet(self) -> Fleet:
        nodes = await self._nodes.nodes()
        attested = await self._attested(nodes)
        now = self._clock.now()
        views = {node.name: _view(node, attested.get(node.name, []), now) for node in nodes}
        signed = self._repository.fleet
        witnesses = () if signed is None else tuple(signed.witnesses)
        return Fleet(views, await self.reds(), witnesses)

    async def view(self) -> FleetView:
        """Without trends: whoever watches all nodes draws none, and is sent everything at each change."""
        generation = self._notifier.generation
        fleet = await self.fleet()
        last = await self._queries.last_rollout()
        return FleetView(
            generation=generation,
            nodes=[node.model_copy(update={"trends": []}) for node in fleet.nodes.values()],
            reds=fleet.reds,
            rollout=last[0] if last else None,
        )

    async def reds(self) -> list[RedView]:
        """Of live nodes, in the order they came."""
        found = await self._open("red", "clear", "ack")
        return red_views(found, await self.known_reds.ended_by_operators())

    async def _open(self, *types: str) -> list[Message]:
        """Of the nodes that are in the roster now: who was revoked has no say here any more, and a red
        of before a re-install gates no rollout (the agents hold it until it is dismissed there)."""
        live = {node.name: node.key.keyid for node in self.roster.live()}
        found = []
        for stored in await self._queries.messages_of(*types):
            if stored.key not in self._read:
                self._read[stored.key] = read_message(stored.raw.encode())
            message = self._read[stored.key]
            event = stored.type in ("red", "clear")
            if stored.origin in live and (not event or live[stored.origin] == message.keyid):
                found.append(message)
        return found

    async def _attested(self, nodes: list[StoredNode]) -> dict[str, list[str]]:
        """Who signed green of whom, for the last order of each node and the hash that it shows now."""
        wanted = {
            node.name: (node.report.upgrade.order, node.report.readiness.ready_probe_sha256)
            for node in nodes
            if node.report is not None and node.report.upgrade is not None
        }
        signed: dict[str, set[str]] = {}
        for message in await self._open("attestation"):
            body = message.payload.body
            if not isinstance(body, Attestation) or body.verdict is not Verdict.GREEN:
                continue
            fits = wanted.get(body.subject) == (body.order, body.ready_probe_sha256)
            if fits and message.payload.origin != body.subject:
                signed.setdefault(body.subject, set()).add(message.payload.origin)
        return {name: sorted(peers) for name, peers in signed.items()}


def _view(node: StoredNode, attested_by: list[str], now: float) -> NodeView:
    view = NodeView(
        name=node.name, role=node.role, site=node.site, joined=node.joined, heard=node.heard
    )
    report = node.report
    if report is None:
        return view
    ready = report.readiness
    return view.model_copy(
        update={
            "age_s": None if node.heard is None else round(max(0.0, now - node.heard), 1),
            "status": ready.status,
            "reason": ready.reason,
            "ready_probe_sha256": ready.ready_probe_sha256,
            "evidence_sha256": ready.evidence_sha256,
            "release": report.release,
            "version_on_disk": report.version_on_disk,
            "version_running": report.version_running,
            "agent_version": report.agent_version,
            "protocol": report.protocol,
            "upgrade": report.upgrade,
            "waiting": report.waiting,
            "frozen_by": report.frozen_by,
            "freezes": report.freezes,
            "peers": report.peers,
            "away": report.away,
            "urls": report.urls,
            "broadcasts": report.broadcasts,
            "alerts": report.alerts,
            "certificate_expires": report.certificate_expires,
            "standing": report.standing,
            "trends": report.trends,
            "roster_epoch": report.roster_epoch,
            "attested_by": attested_by,
        }
    )
