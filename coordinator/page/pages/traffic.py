"""`/traffic`: every node's share, who holds the ratios, and what was wanted when."""

from __future__ import annotations

from typing import Any

from coordinator.page.deeds import MUST_REASON, Answer, Deed, Field, Told
from coordinator.page.pages.fleet import LOOK_MS
from coordinator.page.pages.nodes import traffic_of
from coordinator.page.visit import Drawn, Goes, Group, PageRoute, Visit
from shared.errors import BadInputError
from shared.traffic import FreezeRequest, SetShare, SnapshotList, TrafficHistory, TrafficView
from shared.wire import Wire

MENU = "/traffic"


class TrafficPages(Group):
    async def show(self, visit: Visit) -> Drawn:
        values = {
            "traffic": await visit.read(TrafficView, "GET /v1/traffic"),
            "history": (
                await visit.read(TrafficHistory, "GET /v1/traffic/history", query={"limit": "50"})
            ).history,
            "snapshots": (await visit.read(SnapshotList, "GET /v1/traffic/snapshots")).snapshots,
            "every_ms": LOOK_MS,
        }
        return Drawn("traffic.html", "Traffic", values, active=MENU)

    routes = (PageRoute("GET", "/traffic", show),)


class FreezeDeed(Deed):
    active = MENU

    def __init__(self, *, freeze: bool) -> None:
        self._freeze = freeze
        word = "freeze" if freeze else "unfreeze"
        self.path, self.action = f"/traffic/{word}", f"POST /v1/traffic/{word}"

    async def tell(self, visit: Visit) -> Told:
        if self._freeze:
            lines = [
                "Every ratio of the fleet stays what it is: no rollout widens, no share can be set.",
                "It lasts until somebody lets them change again.",
            ]
            return Told("Freeze all ratios", lines, "Freeze", MENU, (MUST_REASON,), danger=True)
        lines = ["Ratios may change again: rollouts widen where they were, on green only."]
        return Told("Let ratios change", lines, "Unfreeze", MENU, (MUST_REASON,))

    def body(self, visit: Visit) -> Wire:
        return FreezeRequest.from_value({"reason": visit.typed("reason")})

    def after(self, visit: Visit, answer: Answer) -> Goes:
        return Goes(
            MENU, "The ratios are frozen." if self._freeze else "The ratios may change again."
        )


class SetShareDeed(Deed):
    active = MENU
    path = "/traffic/nodes/{name}"
    action = "POST /v1/traffic/nodes/{name}"

    async def tell(self, visit: Visit) -> Told:
        name = visit.path["name"]
        share = await traffic_of(visit, name)
        now = "not set" if share is None or share.desired is None else f"{share.desired} %"
        return Told(
            title=f"Traffic of {name}",
            lines=[
                f"What is wanted of {name} now: {now}.",
                "A share that is set here stands until it is given back; rollouts leave it alone meanwhile.",
            ],
            button="Set it",
            back=MENU,
            fields=(
                Field(
                    "percent", "Percent", "number", hint="0 to 100; empty gives it back to rollouts"
                ),
                MUST_REASON,
            ),
        )

    def body(self, visit: Visit) -> Wire:
        text = visit.typed("percent")
        if text and not (text.isascii() and text.isdigit() and len(text) <= 3):
            raise BadInputError("percent is a whole number from 0 to 100")
        asked: dict[str, Any] = {"percent": int(text)} if text else {"auto": True}
        return SetShare.from_value({**asked, "reason": visit.typed("reason")})

    def after(self, visit: Visit, answer: Answer) -> Goes:
        return Goes(MENU, f"The share of {visit.path['name']} is set.")


DEEDS: tuple[Deed, ...] = (FreezeDeed(freeze=True), FreezeDeed(freeze=False), SetShareDeed())
