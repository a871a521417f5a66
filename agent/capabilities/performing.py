"""Orders to install and to remove a capability. What was begun is finished, or undone, whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ClassVar, Protocol

from agent.capabilities.outage import leave, stopped
from agent.capabilities.shelf import Kept, Shelf
from agent.capabilities.sites import PluginSite, Site, SkillSite, entry_of, put_entry_back
from agent.capabilities.smoking import smoke
from agent.openclaw.cli import OpenClaw
from agent.orders.kept import Outcome
from agent.orders.performer import Hands, Work
from agent.upgrade.context import Deps
from shared.capability import (
    Capability,
    CapabilityKind,
    CapabilityReport,
    Stage,
    StageReport,
    in_range,
    parse_capability,
)
from shared.errors import BadInputError, ConflictError, RollcallError
from shared.failpoint import fail_point
from shared.orders import OrderKind
from shared.wire import short

ETA_S = 900.0


class CapabilitySource(Protocol):
    """Raises UntrustedError for what operators do not sign for today, UnavailableError when nobody answers."""

    async def authorise_capability(self, capability: str) -> bytes: ...
    async def capability_file(self, capability: Capability, sha256: str) -> bytes: ...


class Bench:
    """What both kinds of order work with."""

    def __init__(self, node: str, deps: Deps, hands: Hands, shelf: Shelf) -> None:
        self.node, self.deps, self.shelf = node, deps, shelf
        self.hold, self._again = hands.hold, hands.again
        self._sites: dict[CapabilityKind, Site] = {
            CapabilityKind.PLUGIN: PluginSite(shelf),
            CapabilityKind.SKILL: SkillSite(shelf),
        }

    def site(self, kind: CapabilityKind) -> Site:
        return self._sites[kind]

    @property
    def openclaw(self) -> OpenClaw:
        """Raises ConflictError while nothing is installed here."""
        current = self.deps.layout.current
        if not current.exists():
            raise ConflictError("no release is installed on this node")
        return self.deps.openclaw(current)

    async def change(
        self, work: Work, kind: CapabilityKind, act: Callable[[], Awaitable[None]]
    ) -> None:
        """`act` without a gateway where the kind needs that, out of traffic; the share that follows is taken
        again."""
        if not self.site(kind).needs_outage:
            await act()
            return
        await self._note_weight(work)
        if self.deps.weight.get():  # what is undone now has taken traffic again
            await self.deps.weight.leave()
        try:
            async with stopped(self.deps):
                await act()
        except asyncio.CancelledError:
            raise  # the agent itself is being stopped: its successor goes on, out of traffic
        except BaseException:
            await self._take_traffic(work)
            raise
        await self._take_traffic(work)

    async def _take_traffic(self, work: Work) -> None:
        share = self._again(int(work.facts["weight"]))
        if self.deps.weight.get() != share:
            await self.deps.weight.set(share)

    async def _note_weight(self, work: Work) -> None:
        if "weight" not in work.facts:
            await work.note(weight=self.deps.weight.get())

    async def leave(self, work: Work, kind: CapabilityKind) -> None:
        """Before the first change; traffic comes back where that cannot be."""
        if not self.site(kind).needs_outage:
            return
        await self._note_weight(work)
        try:
            await leave(self.deps, work)
        except BaseException:
            await self.deps.weight.set(int(work.facts["weight"]))
            raise


class InstallCapability:
    kind: ClassVar[str] = OrderKind.INSTALL_CAPABILITY

    def __init__(self, bench: Bench, source: CapabilitySource) -> None:
        self._bench, self._source = bench, source

    @property
    def eta_s(self) -> float:
        return ETA_S

    async def perform(self, work: Work) -> Outcome:
        subject = work.order.terms.subject
        if subject is None:
            raise BadInputError("the order names no capability")
        self._stages: list[StageReport] = []
        try:
            capability = await self._stage(work, subject)
        except (RollcallError, OSError) as error:
            if "undoing" in work.facts:  # to the end: its files are gone already
                return self._taken_back(work, subject)
            self._stages.append(_failed(Stage.INSTALL, error))
            return self._ended(work, subject, str(error), undone=True)
        async with self._bench.hold():
            return await self._wire_and_smoke(work, capability)

    async def _stage(self, work: Work, subject: str) -> Capability:
        bench, began = self._bench, self._bench.deps.clock.monotonic()
        work.say(f"{Stage.INSTALL}: verifying and fetching")
        if work.begun:
            capability = await asyncio.to_thread(bench.shelf.find, subject)
        else:
            capability = await self._fetch(subject)
            await self._check_place(capability)
        seconds = bench.deps.clock.monotonic() - began
        files = {each.file: each.sha256 for each in capability.manifest.artifacts}
        report = StageReport(
            stage=Stage.INSTALL, ok=True, seconds=round(seconds, 2), evidence=files
        )
        self._stages.append(report)
        fail_point("capability.staged")
        return capability

    async def _fetch(self, subject: str) -> Capability:
        raw = await self._source.authorise_capability(subject)
        return await asyncio.to_thread(self._bench.shelf.put, raw, await self._files(raw))

    async def _files(self, raw: bytes) -> dict[str, bytes]:
        capability = parse_capability(raw)
        wanted = [each.sha256 for each in capability.manifest.artifacts]
        return {sha256: await self._source.capability_file(capability, sha256) for sha256 in wanted}

    async def _check_place(self, capability: Capability) -> None:
        """Raises ConflictError for what would take the place of something that is not Rollcall's own capability."""
        bench, manifest = self._bench, capability.manifest
        openclaw = bench.openclaw
        version = await openclaw.version()
        if not in_range(version, manifest.openclaw):
            raise ConflictError(
                f"{manifest.label} is for OpenClaw {manifest.openclaw}; this is {version}"
            )
        current = await asyncio.to_thread(bench.deps.layout.current.resolve)
        release = await bench.deps.releases.kept(current.name)
        if release is not None and manifest.package in release.manifest.plugins:
            raise ConflictError(f"release {release.label} brings {manifest.package} itself")
        own = await asyncio.to_thread(bench.shelf.of, manifest.kind, manifest.id)
        if own is None or own.package != manifest.package:
            await bench.site(manifest.kind).check_free(openclaw, capability)

    async def _wire_and_smoke(self, work: Work, capability: Capability) -> Outcome:
        stage = Stage.WIRE
        try:
            if "undoing" in work.facts:
                stage = Stage(work.facts["failed"])
                raise ConflictError(str(work.facts["undoing"]))
            await self._wire(work, capability)
            stage = Stage.SMOKE
            await self._smoke(work, capability)
        except (RollcallError, OSError) as error:
            self._note_failure(stage, error)
            undone = not work.begun or await self._undo(work, capability, stage, str(error))
            return self._ended(work, capability.id, str(error), undone=undone)
        await self._keep(work, capability)
        return self._ended(work, capability.id, "")

    def _taken_back(self, work: Work, subject: str) -> Outcome:
        why = str(work.facts["undoing"])
        self._note_failure(Stage(work.facts["failed"]), ConflictError(why))
        return self._ended(work, subject, why, undone=True)

    def _note_failure(self, stage: Stage, error: RollcallError | OSError) -> None:
        """The stages before it were passed, perhaps before a restart."""
        known = {each.stage for each in self._stages}
        for each in Stage:
            if each is stage:
                break
            if each not in known:
                self._stages.append(StageReport(stage=each, ok=True))
        self._stages.append(_failed(stage, error))

    async def _wire(self, work: Work, capability: Capability) -> None:
        bench, manifest = self._bench, capability.manifest
        site, began = bench.site(manifest.kind), bench.deps.clock.monotonic()
        if not work.begun:
            await self._begin(work, capability)
        work.say(f"{Stage.WIRE}: OpenClaw installs {manifest.kind} {manifest.id}")
        if "wired" not in work.facts:
            await bench.change(
                work, manifest.kind, lambda: site.install(bench.openclaw, capability)
            )
            await work.note(wired=True)
        seconds = bench.deps.clock.monotonic() - began
        self._stages.append(StageReport(stage=Stage.WIRE, ok=True, seconds=round(seconds, 2)))
        fail_point("capability.wired")

    async def _begin(self, work: Work, capability: Capability) -> None:
        """What stands here as signed already is not installed once more."""
        bench, manifest = self._bench, capability.manifest
        own = await asyncio.to_thread(bench.shelf.of, manifest.kind, manifest.id)
        previous = None if own is None else own.capability
        site, facts = bench.site(manifest.kind), {"previous": previous}
        if previous == capability.id and not await site.stands(bench.openclaw, capability):
            await work.begin(**facts, wired=True)
            return
        work.say(f"{Stage.WIRE}: no new traffic; waiting for what is in hand")
        await bench.leave(work, manifest.kind)
        entry = await asyncio.to_thread(entry_of, bench.openclaw.state, manifest.id)
        await work.begin(**facts, entry=entry)
        fail_point("capability.begun")

    async def _smoke(self, work: Work, capability: Capability) -> None:
        """Not again once it was passed: what stood before is given up from then on."""
        bench, began = self._bench, self._bench.deps.clock.monotonic()
        site, passed = bench.site(capability.manifest.kind), {}
        for verb in [] if "smoked" in work.facts else capability.manifest.smoke:
            work.say(f"{Stage.SMOKE}: {verb}")
            passed[verb.value] = await smoke(verb, bench.deps, bench.openclaw, site, capability)
        seconds = bench.deps.clock.monotonic() - began
        report = StageReport(stage=Stage.SMOKE, ok=True, seconds=round(seconds, 2), evidence=passed)
        self._stages.append(report)
        fail_point("capability.smoked")
        await work.note(smoked=True)

    async def _undo(self, work: Work, capability: Capability, stage: Stage, why: str) -> bool:
        """Back to what stood before; True when that is so. Noted first, so that a restart undoes too. What cannot be
        undone counts as installed: an order may still take it out."""
        bench, manifest = self._bench, capability.manifest
        work.say(f"undoing: {short(why, 300)}")
        await work.note(undoing=short(why), failed=stage.value)
        fail_point("capability.undoing")
        try:
            await bench.change(work, manifest.kind, lambda: self._put_back(work, capability))
        except (RollcallError, OSError) as error:
            self._stages[-1] = self._stages[-1].model_copy(
                update={
                    "reason": short(f"{self._stages[-1].reason}; and it cannot be undone: {error}")
                }
            )
            await self._keep(work, capability)
            return False
        await asyncio.to_thread(bench.shelf.drop, capability.id)
        return True

    async def _put_back(self, work: Work, capability: Capability) -> None:
        bench, manifest, previous = self._bench, capability.manifest, work.facts.get("previous")
        site, openclaw = bench.site(manifest.kind), bench.openclaw
        if previous is None:
            await site.remove(openclaw, manifest.id)
        else:
            before = await asyncio.to_thread(bench.shelf.find, previous)
            await site.install(openclaw, before)
        if manifest.kind is CapabilityKind.PLUGIN:
            await asyncio.to_thread(put_entry_back, openclaw, manifest.id, work.facts.get("entry"))

    async def _keep(self, work: Work, capability: Capability) -> None:
        bench, manifest = self._bench, capability.manifest
        kept = Kept(
            capability=capability.id,
            kind=manifest.kind,
            name=manifest.id,
            package=manifest.package,
            label=manifest.label,
            since=bench.deps.clock.now(),
        )
        await asyncio.to_thread(bench.shelf.note, kept)
        previous = work.facts.get("previous")
        if previous not in (None, capability.id):
            await asyncio.to_thread(bench.shelf.drop, str(previous))

    def _ended(self, work: Work, subject: str, why: str, *, undone: bool = False) -> Outcome:
        label = work.order.terms.label
        report = CapabilityReport(
            node=self._bench.node,
            capability=subject,
            label=label,
            stages=self._stages,
            undone=undone,
        )
        state = "; undone" if undone and work.begun else ""
        said = f"{self._stages[-1].stage} failed: {why}{state}" if why else f"{label} is installed"
        return Outcome(failed=bool(why), reason=short(said), result=report.canonical().decode())


