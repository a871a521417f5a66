"""Looking at a peer that claims to be green, and saying under signature what was seen."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import structlog

from agent.peers.mesh import Mesh
from agent.peers.transport import Transport
from agent.store import Store
from agent.trust import Trust
from shared.attesting import AttestationExport, judge, quorum, tally
from shared.clock import Clock, wait_at_most
from shared.comparing import mismatch
from shared.errors import NotFoundError, RollcallError, UntrustedError
from shared.messages import (
    Attestation,
    Message,
    Proven,
    Verdict,
    open_message,
    read_message,
)
from shared.readiness import ReadinessDocument
from shared.release import Release
from shared.wire import short

log = structlog.get_logger()

LOOK_EVERY_S = 1.0
ASK_AGAIN_S = 15.0
MAX_ANSWERS = 64


def judge_claim(
    claim: Proven, release: Release, seen: ReadinessDocument, own: ReadinessDocument
) -> tuple[Verdict, str]:
    """What a peer's document is worth: fresh, green, on the signed release, with the hash it claimed,
    and what this node is where both run that release."""
    compared = seen.comparable
    if seen.nonce != claim.nonce:
        return Verdict.UNKNOWN, "its document does not answer this question"
    if compared.ready_probe_sha256 != seen.ready_probe_sha256:
        return Verdict.RED, "its hash does not cover what it shows"
    if seen.status is not Verdict.GREEN:
        return seen.status, short(f"it is {seen.status}: {seen.reason}")
    manifest = release.manifest
    wanted = {
        "release": (compared.release, release.id),
        "core on disk": (compared.core_on_disk, manifest.openclaw),
        "core running": (compared.core_running, manifest.openclaw),
        "lock": (compared.lock_sha256, manifest.lock_sha256),
        "plugins": (compared.plugins, manifest.plugins),
    }
    for what, (has, should) in wanted.items():
        if has != should:
            return Verdict.RED, f"{what} is {has}, the release says {should}"
    if seen.ready_probe_sha256 != claim.ready_probe_sha256:
        return Verdict.RED, "its hash is not the one it claimed"
    same_release = own.status is Verdict.GREEN and own.comparable.release == release.id
    if same_release and (found := mismatch(seen, own, (seen.node, own.node))):
        words = "; ".join(each.words for each in found)
        return Verdict.RED, short(f"it differs from {own.node} on the same release: {words}")
    return Verdict.GREEN, ""


class SignedRelease(Protocol):
    """A release that operators signed, by its id; `source` hands out TUF files where nobody else can."""

    async def __call__(
        self, release: str, source: Callable[[str], Awaitable[bytes]], /
    ) -> Release: ...


class Attestor:
    """Answers claims of peers, and collects the answers to this node's own."""

    def __init__(
        self,
        trust: Trust,
        mesh: Mesh,
        transport: Transport,
        store: Store,
        clock: Clock,
        own: Callable[[], ReadinessDocument],
        signed: SignedRelease,
    ) -> None:
        self._trust, self._mesh, self._transport = trust, mesh, transport
        self._store, self._clock, self._own, self._signed = store, clock, own, signed
        self._arrived = asyncio.Event()
        self._answering: set[asyncio.Task[None]] = set()

    def heard(self, message: Message) -> None:
        """An attestation wakes whoever collects; a claim is answered in a task of its own."""
        body = message.payload.body
        if isinstance(body, Attestation):
            self._arrived.set()
        elif isinstance(body, Proven) and len(self._answering) < MAX_ANSWERS:
            task = asyncio.get_running_loop().create_task(self._answer(message, body))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, message: Message, claim: Proven) -> None:
        """Look at the origin until it is green or it would ask again; then sign what was seen."""
        subject = message.payload.origin
        try:
            release = await self._signed(claim.release, partial(self._transport.tuf, subject))
        except RollcallError as error:
            log.warning("claim without a signed release", origin=subject, reason=str(error))
            return
        verdict, reason, seen = await self._look_until(message, claim, release)
        body = Attestation(
            subject=subject,
            order=claim.order,
            release=release.id,
            nonce=claim.nonce,
            verdict=verdict,
            ready_probe_sha256=seen.ready_probe_sha256 if seen else None,
            reason=reason,
        )
        await self._mesh.send(subject, body, expires_in_s=3600)

    async def _look_until(
        self, message: Message, claim: Proven, release: Release
    ) -> tuple[Verdict, str, ReadinessDocument | None]:
        ends = self._clock.monotonic() + ASK_AGAIN_S - LOOK_EVERY_S
        while True:
            verdict, reason, seen = await self._look(message.payload.origin, claim, release)
            if verdict is Verdict.GREEN or self._clock.monotonic() >= ends:
                return verdict, reason, seen
            await self._clock.sleep(LOOK_EVERY_S)

    async def _look(
        self, subject: str, claim: Proven, release: Release
    ) -> tuple[Verdict, str, ReadinessDocument | None]:
        try:
            raw = await self._transport.ask(
                subject, "GET", "/v1/readiness", params={"nonce": claim.nonce}
            )
            seen = ReadinessDocument.from_bytes(raw)
        except RollcallError as error:
            return Verdict.UNKNOWN, short(str(error)), None
        verdict, reason = judge_claim(claim, release, seen, self._own())
        return verdict, reason, seen

    async def collect(
        self, order: str, release: Release, ready_probe_sha256: str, timeout_s: float
    ) -> list[str]:
        """Ask the quorum, and return its names once all of them signed green.

        Raises UntrustedError that names who did not, and what they saw.
        """
        deadline = self._clock.monotonic() + timeout_s
        while True:
            missing = await self._ask_once(order, release, ready_probe_sha256, deadline)
            if not missing:
                return self._quorum()
            if self._clock.monotonic() >= deadline:
                said = "; ".join(f"{peer}: {reason}" for peer, reason in sorted(missing.items()))
                raise UntrustedError(short(f"not attested by the whole quorum ({said})"))

    async def _ask_once(
        self, order: str, release: Release, ready_probe_sha256: str, deadline: float
    ) -> dict[str, str]:
        """One claim with a new nonce. Returns the peers that have not signed green, and why."""
        left = max(1.0, min(ASK_AGAIN_S, deadline - self._clock.monotonic()))
        claim = Proven(
            order=order,
            release=release.id,
            ready_probe_sha256=ready_probe_sha256,
            nonce=secrets.token_hex(32),
        )
        if missing := await self._missing(claim):
            live = set(self._trust.peer_names())
            asked = [name for name in self._quorum() if name in live]
            await self._mesh.send_to(asked, claim, expires_in_s=left)
            ends = self._clock.monotonic() + left
            while missing and self._clock.monotonic() < ends:
                self._arrived.clear()
                await wait_at_most(self._arrived, 1.0)
                missing = await self._missing(claim)
        return missing

    async def _missing(self, claim: Proven) -> dict[str, str]:
        said = []
        for raw in await self._store.attestations(claim.order):
            try:
                message = open_message(raw.encode(), self._trust.roster)
            except UntrustedError:
                continue  # of a peer that was revoked, or changed its key, since
            if isinstance(message.payload.body, Attestation):
                said.append((message.payload.origin, message.payload.body))
        return tally(self._trust.name, claim, said, self._quorum(), self._trust.peer_names())

    def _quorum(self) -> list[str]:
        return quorum(self._trust.name, self._trust.peer_names(), self._trust.fleet.witnesses)

    async def export(self, order: str) -> AttestationExport:
        """What was signed about one order of this node, for whoever wants to judge it himself.

        Raises NotFoundError for an order in which this node has claimed nothing.
        """
        messages = await self._store.attestations(order, with_claims=True)
        claims = [
            body
            for raw in messages
            if isinstance(body := read_message(raw.encode()).payload.body, Proven)
        ]
        if not claims:
            raise NotFoundError(
                f"this node has asked nobody to attest {order[:64]!r}",
                remedy="see its last order with: rollcall-agent status --json",
            )
        trust, release = self._trust, claims[-1].release
        judged = judge(trust.roster_raw, trust.fleet, order, release, messages)
        return AttestationExport(
            order=order,
            release=release,
            fleet=trust.fleet,
            roster=trust.roster_raw.decode(),
            messages=messages,
            judgement=judged,
        )
