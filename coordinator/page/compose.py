"""Puts the page together."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from coordinator.api.gate import Gate
from coordinator.api.inside import Inside
from coordinator.api.routes import Resource
from coordinator.page.deeds import DeedPages
from coordinator.page.pages import (
    alerts,
    books,
    fleet,
    nodes,
    orders,
    reds,
    releases,
    rollouts,
    traffic,
)
from coordinator.page.sessions import Doorkeeper
from coordinator.page.visit import Group
from coordinator.page.web import Page, load_assets
from shared.clock import Clock


def groups() -> tuple[Group, ...]:
    """In the order in which their routes are looked at: deeds have the longer paths."""
    deeds = (
        *rollouts.DEEDS,
        *nodes.DEEDS,
        *reds.DEEDS,
        *alerts.DEEDS,
        *orders.DEEDS,
        *traffic.DEEDS,
        *releases.DEEDS,
        *books.DEEDS,
    )
    return (
        fleet.FleetPages(),
        rollouts.RolloutPages(),
        DeedPages(deeds),
        nodes.NodePages(),
        reds.RedPages(),
        alerts.AlertPages(),
        orders.OrderPages(),
        traffic.TrafficPages(),
        releases.ReleasePages(),
        books.BookPages(),
    )


async def add_page(
    app: web.Application,
    gate: Gate,
    resources: Sequence[Resource],
    doorkeeper: Doorkeeper,
    clock: Clock,
    fleet_name: str,
) -> None:
    page = Page(Inside(gate, resources), doorkeeper, await load_assets(), clock, fleet_name)
    page.add_to(app, groups())