class RemoveCapability:
    """Takes out what Rollcall has put in, and nothing else."""

    kind: ClassVar[str] = OrderKind.REMOVE_CAPABILITY

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    @property
    def eta_s(self) -> float:
        return ETA_S

    async def perform(self, work: Work) -> Outcome:
        subject, bench = work.order.terms.subject, self._bench
        if subject is None:
            raise BadInputError("the order names no capability")
        installed = await asyncio.to_thread(bench.shelf.installed)
        found = next((each for each in installed if each.capability == subject), None)
        if found is None:
            return self._ended(work, subject, found=bool(work.facts.get("name")))
        async with bench.hold():
            if not work.begun:
                work.say("no new traffic; waiting for what is in hand")
                await bench.leave(work, found.kind)
                await work.begin(name=found.name)
                fail_point("capability.removing")
            work.say(f"OpenClaw removes {found.kind} {found.name}")
            site = bench.site(found.kind)
            await bench.change(work, found.kind, lambda: site.remove(bench.openclaw, found.name))
        await asyncio.to_thread(bench.shelf.forget, found.kind, found.name)
        await asyncio.to_thread(bench.shelf.drop, subject)
        return self._ended(work, subject, found=True)

    def _ended(self, work: Work, subject: str, *, found: bool) -> Outcome:
        label = work.order.terms.label
        report = CapabilityReport(
            node=self._bench.node, capability=subject, label=label, found=found
        )
        said = f"{label} is removed" if found else f"{label} was not installed here"
        return Outcome(reason=said, result=report.canonical().decode())


def _failed(stage: Stage, error: RollcallError | OSError) -> StageReport:
    return StageReport(stage=stage, ok=False, reason=short(str(error)))
