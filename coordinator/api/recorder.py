"""Writes the audit log, and keeps strangers from filling the disk with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.audit import Entry
from coordinator.store.audit import AuditLog, append_row
from shared.clock import Clock

REFUSALS_KEPT = 30
"""Refused requests that are written for each caller in each window; all strangers count as one."""
WINDOW_S = 60.0


@dataclass
class _Window:
    role: str
    ends: float
    kept: int = 0
    left_out: int = 0
    addresses: set[str] = field(default_factory=set)


class Recorder:
    """Every change that was made is written. Of the refusals the first `REFUSALS_KEPT` of a caller in a
    window are; one row says how many more there were. It is written with the next row of any kind,
    before the log is read, and at the end."""

    def __init__(self, log: AuditLog, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._windows: dict[str, _Window] = {}

    async def record(self, entry: Entry) -> None:
        await self.settle()
        if entry.status < 400 or self._has_room(entry):
            await self._log.append(entry, self._clock.now())

    async def record_in(self, db: AsyncConnection, entry: Entry) -> None:
        """As part of this transaction."""
        if entry.status < 400 or self._has_room(entry):
            await append_row(db, entry, self._clock.now())

    async def settle(self, *, all_windows: bool = False) -> None:
        """Write the summaries of the windows that are over, or of all."""
        now = self._clock.monotonic()
        over = [who for who, each in self._windows.items() if all_windows or each.ends <= now]
        windows = {who: self._windows.pop(who) for who in over}
        for who, window in windows.items():
            if window.left_out:
                await self._log.append(_summary(who, window), self._clock.now())

    def _has_room(self, entry: Entry) -> bool:
        ends = self._clock.monotonic() + WINDOW_S
        window = self._windows.setdefault(entry.who, _Window(entry.role, ends))
        if window.kept < REFUSALS_KEPT:
            window.kept += 1
            return True
        window.left_out += 1
        if len(window.addresses) < REFUSALS_KEPT:
            window.addresses.add(entry.address)
        return False


def _summary(who: str, window: _Window) -> Entry:
    many = len(window.addresses) >= REFUSALS_KEPT
    first = min(window.addresses)
    return Entry(
        who=who,
        role=window.role,
        address=first if len(window.addresses) == 1 else "-",
        action="refusals left out",
        subject="",
        status=429,
        detail=f"{window.left_out} more refused requests within {WINDOW_S:.0f} s, "
        f"from {len(window.addresses)}{' or more' if many else ''} addresses",
    )
