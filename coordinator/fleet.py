"""The coordinator's knowledge of the fleet: roster, reports, reds, attestations it checked itself."""

from __future__ import annotations

import asyncio

import structlog

from coordinator.home import Keys
from coordinator.notifier import Notifier
from coordinator.rollout.decide import Fleet
from coordinator.store.queries import Queries, StoredNode
from shared.canonical import sha256_hex
from shared.clock import Clock
from shared.errors import BadInputError, UntrustedError
from shared.messages import (
    Ack,
    Attestation,
    Clear,
    Message,
    Red,
    Verdict,
    open_message,
)
from shared.report import NodeReport
from shared.rollout import FleetView, NodeView, RedView
from shared.roster import Roster, sign_roster

log = structlog.get_logger()


class FleetState:
    """Reports are kept as they come; signed messages only when their signature holds."""

    def __init__(self, queries: Queries, keys: Keys, notifier: Notifier, clock: Clock) -> None:
        self._queries, self._keys, self._notifier, self._clock = queries, keys, notifier, clock
        self._joining = asyncio.Lock()
        self.roster = Roster(fleet=keys.fleet.fleet, epoch=0, issued=0, nodes=[])
        self.roster_raw = ""
        self._verified: dict[str, Message] = {}
        """Messages whose signature held under this very roster, so that each is checked once."""

    async def load(self) -> None:
        await self.publish_roster()

    async def publish_roster(self) -> None:
        """Sign who is a node now, under a number above every earlier one."""
        async with self._joining:
            roster = Roster(
                fleet=self._keys.fleet.fleet,
                epoch=await self._queries.next_number("roster_epoch"),
                issued=self._clock.now(),
                nodes=await self._queries.roster_nodes(),
            )
            self.roster_raw = sign_roster(roster, self._keys.roster).decode()
            self.roster = roster
            self._verified.clear()
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
        await self._queries.hear(report, now)
        self._notifier.notify()
        return [sha256_hex(raw.encode()) for raw in raws]

    async def fleet(self) -> Fleet:
        nodes = await self._queries.nodes()
        attested = await self._attested(nodes)
        now = self._clock.now()
        views = {node.name: _view(node, attested.get(node.name, []), now) for node in nodes}
        return Fleet(views, await self.reds())

    async def view(self) -> FleetView:
        generation = self._notifier.generation
        fleet = await self.fleet()
        last = await self._queries.last_rollout()
        return FleetView(
            generation=generation,
            nodes=list(fleet.nodes.values()),
            reds=fleet.reds,
            rollout=last[0] if last else None,
        )

    async def reds(self) -> list[RedView]:
        """Reds in the order they came, with who holds them and whether they are over."""
        opened: list[Message] = []
        cleared: set[str] = set()
        acked: dict[str, set[str]] = {}
        for message in await self._open("red", "clear", "ack"):
            body = message.payload.body
            match body:
                case Red():
                    opened.append(message)
                case Clear() if body.ref.startswith(f"{message.payload.origin}:"):
                    cleared.add(body.ref)
                case Ack():
                    acked.setdefault(body.ref, set()).add(message.payload.origin)
                case _:
                    pass
        return [_red_view(red, cleared, acked.get(red.key, set())) for red in opened]

    async def _open(self, *types: str) -> list[Message]:
        found = []
        for stored in await self._queries.messages_of(*types):
            message = self._verified.get(stored.key)
            if message is None:
                try:
                    message = open_message(stored.raw.encode(), self.roster)
                except (UntrustedError, BadInputError):
                    continue  # of a node that left the roster since
                self._verified[stored.key] = message
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


def _red_view(red: Message, cleared: set[str], acked: set[str]) -> RedView:
    body = red.payload.body
    if not isinstance(body, Red):
        raise BadInputError("not a red")
    return RedView(
        key=red.key,
        origin=red.payload.origin,
        kind=body.kind,
        reason=body.reason,
        issued=red.payload.issued,
        open=red.key not in cleared,
        acked_by=sorted(acked),
    )


def _view(node: StoredNode, attested_by: list[str], now: float) -> NodeView:
    view = NodeView(name=node.name, role=node.role, joined=node.joined, heard=node.heard)
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
            "upgrade": report.upgrade,
            "waiting": report.waiting,
            "frozen_by": report.frozen_by,
            "peers": report.peers,
            "urls": report.urls,
            "broadcasts": report.broadcasts,
            "attested_by": attested_by,
        }
    )
