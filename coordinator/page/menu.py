"""The menu at the top, with what needs somebody counted."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.api.alerts import AlertList
from coordinator.api.reds import RedList
from coordinator.page.visit import Visit


@dataclass(frozen=True)
class Entry:
    """`count` is of what needs somebody; `counts` names it for who hears the page."""

    path: str
    name: str
    active: bool
    count: int = 0
    counts: str = ""


@dataclass(frozen=True)
class Menu:
    entries: tuple[Entry, ...] = ()


PAGES = (
    ("/", "Fleet"),
    ("/rollouts", "Rollouts"),
    ("/reds", "Reds"),
    ("/alerts", "Alerts"),
    ("/releases", "Releases"),
    ("/capabilities", "Capabilities"),
    ("/orders", "Orders"),
    ("/traffic", "Traffic"),
    ("/audit", "Audit"),
    ("/settings", "Settings"),
)


async def menu_of(visit: Visit, active: str) -> Menu:
    reds = (await visit.read(RedList, "GET /v1/reds")).reds
    alerts = (await visit.read(AlertList, "GET /v1/alerts")).alerts
    counts = {
        "/reds": (sum(red.open for red in reds), "open"),
        "/alerts": (sum(each.acknowledged is None for each in alerts), "not acknowledged"),
    }
    return Menu(
        tuple(Entry(path, name, path == active, *counts.get(path, (0, ""))) for path, name in PAGES)
    )
