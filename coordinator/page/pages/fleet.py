"""`/`: the fleet; `/live`: what has changed, while a page is looked at."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from coordinator.api.inside import Ask
from coordinator.api.reds import RedList
from coordinator.api.releases import ReleaseList
from coordinator.api.rollouts import NodeList, RolloutList
from coordinator.api.settings import SettingList
from coordinator.page.views.fleet import Known, Wanted, fleet_page, sort_of, status_of
from coordinator.page.visit import Drawn, Group, PageRoute, Visit
from shared.rollout import NodeView, Rollout

MAX_TEXT = 100
OFTEN_MS, SELDOM_MS = 400, 2000
"""How often a page may be drawn anew: of a small fleet at once, of a large one so that nobody else waits for it."""
LOOK_MS = 1000
"""The same for what does not grow with the fleet."""
LARGE = 200


class FleetPages(Group):
    async def fleet(self, visit: Visit) -> Drawn:
        nodes = await nodes_of(visit)
        settings = await settings_of(visit)
        releases = (await visit.read(ReleaseList, "GET /v1/releases")).releases
        latest = next((each for each in releases if each.name == settings["latest"]), None)
        known = Known(
            nodes=nodes,
            reds=(await visit.read(RedList, "GET /v1/reds")).reds,
            rollout=await last_rollout(visit),
            latest_core=latest.openclaw if latest else "",
            latest_agent=latest.agent.version if latest and latest.agent else "",
            minimum_core=settings["min_supported"] or "",
            minimum_agent=settings["min_supported_agent"] or "",
        )
        page = fleet_page(known, wanted_of(visit))
        values = {"page": page, "every_ms": every_ms(len(nodes))}
        return Drawn("fleet.html", "Fleet", values, active="/")

    async def live(self, visit: Visit) -> web.StreamResponse:
        every = visit.asked("every", str(SELDOM_MS))
        ask = Ask("GET /v1/events", {}, {"fleet_ms": every}, request=visit.request)
        answer = await visit.inside.ask(visit.signed.caller, ask)
        if not isinstance(answer, web.StreamResponse):
            raise TypeError("the stream of events is no document")
        return answer

    routes = (PageRoute("GET", "/", fleet), PageRoute("GET", "/live", live))


def every_ms(nodes: int) -> int:
    """How often a page that shows so many nodes may be drawn anew."""
    return OFTEN_MS if nodes < LARGE else SELDOM_MS


def wanted_of(visit: Visit) -> Wanted:
    number = visit.asked("page", "1")
    return Wanted(
        text=visit.asked("q").strip()[:MAX_TEXT],
        status=status_of(visit.asked("status")),
        version=visit.asked("version")[:MAX_TEXT],
        site=visit.asked("site")[:MAX_TEXT],
        sort=sort_of(visit.asked("sort", "status")),
        page=int(number) if number.isascii() and number.isdigit() and len(number) < 7 else 1,
    )


async def nodes_of(visit: Visit) -> list[NodeView]:
    """Every node, without what only its own page shows."""
    return (await visit.read(NodeList, "GET /v1/nodes", query={"brief": "1"})).nodes


async def settings_of(visit: Visit) -> dict[str, Any]:
    """Values by key."""
    listed = await visit.read(SettingList, "GET /v1/settings")
    return {each.key: each.value for each in listed.settings}


async def last_rollout(visit: Visit) -> Rollout | None:
    found = (await visit.read(RolloutList, "GET /v1/rollouts")).rollouts
    return found[0] if found else None
