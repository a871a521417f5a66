"""Runs the probes, remembers their last word, and hands out the document from memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog

from agent.readiness.guards import Guard
from agent.readiness.history import History
from agent.readiness.merge import Expected, merge
from agent.readiness.reading import Probe, Reading, unknown
from shared.clock import Clock
from shared.errors import RollcallError
from shared.readiness import ReadinessDocument

log = structlog.get_logger()


class Monitor:
    """One task a probe. `on_change` is called when the verdict or the hash changed."""

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
        self._awake = asyncio.Event()
        self._awake.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for probe in self._probes.values():
                group.create_task(self._repeat(probe), name=f"probe-{probe.id}")

    async def _repeat(self, probe: Probe) -> None:
        while True:
            await self._awake.wait()
            await self._read(probe)
            await self._clock.sleep(probe.period_s)

    async def refresh(self, ids: Iterable[str] | None = None) -> ReadinessDocument:
        """Read these probes now (all of them by default) and return what comes of it. Ids of checks that no
        probe stands behind are left out: a guard looks at what is there anyway."""
        wanted = self._probes if ids is None else self._probes.keys() & set(ids)
        await asyncio.gather(*(self._read(self._probes[name]) for name in wanted))
        return self.document()

    def pause(self) -> None:
        """While the gateway is away: nothing that was read before says anything now, and probes that are
        whole processes would only slow its start down."""
        self._awake.clear()
        self._readings.clear()
        self._notice()

    def resume(self) -> None:
        self._awake.set()

    def document(self) -> ReadinessDocument:
        now = self._clock.now()
        return merge(
            self._node,
            self._expected,
            self._readings,
            [guard.judge(self._history, now) for guard in self._guards],
            now=now,
            monotonic=self._clock.monotonic(),
        )

    async def _read(self, probe: Probe) -> None:
        async with self._locks[probe.id]:
            reading = await self._read_bounded(probe)
            now = self._clock.now()
            self._readings[probe.id] = replace(reading, at=now, monotonic=self._clock.monotonic())
            for name, value in reading.series.items():
                self._history.note(name, now, value)
        self._notice()

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

    def _notice(self) -> None:
        document = self.document()
        now = (document.status, document.reason, document.ready_probe_sha256)
        if now != self._last:
            self._last = now
            self._on_change()
