"""The operator's program that is told of every red, once: it freezes a load balancer, or calls somebody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from agent.config import HookConfig
from agent.store import Store
from shared.canonical import canonical_json
from shared.clock import Clock
from shared.command import CHILD_OF, SYSTEM_PATH, run_command
from shared.errors import CommandError, RollcallError
from shared.messages import Message, Red
from shared.wire import short

log = structlog.get_logger()

ATTEMPTS = 3
PAUSE_S = 5.0
"""After a run that failed, and after anything that kept the hook from being run."""
MAX_OUTPUT = 64 << 10
MAX_WAITING = 100
"""Open reds that are looked at: who sees to so many needs no more of them."""


class Tellings:
    """How often the hook was begun for each red, in `meta`: -1 once it has succeeded."""

    _PREFIX = "freeze-hook "
    _DONE = -1

    def __init__(self, store: Store) -> None:
        self._store = store

    async def counts(self, keys: set[str]) -> dict[str, int]:
        """Of these reds; what is known of any other is forgotten. Raises StoreError."""
        rows = await self._store.rows("SELECT key, value FROM meta WHERE key GLOB 'freeze-hook *'")
        found = {row["key"].removeprefix(self._PREFIX): int(row["value"]) for row in rows}
        for key in found.keys() - keys:
            await self._store.write("DELETE FROM meta WHERE key = ?", self._PREFIX + key)
        return {key: found.get(key, 0) for key in keys}

    async def begin(self, key: str) -> None:
        """Before it runs: an agent that is killed meanwhile must not run it for ever."""
        await self._store.write(
            "INSERT INTO meta VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET value = value + 1",
            self._PREFIX + key,
        )

    async def succeeded(self, key: str) -> None:
        await self._store.write(
            "UPDATE meta SET value = ? WHERE key = ?", self._DONE, self._PREFIX + key
        )


class FreezeHook:
    """Runs beside everything else, one red at a time, oldest first. One that has ended before its turn is not
    told: nothing would take that back. `home` marks the children, so that the next agent ends them."""

    def __init__(
        self,
        config: HookConfig,
        node: str,
        home: str,
        tellings: Tellings,
        open_reds: Callable[[], list[Message]],
        clock: Clock,
    ) -> None:
        self._config, self._node, self._home = config, node, home
        self._tellings, self._open_reds, self._clock = tellings, open_reds, clock
        self._wake = asyncio.Event()
        self._reasons: dict[str, str] = {}
        self.alerts: list[str] = []
        """What was given up, while its red is open."""

    def changed(self) -> None:
        """The open reds may be others. Only wakes `run`: neither a freeze nor an ack waits for a hook."""
        self._wake.set()

    async def run(self) -> None:
        """For ever, or not at all where no hook is configured."""
        if not self._config.freeze:
            return
        while True:
            self._wake.clear()
            try:
                while red := await self._next():
                    if not await self._tell_once(red):
                        await self._clock.sleep(PAUSE_S)
            except (RollcallError, OSError) as error:
                log.error("the freeze hook waits", reason=str(error))
                await self._clock.sleep(PAUSE_S)
                continue
            await self._wake.wait()

    async def _next(self) -> Message | None:
        """The red that was tried least, the oldest of them; None when all were told or given up. Raises
        StoreError."""
        reds = {red.key: red for red in self._open_reds()[:MAX_WAITING]}
        counts = await self._tellings.counts(set(reds))
        self._reasons = {key: why for key, why in self._reasons.items() if key in reds}
        self.alerts = [self._complain(key) for key in reds if counts[key] >= ATTEMPTS]
        due = [key for key in reds if 0 <= counts[key] < ATTEMPTS]
        return reds[min(due, key=counts.__getitem__)] if due else None

    async def _tell_once(self, red: Message) -> bool:
        await self._tellings.begin(red.key)
        if why := await self._tell(red):
            self._reasons[red.key] = why
            log.warning("freeze hook failed", key=red.key, reason=why)
            return False
        await self._tellings.succeeded(red.key)
        log.info("freeze hook", key=red.key)
        return True

    def _complain(self, key: str) -> str:
        why = self._reasons.get(key, "see this agent's log")
        return short(f"the freeze hook failed {ATTEMPTS} times for red {key}: {why}", 500)

    async def _tell(self, red: Message) -> str:
        """Why it did not end well; empty when it did."""
        limit = self._config.freeze_timeout
        try:
            output = await run_command(
                self._config.freeze,
                env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", CHILD_OF: self._home},
                timeout_s=limit,
                max_output=MAX_OUTPUT,
                stdin=describe(red, self._node),
            )
        except CommandError as error:
            return str(error)
        if output.timed_out:
            return f"it did not end within {limit:g} s"
        return "" if output.code == 0 else f"it ended with {output.code}: {output.last_line()}"


def describe(red: Message, node: str) -> bytes:
    """What the hook reads: one JSON object, of which the reason is somebody else's text."""
    payload = red.payload
    about = payload.body.model_dump(mode="json") if isinstance(payload.body, Red) else {}
    return canonical_json(
        {
            "schemaVersion": 1,
            "event": "red",
            "node": node,
            "key": red.key,
            "origin": payload.origin,
            "own": payload.origin == node,
            "issued": payload.issued,
            "kind": about.get("kind"),
            "reason": about.get("reason"),
            "release": about.get("release"),
        }
    )
