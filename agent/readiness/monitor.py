"""Runs the probes, remembers their last word, and hands out the document from memory."""

from __future__ import annotations

import asyncio
import platform
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import structlog

from agent.readiness.guards import Guard
from agent.readiness.history import History
from agent.readiness.merge import Expected, merge, next_stale
from agent.readiness.publishing import Published
from agent.readiness.reading import Probe, Reading, unknown
from shared.clock import Clock
from shared.errors import RollcallError
from shared.readiness import MAX_EVIDENCE, Check, CheckStatus, ReadinessDocument

log = structlog.get_logger()

KEPT_S: Final = 1.0
"""How long a document is handed out before it is built anew with what was read meanwhile."""
LONGEST_WATCH_S: Final = 10.0
AGAIN_S: Final = 10.0
"""After which time at first what is unknown is read again, where its turn is later."""
PLATFORM: Final = f"{sys.platform}-{platform.machine()}"


class Monitor:
    """One task a probe. `on_change` is called when the verdict or the hash changed.

    A document is built when a reading says something else than the one before it, when one has become too old
    to say anything, and otherwise when somebody asks and the last one is older than a second. A document that
    is handed out never counts a reading as fresh that is not (fault 5).
    """

    def __init__(
        self,
        node: str,
        probes: list[Probe],
        clock: Clock,
        on_change: Callable[[], None],
        *,
        history: History,
        guards: list[Guard],
    ) -> None:
        self._history, self._guards = history, guards
        self._node = node
        self._probes = {probe.id: probe for probe in probes}
        self._expected = [Expected(probe.id, probe.stale_after_s) for probe in probes]
        self._readings: dict[str, Reading] = {}
        self._locks = {probe.id: asyncio.Lock() for probe in probes}
        self._clock = clock
        self._on_change = on_change
        self._last: tuple[object, ...] | None = None
        self._published: Published | None = None
        self._until = 0.0
        """On the monotonic clock: until when `_published` may be handed out."""
        self._judged: tuple[float, list[Check]] | None = None
        self._pauses = 0
        self._awake = asyncio.Event()
        self._awake.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for probe in self._probes.values():
                group.create_task(self._repeat(probe), name=f"probe-{probe.id}")
            group.create_task(self._watch(), name="readiness-watch")

    async def _repeat(self, probe: Probe) -> None:
        """At even distances however long a read takes: probes of one period that ask the gateway then go on
        sharing a connection."""
        due = self._clock.monotonic()
        while True:
            await self._awake.wait()
            await self._read(probe)
            late = self._clock.monotonic() - due
            due += probe.period_s * (late // probe.period_s + 1)
            await self._wait_for(probe, due)

    async def _wait_for(self, probe: Probe, due: float) -> None:
        """What is unknown is read again sooner, less and less often: a Doctor that was late on a busy host would else
        keep the node from being green until its next turn, an hour later."""
        pause = AGAIN_S
        while (left := due - self._clock.monotonic()) > 0:
            await self._clock.sleep(min(left, pause))
            if not self._is_unknown(probe):
                pause = AGAIN_S
            elif self._awake.is_set() and self._clock.monotonic() < due:
                pause *= 2
                await self._read(probe)

    def _is_unknown(self, probe: Probe) -> bool:
        reading = self._readings.get(probe.id)
        return reading is None or reading.status is CheckStatus.UNKNOWN

    async def _watch(self) -> None:
        """So that a reading which grows old is told to whoever listens, though nobody asks and nothing is read."""
        while True:
            now = self._clock.monotonic()
            due = next_stale(self._expected, self._readings, now)
            pause = LONGEST_WATCH_S if due is None else min(due - now + KEPT_S, LONGEST_WATCH_S)
            await self._clock.sleep(pause)
            self.published()

    async def refresh(self, ids: Iterable[str] | None = None) -> ReadinessDocument:
        """Read these probes now (all of them by default) and return what comes of it. Ids of checks that no
        probe stands behind are left out: a guard looks at what is there anyway."""
        wanted = self._probes if ids is None else self._probes.keys() & set(ids)
        await asyncio.gather(*(self._read(self._probes[name]) for name in wanted))
        self._judged = None
        return self._build().document

    async def refresh_facts(self) -> ReadinessDocument:
        """Read again what the comparable part was made of."""
        return await self.refresh([name for name, each in self._readings.items() if each.facts])

    def pause(self) -> None:
        """While the gateway is away: nothing that was read before says anything now, and probes that are
        whole processes would only slow its start down."""
        self._pauses += 1
        self._awake.clear()
        self._readings.clear()
        self._build()

    def resume(self) -> None:
        self._awake.set()

    def document(self) -> ReadinessDocument:
        return self.published().document

    def published(self) -> Published:
        """The document of this second; `at` and `age_s` in it are of when it was built."""
        if self._published is not None and self._clock.monotonic() < self._until:
            return self._published
        return self._build()

    def _build(self) -> Published:
        now, monotonic = self._clock.now(), self._clock.monotonic()
        document = merge(
            self._node,
            self._expected,
            self._readings,
            self._judge(now, monotonic),
            now=now,
            monotonic=monotonic,
            platform=PLATFORM,
        )
        evidence = {name: reading.raw for name, reading in self._readings.items()}
        published = self._published = Published(document, evidence)
        due = next_stale(self._expected, self._readings, monotonic)
        self._until = monotonic + KEPT_S if due is None else min(monotonic + KEPT_S, due)
        said = (document.status, document.reason, document.ready_probe_sha256)
        if said != self._last:
            self._last = said
            self._on_change()
        return published

    def _judge(self, now: float, monotonic: float) -> list[Check]:
        """Guards look at long series: once a second at most, however fast readings come."""
        if self._judged is None or monotonic - self._judged[0] >= KEPT_S:
            self._judged = monotonic, [guard.judge(self._history, now) for guard in self._guards]
        return self._judged[1]

    async def _read(self, probe: Probe) -> None:
        async with self._locks[probe.id]:
            pauses = self._pauses
            found = await self._read_bounded(probe)
            if pauses != self._pauses:
                return  # what it saw was on its way when the gateway was taken away
            now = self._clock.now()
            reading = replace(
                found, raw=found.raw[:MAX_EVIDENCE], at=now, monotonic=self._clock.monotonic()
            )
            before = self._readings.get(probe.id)
            self._readings[probe.id] = reading
            for name, value in reading.series.items():
                self._history.note(name, now, value)
        if before is None or _says(before) != _says(reading) or _is_stale(before, reading, probe):
            self._build()

    async def _read_bounded(self, probe: Probe) -> Reading:
        try:
            async with asyncio.timeout(probe.timeout_s):
                return await probe.read()
        except TimeoutError:
            return unknown(f"no answer within {probe.timeout_s:.0f} s")
        except RollcallError as error:
            return unknown(str(error))
        except OSError as error:
            return unknown(f"cannot be read: {error}")
        except Exception as error:
            # What a gateway prints is not ours to trust: a surprise in it must not end the agent.
            log.exception("probe failed", probe=probe.id)
            return unknown(f"could not be understood: {type(error).__name__}")


def _says(reading: Reading) -> tuple[object, ...]:
    """Of a reading what can change the verdict or the comparable hash."""
    return reading.status, reading.reason, reading.facts


def _is_stale(before: Reading, now: Reading, probe: Probe) -> bool:
    return now.monotonic - before.monotonic > probe.stale_after_s
