"""What tests of whole fleets ask of a node, again and again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from scripts.minifleet.fleet import MiniFleet, Node
from shared.errors import RollcallError

PATIENCE_S = 150.0


async def status(fleet: MiniFleet, node: Node) -> dict[str, Any]:
    """As `rollcall-agent status --json` prints it. Raises RollcallError while the agent is down."""
    return (await fleet.status(node)).model_dump(mode="json")


async def until_status(
    fleet: MiniFleet, node: Node, good: Callable[[dict[str, Any]], object], what: str
) -> dict[str, Any]:
    """The first status that is good; an agent that is down for a moment is waited for."""
    last: dict[str, Any] = {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(RollcallError):
                    last = await status(fleet, node)
                    if good(last):
                        return last
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"{node.name} is not {what}: {last}") from None
