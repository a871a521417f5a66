"""The coordinator's knowledge of the fleet: roster, reports, reds, attestations it checked itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import structlog

from coordinator.health import LastWord, health_score, node_status
from coordinator.home import KeyRing
from coordinator.notifier import Notifier
from coordinator.reds import Reds, red_views
from coordinator.repository import Repository
from coordinator.rollout.facts import Fleet
from coordinator.store.evidence import EvidenceStore
from coordinator.store.heartbeats import Heartbeats
from coordinator.store.nodes import NodeQueries, StoredNode
from coordinator.store.queries import Queries, StoredMessage
from coordinator.upgrades import UpgradeBook
from coordinator.watched import NOTHING_SAID, Said, Watched, watch
from shared.attesting import NO_ANSWER, quorum, tally
from shared.canonical import canonical_json, sha256_hex
from shared.clock import Clock
from shared.errors import BadInputError, UntrustedError
from shared.messages import (
    Attestation,
    Message,
    Proven,
    Verdict,
    open_message,
    read_message,
)
from shared.nodes import PendingUpgrade, Revoked
from shared.operatorclear import open_clear
from shared.report import MAX_LISTED, NodeAddresses, NodeReport
from shared.rollout import FINAL, FleetView, NodeView, RedView, Rollout, RolloutNode
from shared.roster import Role, Roster, sign_roster

BEATS_TOLD_S = 1.0

log = structlog.get_logger()


class Word(NamedTuple):
    """Of one report: `raw` is its JSON. `moved` is what it says of an upgrade: order, phase, how it ended and how the
    node is since, and what it runs."""

    node: str
    raw: str
    addresses: list[str]
    moved: tuple[str, ...] | None


class FleetState:
    """Reports are kept as they come; signed messages only when their signature holds."""

    def __init__(  # noqa: PLR0913, PLR0917 - one part out of everything that it joins
        self,
        queries: Queries,
        nodes: NodeQueries,
        heartbeats: Heartbeats,
        ring: KeyRing,
        repository: Repository,
        notifier: Notifier,
        clock: Clock,
        evidence: EvidenceStore,
        upgrades: UpgradeBook,
    ) -> None:
        self._upgrades, self._heartbeats = upgrades, heartbeats
        self._queries, self._nodes, self._notifier, self._clock = queries, nodes, notifier, clock
        self._evidence = evidence
        self._ring, self._repository = ring, repository
        self._joining = asyncio.Lock()
        self.known_reds = Reds(queries, clock)
        self.roster = Roster(fleet=ring.current.fleet, epoch=0, issued=0, nodes=[])
        self.roster_raw = ""
        self._addresses: dict[str, list[str]] = {}
        self._moves: dict[str, tuple[str, ...]] = {}
        self.upgrade_news = 0
        """Goes up when a node says something new of an upgrade."""
        self._listed: tuple[tuple[int, int], NodeAddresses] | None = None
        """The list for the roster of this number; None after an address has changed."""
        self._told = clock.now()
        """When who watches the fleet was told of heartbeats that say nothing new."""
        self._said: dict[str, tuple[str | None, Said]] = {}
        self._read: dict[str, Message] = {}
        """Stored messages, parsed once; their signatures were good when they came."""

    async def load(self) -> None:
        await self.publish_roster()
        for node in await self._nodes.nodes():
            if (report := node.parsed()) is not None:
                self._addresses[node.name] = report.addresses

    def addresses(self) -> NodeAddresses:
        """Where the nodes of the roster say that they are, the newest word of each."""
        if self._listed is None or self._listed[0] != self.roster.number:
            live = sorted(node.name for node in self.roster.live())
            told = [(name, self._addresses[name]) for name in live if self._addresses.get(name)]
            nodes = dict(told[:MAX_LISTED])
            tag = sha256_hex(canonical_json(nodes))[:16]
            self._listed = (self.roster.number, NodeAddresses(tag=tag, nodes=nodes))
        return self._listed[1]

    async def publish_roster(self) -> None:
        """Sign who is a node now, under a number above every earlier one."""
        async with self._joining:
            await self._publish(await self._next_epoch())
        self._notifier.notify()

    async def revoke(self, name: str) -> Revoked:
        """Raises NotFoundError for a node that never joined."""
        async with self._joining:
            epoch = await self._next_epoch()
            if not await self._nodes.revoke(name, epoch):
                return Revoked(name=name, epoch=self.roster.epoch, again=True)
            await self._publish(epoch)
        self._notifier.notify()
        return Revoked(name=name, epoch=epoch, again=False)

    async def _next_epoch(self) -> int:
        return await self._queries.next_number("roster_epoch", int(self._clock.now() * 1000))

    async def _publish(self, epoch: int) -> None:
        fleet = self._repository.fleet
        roster = Roster(
            fleet=self._ring.current.fleet,
            fleet_version=fleet.version if fleet is not None else 1,
            epoch=epoch,
            issued=self._clock.now(),
            nodes=await self._nodes.roster_nodes(),
        )
        raw = sign_roster(roster, self._ring.current.roster).decode()
        await self._evidence.keep_roster(roster, raw)
        self.roster, self.roster_raw = roster, raw

    async def hear_messages(self, report: NodeReport, raws: list[str]) -> list[str]:
        """Keep what comes with a node's word: signed messages, and the ends of upgrades. Returns the hashes of the
        messages that are durable now; one that does not verify is named too, so that its sender does not offer it
        for ever."""
        kept: list[Message] = []
        for raw in raws:
            try:
                kept.append(open_message(raw.encode(), self.roster))
            except (UntrustedError, BadInputError) as error:
                log.warning("message refused", node=report.node, reason=str(error))
        now = self._clock.now()
        await self._queries.keep_messages(kept, now)
        if any(self._waits_for(message) for message in kept):
            self._notifier.press()
        await self._evidence.note(report, now)
        await self._upgrades.hear(report)
        return [sha256_hex(raw.encode()) for raw in raws]

    def _waits_for(self, message: Message) -> bool:
        """An attestation of a node that has ended its upgrade."""
        body = message.payload.body
        return isinstance(body, Attestation) and _has_ended(self._moves.get(body.subject))

    def take(self, report: NodeReport) -> Word:
        """What `keep` needs of a report. Of thousands that come at once only this much is held."""
        upgrade, moved = report.upgrade, None
        if upgrade is not None:
            ended = (
                "" if upgrade.outcome is None else f"{upgrade.outcome} {report.readiness.status}"
            )
            moved = (upgrade.order, upgrade.phase, ended, report.release or "")
        return Word(report.node, report.model_dump_json(), report.addresses, moved)

    async def keep(self, word: Word) -> None:
        """Returns when the report is durable."""
        await self._heartbeats.keep(word.node, self._clock.now(), word.raw)
        if self._addresses.get(word.node) != word.addresses:
            self._addresses[word.node] = word.addresses
            self._listed = None
        if word.moved is not None and self._moves.get(word.node) != word.moved:
            self._moves[word.node] = word.moved
            self.upgrade_news += 1
            if _has_ended(word.moved):
                self._notifier.press()
        self._notifier.seen()

    async def beat(self, node: str) -> None:
        """It says the same as before: it lives."""
        now = self._clock.now()
        await self._heartbeats.keep(node, now, None)
        if abs(now - self._told) >= BEATS_TOLD_S:
            self._told = now
            self._notifier.beaten()

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
        """Without trends and checks that pass, which nothing is decided by."""
        return Fleet(await self._views(StoredNode.briefly), await self.reds(), self.witnesses)

    async def _views(
        self, report_of: Callable[[StoredNode], NodeReport | None]
    ) -> dict[str, NodeView]:
        now = self._clock.now()
        views = {node.name: _view(node, report_of(node), now) for node in await self._nodes.nodes()}
        shown = {
            name: (view.upgrade.order, view.ready_probe_sha256)
            for name, view in views.items()
            if view.upgrade is not None
        }
        for name, peers in (await self._attested(shown)).items():
            views[name] = views[name].model_copy(update={"attested_by": peers})
        return views

    @property
    def witnesses(self) -> tuple[str, ...]:
        signed = self._repository.fleet
        return () if signed is None else tuple(signed.witnesses)

    async def watched(self) -> dict[str, Watched]:
        """Of every live node what alerts rest on. Only a report that was not looked at before is parsed."""
        nodes, known = await self._nodes.nodes(), self._said
        self._said = {node.name: _said(node, known.get(node.name)) for node in nodes}
        now = self._clock.now()
        found = {
            node.name: watch(node.joined, node.heard, self._said[node.name][1], now)
            for node in nodes
        }
        shown = {
            name: (each.said.upgrade.order, each.said.ready_probe_sha256)
            for name, each in found.items()
            if each.said.upgrade is not None
        }
        for name, peers in (await self._attested(shown)).items():
            found[name] = found[name]._replace(attested_by=peers)
        return found

    async def nodes(self, *, brief: bool = False) -> list[NodeView]:
        """As people are shown them: with what each is still to run and, unless `brief`, with trends and checks that
        pass, which are most of it."""
        report_of = StoredNode.briefly if brief else StoredNode.parsed
        views, last = await self._views(report_of), await self._queries.last_rollout()
        return _with_pending(views.values(), last[0] if last else None)

    async def view(self) -> FleetView:
        """Without trends and checks: who watches all nodes draws none, and is sent everything at each change."""
        generation = self._notifier.generation
        fleet = await self.fleet()
        last = await self._queries.last_rollout()
        rollout = last[0] if last else None
        nodes = _with_pending(fleet.nodes.values(), rollout)
        return FleetView(generation=generation, nodes=nodes, reds=fleet.reds, rollout=rollout)

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
            message = self._read_once(stored)
            event = stored.type in ("red", "clear")
            if stored.origin in live and (not event or live[stored.origin] == message.keyid):
                found.append(message)
        return found

    def _read_once(self, stored: StoredMessage) -> Message:
        if stored.key not in self._read:
            self._read[stored.key] = read_message(stored.raw.encode())
        return self._read[stored.key]

    async def unsigned(
        self, steps: Mapping[str, tuple[str, str]], fleet: Fleet
    ) -> dict[str, dict[str, str]]:
        """For each node and its (step, release): who of the quorum has not signed a claim of the node in this very
        step, and what was said instead. Every signature was checked when it came."""
        live = {node.name for node in self.roster.live()}
        claims: dict[str, list[Proven]] = {name: [] for name in steps}
        said: dict[str, list[tuple[str, Attestation]]] = {name: [] for name in steps}
        for stored in await self._queries.messages_about([order for order, _ in steps.values()]):
            body, subject = self._read_once(stored).payload.body, stored.ref.partition(":")[2]
            if stored.origin not in live or steps.get(subject, ("", ""))[0] != stored.ref:
                continue
            if isinstance(body, Proven) and stored.origin == subject:
                claims[subject].append(body)
            elif isinstance(body, Attestation):
                said[subject].append((stored.origin, body))
        found = {}
        for name, (_, release) in steps.items():
            wanted = quorum(name, fleet.nodes, fleet.witnesses)
            tallies = [
                tally(name, claim, said[name], wanted, live)
                for claim in claims[name]
                if claim.release == release
            ]
            nobody = dict.fromkeys(wanted, NO_ANSWER)
            found[name] = min(tallies, key=len, default=nobody)
        return found

    async def _attested(self, shown: Mapping[str, tuple[str, str | None]]) -> dict[str, list[str]]:
        """Who signed green of whom, for the last order of each node and the hash that it shows now."""
        signed: dict[str, set[str]] = {}
        for message in await self._open("attestation"):
            body = message.payload.body
            if not isinstance(body, Attestation) or body.verdict is not Verdict.GREEN:
                continue
            fits = shown.get(body.subject) == (body.order, body.ready_probe_sha256)
            if fits and message.payload.origin != body.subject:
                signed.setdefault(body.subject, set()).add(message.payload.origin)
        return {name: sorted(peers) for name, peers in signed.items()}


def _has_ended(moved: tuple[str, ...] | None) -> bool:
    return moved is not None and bool(moved[2])


def _with_pending(views: Iterable[NodeView], rollout: Rollout | None) -> list[NodeView]:
    if rollout is None or rollout.ended is not None:
        return list(views)
    pending = {node.name: node for node in rollout.nodes if node.state not in FINAL}
    return [
        view
        if (node := pending.get(view.name)) is None
        else view.model_copy(update={"pending": _pending(rollout, node)})
        for view in views
    ]


def _pending(rollout: Rollout, node: RolloutNode) -> PendingUpgrade:
    return PendingUpgrade(
        order=node.order,
        release=node.release or rollout.release,
        label=rollout.label,
        strategy=rollout.strategy,
        set_by=rollout.set_by,
        set_at=rollout.created,
    )


def _said(node: StoredNode, known: tuple[str | None, Said] | None) -> tuple[str | None, Said]:
    """With the report that it is of: the very same string is the very same report."""
    if known is not None and known[0] is node.raw:
        return known
    report = node.parsed()
    return node.raw, NOTHING_SAID if report is None else Said.of(report)


_UNHEARD: Final = NodeView(name="unheard", role=Role.STABLE, joined=0)
"""What each view is made from. Its values were checked when they came in: to make a model of each anew, with lists of
its own, took half of the time in which a page of a thousand nodes is answered."""


def _view(node: StoredNode, report: NodeReport | None, now: float) -> NodeView:
    known = {"name": node.name, "joined": node.joined, "heard": node.heard, **dict(node.about)}
    if report is None:
        return _UNHEARD.model_copy(update=known)
    ready = report.readiness
    word = LastWord(node.heard, report.release, ready.status, report.upgrade, report.health)
    score = health_score(word, now)
    return _UNHEARD.model_copy(
        update={
            **known,
            "node_status": node_status(word, score, now),
            "health_score": score,
            "health": report.health,
            "cohort": report.cohort,
            "age_s": None if node.heard is None else round(max(0.0, now - node.heard), 1),
            "status": ready.status,
            "reason": ready.reason,
            "platform": ready.platform,
            "concerns": ready.concerns,
            "checks": ready.checks,
            "ready_probe_sha256": ready.ready_probe_sha256,
            "evidence_sha256": ready.evidence_sha256,
            "release": report.release,
            "version_on_disk": report.version_on_disk,
            "version_running": report.version_running,
            "agent_version": report.agent_version,
            "protocol": report.protocol,
            "upgrade": report.upgrade,
            "waiting": report.waiting,
            "withdrawn": report.withdrawn or [],
            "frozen_by": report.frozen_by,
            "freezes": report.freezes,
            "peers": report.peers,
            "away": report.away,
            "urls": report.urls,
            "broadcasts": report.broadcasts,
            "alerts": report.alerts,
            "certificate_expires": report.certificate_expires,
            "blocked": report.blocked,
            "standing": report.standing,
            "trends": report.trends,
            "balancers": report.balancers,
            "weight": report.weight,
            "weight_wanted": report.weight_wanted,
            "weight_waits": report.weight_waits,
            "roster_epoch": report.roster_epoch,
        }
    )
