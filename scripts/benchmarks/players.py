"""Nodes that say to a coordinator what agents say, and do nothing: each has joined by itself, has its own keys and its
own mutual TLS, holds a long poll and tells what is new beside it, claims its order before it begins, signs its claim
to be green, and looks at no peer but signs that it has.

Each phase is told by itself, and the next begins when the coordinator has answered: an agent waits for no answer there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from agent.config import UpgradeConfig
from agent.coordinator import Coordinator
from agent.dialler import Dialler
from agent.join import join
from agent.layout import Layout
from agent.orders.claims import UpgradeClaims
from agent.trust import Trust, load_trust
from agent.upgrade.phases import FORWARD, Phase
from scripts.benchmarks.crowding import report_of
from shared.canonical import sha256_hex
from shared.clock import Clock
from shared.envelope import ROSTER, peek
from shared.errors import RollcallError
from shared.fleet import JoinToken
from shared.messages import Attestation, Body, Message, Payload, Proven, Verdict, sign_message
from shared.report import ReadinessSummary, SyncRequest, Target, UpgradeReport
from shared.roster import MAX_ROSTER_BYTES, Role, Roster

WAIT_S = 12.0
"""As an agent's."""
AGAIN_S = 0.5
"""After a claim that was refused."""

Ask = Callable[[str, Proven], Awaitable[None]]
"""Have the peers of this node sign for its claim."""


class Player:
    """Made by `enter`. `cores` are the versions of the releases to come; `ask` returns once the coordinator has what
    the peers sign."""

    def __init__(
        self, trust: Trust, dialler: Dialler, cores: Mapping[str, str], clock: Clock, ask: Ask
    ) -> None:
        self.trust, self._dialler = trust, dialler
        self._coordinator = Coordinator(dialler, trust.identity.url)
        self._claims = UpgradeClaims(self._coordinator, UpgradeConfig())
        self._clock, self._ask, self._cores = clock, ask, cores
        self._report = report_of(self.name, 0)
        self._roster, self._repository, self._addresses = (0, 0), 0, ""
        self._traffic, self._orders = "", ""
        self._holds: str | None = None
        self._done: set[str] = set()
        self._unsent: list[Message] = []
        self._sequence = 0
        self._news = asyncio.Event()
        self._target: Target | None = None

    @classmethod
    async def enter(
        cls,
        folder: Path,
        name: str,
        token: JoinToken,
        cores: Mapping[str, str],
        clock: Clock,
        ask: Ask,
    ) -> Player:
        """Join the fleet, and be heard for the first time."""
        layout = Layout(folder / name)
        await join(layout, token, name, Role.STABLE)
        trust = await asyncio.to_thread(load_trust, layout)
        player = cls(trust, Dialler(layout.tls), cores, clock, ask)
        await player.tell()
        return player

    @property
    def name(self) -> str:
        return self.trust.name

    async def close(self) -> None:
        await self._dialler.close()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._move())

    async def _listen(self) -> None:
        while True:
            await self.tell(wait_s=WAIT_S)

    async def tell(self, wait_s: float = 0.0) -> None:
        """One exchange."""
        sent = [] if wait_s else list(self._unsent)
        answer = await self._coordinator.sync(
            SyncRequest(
                report=self._report,
                holds=self._holds,
                wait_s=wait_s,
                roster=self._roster,
                repository=self._repository,
                messages=[message.raw for message in sent],
                addresses=self._addresses,
                traffic=self._traffic,
                orders=self._orders,
            )
        )
        self._unsent = [each for each in self._unsent if each.sha256 not in set(answer.stored)]
        self._repository = answer.repository
        if answer.roster is not None:
            raw = peek(answer.roster.encode(), ROSTER, max_bytes=MAX_ROSTER_BYTES).payload
            self._roster = Roster.from_bytes(raw, max_bytes=MAX_ROSTER_BYTES).number
        self._addresses = self._addresses if answer.addresses is None else answer.addresses.tag
        self._traffic = self._traffic if answer.traffic is None else answer.traffic.tag
        self._orders = self._orders if answer.orders is None else answer.orders.tag
        self._take(answer.target)

    def _take(self, target: Target | None) -> None:
        self._holds = None if target is None else target.order
        if target is not None and target.order not in self._done:
            self._target = target
            self._news.set()

    async def _move(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            target = self._target
            if target is None or target.order in self._done:
                continue
            if await self._claims.claim(target):
                await self._clock.sleep(AGAIN_S)
                self._news.set()
                continue
            self._done.add(target.order)
            await self._upgrade(target)

    async def _upgrade(self, target: Target) -> None:
        began = self._clock.now()
        for phase in FORWARD:
            if phase is Phase.PROVEN:
                self._runs(target)
            self._at(target, phase, began)
            if phase is Phase.ATTESTED:
                await self._attested(target)
            await self.tell()
        self._at(target, Phase.DONE, began, outcome=str(Phase.DONE))
        await self.tell()

    def _at(self, target: Target, phase: Phase, began: float, outcome: str | None = None) -> None:
        upgrade = UpgradeReport(
            order=target.order,
            release=target.release,
            phase=phase,
            outcome=outcome,
            began=began,
            version_before=self._report.version_running,
            ended=None if outcome is None else self._clock.now(),
        )
        self._report = self._report.model_copy(update={"upgrade": upgrade})

    def _runs(self, target: Target) -> None:
        ready = ReadinessSummary(
            status=Verdict.GREEN,
            ready_probe_sha256=sha256_hex(target.release.encode()),
            evidence_sha256=sha256_hex(f"{self.name} {target.order}".encode()),
        )
        now: dict[str, Any] = {"release": target.release, "readiness": ready}
        core = self._cores[target.release]
        now |= {"version_on_disk": core, "version_running": core}
        self._report = self._report.model_copy(update=now)

    async def _attested(self, target: Target) -> None:
        claim = Proven(
            order=target.order,
            release=target.release,
            ready_probe_sha256=sha256_hex(target.release.encode()),
            nonce=secrets.token_hex(32),
        )
        await self._say(claim)
        await self._ask(self.name, claim)

    async def attest(self, subject: str, claim: Proven) -> None:
        """Sign that the subject is green, and hand that to the coordinator."""
        await self._say(
            Attestation(
                subject=subject,
                order=claim.order,
                release=claim.release,
                nonce=claim.nonce,
                verdict=Verdict.GREEN,
                ready_probe_sha256=claim.ready_probe_sha256,
            )
        )

    async def _say(self, body: Body) -> None:
        self._sequence += 1
        payload = Payload(
            fleet=self.trust.fleet.fleet,
            origin=self.name,
            epoch=1,
            sequence=self._sequence,
            issued=self._clock.now(),
            body=body,
        )
        self._unsent.append(sign_message(payload, self.trust.key))
        await self.tell()
        if self._unsent:
            raise RollcallError(f"the coordinator did not keep what {self.name} signed")
