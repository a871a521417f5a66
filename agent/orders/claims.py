"""The claim of an upgrade, before it begins: the coordinator may have taken the order back meanwhile."""

from __future__ import annotations

import uuid

from agent.config import UpgradeConfig
from agent.orders.ordering import Door
from shared.errors import UnavailableError
from shared.http import RefusedError
from shared.orders import ClaimRequest
from shared.report import Target

WORK_S = 900.0
"""For everything but drain, proof and soak: staging and rehearsal of a large tree on a busy host."""
NO_SUCH_ROUTE = "http"


class UpgradeClaims:
    """Implements Claims. A claim whose answer was lost is said again under its key; an order that this node has is
    claimed no second time while the coordinator keeps to it."""

    def __init__(self, door: Door, limits: UpgradeConfig) -> None:
        self._door, self._limits = door, limits
        self._order, self._key = "", ""
        self._has = False

    def lost(self) -> None:
        """Whoever answers next is asked anew."""
        self._has = False

    async def claim(self, target: Target) -> str:
        if target.order != self._order:
            self._order, self._key, self._has = target.order, "", False
        if self._has:
            return ""
        self._key = self._key or str(uuid.uuid4())
        limits = self._limits
        waits = limits.drain_timeout + limits.prove_timeout + limits.attest_timeout
        asked = ClaimRequest(eta_s=WORK_S + waits + target.soak_s)
        try:
            await self._door.order(target.order, "claim", asked, self._key)
        except UnavailableError as error:
            return f"the upgrade cannot be claimed: {error.message}"
        except RefusedError as error:
            self._key = ""
            if error.refused_code != NO_SUCH_ROUTE:
                return f"the claim of the upgrade was refused: {error.message}"
        self._has = True
        return ""
