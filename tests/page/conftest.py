"""A fleet of real processes with the stand-in for OpenClaw, and a browser, that the tests of a module share."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest_asyncio
from playwright.async_api import Browser

from coordinator.cli.client import Client
from scripts.minifleet.fleet import MiniFleet
from tests.fleet.conftest import ready_fleet
from tests.support.pagekit import Visitor, chromium, page_scripts


@dataclass
class Stage:
    """Three nodes that run the old release."""

    fleet: MiniFleet
    browser: Browser

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.fleet.coordinator_port}"

    @property
    def admin(self) -> str:
        return (self.fleet.root / "coordinator" / "operator.token").read_text().strip()

    async def visitor(self, **options: Any) -> Visitor:
        """Signed in as the first admin."""
        visitor = await Visitor.come(self.browser, self.url, **options)
        await visitor.sign_in(self.admin)
        return visitor

    async def get(self, path: str) -> dict[str, Any]:
        return dict(json.loads(await Client(self.fleet.config).ask("GET", path)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    await page_scripts()
    async with ready_fleet() as ready, chromium() as browser:
        yield Stage(ready.fleet, browser)
