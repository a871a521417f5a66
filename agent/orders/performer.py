"""What does the orders of one kind, and what it is given for that."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from agent.orders.kept import Doing, KeptOrders, Outcome
from shared.orders import OpenOrder


@dataclass(frozen=True)
class Hands:
    """How an order takes the gateway out. `hold` keeps upgrades and shares of traffic away meanwhile; `again` says
    which share follows on the one before."""

    hold: Callable[[], AbstractAsyncContextManager[None]]
    again: Callable[[int], int]


class Work:
    """One order in the hands of its performer. `say` is told how far it is."""

    def __init__(self, doing: Doing, kept: KeptOrders, say: Callable[[str], None]) -> None:
        self._doing, self._kept, self.say = doing, kept, say

    @property
    def order(self) -> OpenOrder:
        return self._doing.order

    @property
    def facts(self) -> dict[str, Any]:
        return self._doing.facts

    @property
    def begun(self) -> bool:
        return self._doing.begun

    @property
    def name(self) -> str:
        """The order as a word that any program takes."""
        return self.order.id.replace(":", "-")

    async def note(self, **facts: Any) -> None:
        """Durable when this returns."""
        await self._keep({"facts": {**self.facts, **facts}})

    async def begin(self, **facts: Any) -> None:
        """From here on it is finished, whoever takes the order back: durable when this returns."""
        await self._keep({"facts": {**self.facts, **facts}, "begun": True})

    async def _keep(self, changes: dict[str, Any]) -> None:
        doing = self._doing.model_copy(update=changes)
        await self._kept.keep(doing)
        self._doing = doing


class Performer(Protocol):
    """`perform` is entered again after a restart of the agent, with the facts that it has noted: what it finds done
    it does not do again. Until `Work.begin` it may be cancelled, and then leaves everything as it was. Raises
    RollcallError with the reason when the order cannot be carried out."""

    kind: ClassVar[str]

    @property
    def eta_s(self) -> float: ...
    async def perform(self, work: Work) -> Outcome: ...
