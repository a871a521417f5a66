"""Takes the pictures of the admin page that README and docs show: `.venv/bin/python -m scripts.screenshots`

Three agents with the stand-in for OpenClaw are moved for real, and what the page says in Chromium is what is seen. It
takes some four minutes. Look at every picture before it is committed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

from scripts.debian import need
from scripts.minifleet.breakage import How, break_release
from scripts.minifleet.fleet import STANDIN, MiniFleet
from scripts.minifleet.workspace import Workspace
from scripts.pagescripts import fetch
from scripts.pngs import shrink
from shared.errors import RollcallError
from shared.nodes import NodeStatus
from shared.report import UpgradeReport
from shared.rollout import FleetView, RolloutState
from shared.roster import Role
from shared.terminal import say

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
CHROMIUM = "/usr/bin/chromium"
BEFORE, AFTER, BAD = "2026.7.35", "2026.9.6", "2026.9.7"
SITES = {"canary": "studio", "stable": "office", "witness": "office"}
WIDE, PHONE = {"width": 1200, "height": 800}, {"width": 390, "height": 844}
MAX_BYTES = 150_000
PATIENCE_S = 600.0
PATIENT = replace(STANDIN, attest_timeout_s=PATIENCE_S)
"""A busy machine takes longer for pictures than a canary waits for its peers."""


@dataclass
class Camera:
    """Signed in by a link, as `rollcall open` does it."""

    browser: Browser
    fleet: MiniFleet
    folder: Path

    @asynccontextmanager
    async def page(self, **options: Any) -> AsyncIterator[Page]:
        """Ignores who vouches for the coordinator: its authority is as old as this fleet."""
        size = options.pop("viewport", WIDE)
        context = await self.browser.new_context(
            ignore_https_errors=True, viewport=size, reduced_motion="reduce", **options
        )
        try:
            link = (await self.fleet.rollcall("open"))["url"]
            page = await context.new_page()
            await page.goto(link)
            await page.wait_for_selector("h1:text('Fleet')")
            yield page
        finally:
            await context.close()

    async def take(self, page: Page, name: str) -> None:
        """The whole page, however long it is."""
        raw = await page.screenshot(full_page=True)
        small = await asyncio.to_thread(shrink, raw)
        if len(small) > MAX_BYTES:
            raise RollcallError(f"{name}.png has {len(small)} bytes, more than {MAX_BYTES}")
        await asyncio.to_thread((self.folder / f"{name}.png").write_bytes, small)
        say(f"  {name}.png: {len(small) / 1000:.0f} kB")


@asynccontextmanager
async def _camera(fleet: MiniFleet, folder: Path) -> AsyncIterator[Camera]:
    need("chromium", "chromium")
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield Camera(browser, fleet, folder)
        finally:
            await browser.close()


async def until(fleet: MiniFleet, holds: Callable[[FleetView], bool], what: str) -> None:
    """Raises RollcallError when it does not come to that."""
    generation = 0
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                view = await fleet.watch(generation)
                if holds(view):
                    return
                generation = view.generation
    except TimeoutError:
        raise RollcallError(f"it did not come to that: {what}") from None


def _upgrade(view: FleetView, name: str) -> UpgradeReport | None:
    return next((node.upgrade for node in view.nodes if node.name == name), None)


def _is_at(name: str, *phases: str) -> Callable[[FleetView], bool]:
    def holds(view: FleetView) -> bool:
        found = _upgrade(view, name)
        return found is not None and found.outcome is None and found.phase in phases

    return holds


def _is_offline(name: str) -> Callable[[FleetView], bool]:
    return lambda view: any(
        node.name == name and node.node_status is NodeStatus.OFFLINE for node in view.nodes
    )


def _has_ended(view: FleetView) -> bool:
    return view.rollout is not None and view.rollout.state is RolloutState.SUCCEEDED


def _all_frozen_but_canary(view: FleetView) -> bool:
    others = [node for node in view.nodes if node.name != "canary"]
    canary = _upgrade(view, "canary")
    back = canary is not None and canary.outcome == "rolled_back"
    return back and all(node.frozen_by for node in others)


async def plan_in_browser(page: Page, release: str) -> None:
    """The steps of somebody who starts a rollout, up to the preview."""
    await page.click("text=Start a rollout")
    await page.select_option("#f-release", release)
    await page.fill("#f-soak", "20s")
    await page.fill("#f-settle", "3s")
    await page.fill("#f-steps", "25,100")
    await page.fill("#f-step_for", "2s")
    await page.check("[name=yes_really]")
    await page.click("text=Preview the plan")
    await page.wait_for_selector("text=Start this plan")


async def held_up(camera: Camera, page: Page) -> None:
    """One peer's agent stands still while the others wait for its word."""
    fleet = camera.fleet
    await until(fleet, _is_at("canary", "restarted", "proven"), "the canary has its new release")
    pid = fleet.supervisor.pid("witness")
    if pid is None:
        raise RollcallError("the witness's agent does not run")
    os.kill(pid, signal.SIGSTOP)
    try:
        await until(fleet, _is_at("canary", "attested"), "the canary waits for its peers")
        await until(fleet, _is_offline("witness"), "the witness is missed")
        await page.wait_for_selector("#link[data-state=on]")
        await camera.take(page, "rollout")
        async with camera.page() as light:
            await camera.take(light, "fleet")
        async with camera.page(color_scheme="dark") as dark:
            await camera.take(dark, "fleet-dark")
        async with camera.page(viewport=PHONE, is_mobile=True, device_scale_factor=1.5) as phone:
            await camera.take(phone, "fleet-phone")
    finally:
        os.kill(pid, signal.SIGCONT)


async def take_all(camera: Camera, minutes: float) -> None:
    fleet = camera.fleet
    await fleet.open()
    await fleet.install(BEFORE)
    for name, site in SITES.items():
        await fleet.rollcall("node", "set", name, "--site", site)
    good = await fleet.freeze(AFTER)
    async with camera.page() as page:
        await plan_in_browser(page, good)
        await camera.take(page, "plan")
        await page.click("text=Start this plan")
        await held_up(camera, page)
        await until(fleet, _has_ended, "the rollout succeeds")
        await asyncio.sleep(60 * minutes)
        await page.goto(page.url.split("/rollouts")[0] + "/nodes/stable")
        await camera.take(page, "node")
    breakage = await break_release(fleet.npm, Role.CANARY, How.READY, fleet.packages)
    bad = await fleet.freeze(BAD, breakage=breakage)
    await fleet.set_target(bad, strategy="canary", soak_s=3)
    await until(fleet, _all_frozen_but_canary, "the canary's red freezes the others")
    async with camera.page() as page:
        await camera.take(page, "red")


async def run(folder: Path, minutes: float) -> None:
    await fetch()
    folder.mkdir(parents=True, exist_ok=True)
    fleet = MiniFleet(Workspace(), PATIENT, standin=True, mdns=False)
    try:
        async with _camera(fleet, folder) as camera:
            await take_all(camera, minutes)
    finally:
        await fleet.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts.screenshots", description=__doc__)
    parser.add_argument("--to", type=Path, default=PICTURES, metavar="FOLDER")
    parser.add_argument(
        "--minutes", type=float, default=2, help="nodes have lived so long when one is shown"
    )
    options = parser.parse_args()
    try:
        asyncio.run(run(options.to, options.minutes))
    except RollcallError as error:
        say(f"screenshots: {error}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
