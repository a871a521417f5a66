"""What people do on the page: by keyboard, by forms, and by looking on while it changes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from playwright.async_api import Locator, Page, expect

from tests.support.pagekit import Visitor

PATIENCE_MS = 150_000
MOST_TABS = 80


async def tab_to(page: Page, wanted: Locator) -> None:
    for _ in range(MOST_TABS):
        await page.keyboard.press("Tab")
        if await wanted.evaluate("(each) => each === document.activeElement"):
            return
    raise AssertionError(f"{wanted} cannot be reached by keyboard")


async def enter(page: Page, wanted: Locator) -> None:
    """To the page that this link or button leads to."""
    await tab_to(page, wanted)
    async with page.expect_navigation():
        await page.keyboard.press("Enter")


async def type_into(page: Page, field: str, text: str) -> None:
    await tab_to(page, page.locator(field))
    await page.keyboard.press("Control+A")
    await page.keyboard.type(text)


async def sees(visitor: Visitor, selector: str, text: str | re.Pattern[str]) -> None:
    """Waits for it, and never loads the page anew."""
    shown = visitor.page.locator(selector).first
    await expect(shown).to_contain_text(text, timeout=PATIENCE_MS)


async def live(visitor: Visitor) -> None:
    """Connected. What is noted here is gone once the page is loaded anew."""
    await visitor.page.wait_for_selector("#link[data-state=on]")
    await visitor.page.evaluate("window.loadedOnce = true")


async def loaded_once(visitor: Visitor) -> bool:
    return bool(await visitor.page.evaluate("window.loadedOnce === true"))


async def plan_by_forms(visitor: Visitor, release: str, **fields: str) -> str:
    """From the form to the plan's page. The plan's hash."""
    await visitor.go("/rollouts/new")
    await visitor.page.select_option("#f-release", release)
    for name, value in {"soak": "1s", "settle": "1s", **fields}.items():
        await visitor.page.fill(f"#f-{name}", value)
    await visitor.page.check("input[name=yes_really]")
    await visitor.press("Preview the plan")
    return await visitor.page.locator("input[name=plan]").input_value()


async def say(visitor: Visitor, verb: str, reason: str = "", nodes: Sequence[str] = ()) -> str:
    """Presses the verb, reads what it will do, and does it."""
    await visitor.press(verb)
    told = await visitor.text()
    for node in nodes:
        await visitor.page.check(f"input[name=nodes][value={node}]")
    await visitor.page.fill("#f-reason", reason)
    await visitor.press(verb)
    assert f"Done: {verb.lower()}." in await visitor.text()
    return told


def id_of(visitor: Visitor) -> str:
    return visitor.page.url.rpartition("/")[2]


async def undo(visitor: Visitor) -> str:
    """Of the rollout that is shown. The new rollout's id."""
    await visitor.press("Undo …")
    await visitor.page.check("input[name=yes_really]")
    await visitor.press("Preview the plan")
    assert "Plan: undo" in await visitor.text()
    await visitor.press("Start this plan")
    return id_of(visitor)


async def reloaded(visitor: Visitor, text: str) -> None:
    """Looks again until the page says so."""
    async with asyncio.timeout(PATIENCE_MS / 1000):
        while text not in await visitor.page.inner_text("main .head"):
            await asyncio.sleep(0.5)
            await visitor.page.reload()
