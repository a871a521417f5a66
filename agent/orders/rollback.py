"""An order to go back to what ran before the last upgrade: the same as `rollcall-agent rollback`."""

from __future__ import annotations

from typing import ClassVar

from agent.orders.kept import Outcome
from agent.orders.performer import Work
from agent.upgrade.phases import Phase
from agent.upgrade.record import Record
from agent.upgrade.runner import Runner
from shared.errors import ConflictError
from shared.failpoint import fail_point
from shared.orders import OrderKind
from shared.wire import short

ETA_S = 1800.0
_GOOD = frozenset({Phase.ROLLED_BACK, Phase.DROPPED})


class Rollback:
    """The journal remembers the rollback; the order notes which upgrade it is about, so that it undoes that one
    and, after a kill of the agent, no other."""

    kind: ClassVar[str] = OrderKind.ROLLBACK

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    @property
    def eta_s(self) -> float:
        return ETA_S

    async def perform(self, work: Work) -> Outcome:
        record = self._runner.record
        if record is None:
            raise ConflictError("nothing was upgraded here: there is nothing to roll back from")
        if not work.begun:
            await work.begin(upgrade=record.upgrade)
            fail_point("order.rollback")
        elif work.facts.get("upgrade") != record.upgrade:
            raise ConflictError(
                f"upgrade {record.upgrade} began since; {work.facts.get('upgrade')} was meant"
            )
        elif record.over and record.phase in _GOOD:
            return _outcome(record)
        work.say("rolling back")
        by = work.order.created_by or "an operator"
        why = work.order.terms.reason
        reason = short(f"ordered by {by}" + (f": {why}" if why else ""))
        return _outcome(await self._runner.roll_back(reason))


def _outcome(record: Record) -> Outcome:
    good = record.phase in _GOOD
    done = "was dropped" if record.phase is Phase.DROPPED else f"is {record.phase}"
    said = f"upgrade {record.upgrade} to {record.label} {done}"
    return Outcome(failed=not good, reason=short(said if good else f"{said}: {record.reason}"))
