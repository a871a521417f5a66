"""A browser for tests: the system's Chromium, driven by Playwright, and what pages must never do in it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, Request, async_playwright

from scripts.debian import need
from scripts.pagescripts import AXE, fetch

CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1280, 900
SERIOUS = ("serious", "critical")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    need("chromium", "chromium")
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            await browser.close()


async def page_scripts() -> None:
    """htmx for the coordinator, and axe-core for `accessible`."""
    await fetch()


@dataclass
class Visitor:
    """Somebody with a browser of their own. `complaints` are what its console said; `elsewhere` every request to
    another place than the coordinator."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    @classmethod
    async def come(cls, browser: Browser, url: str, **options: Any) -> Visitor:
        context: BrowserContext = await browser.new_context(
            ignore_https_errors=True, viewport={"width": WIDTH, "height": HEIGHT}, **options
        )
        visitor = cls(await context.new_page(), url)
        page = visitor.page
        page.on("request", visitor._saw)
        page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
        page.on(
            "console",
            lambda said: visitor.complaints.append(said.text) if said.type == "error" else None,
        )
        return visitor

    def _saw(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", "about:")):
            self.elsewhere.append(request.url)

    async def sign_in(self, token: str) -> None:
        await self.page.goto(f"{self.url}/sign-in")
        await self.page.fill("#token", token)
        await self.page.click("button[type=submit]")
        await self.page.wait_for_url(f"{self.url}/")

    async def go(self, path: str) -> int:
        """The status of the answer."""
        answer = await self.page.goto(self.url + path)
        return 0 if answer is None else answer.status

    async def press(self, name: str) -> None:
        """A link or a button with this text, and to the page that it leads to."""
        button = self.page.get_by_role("button", name=name, exact=True)
        link = self.page.get_by_role("link", name=name, exact=True)
        async with self.page.expect_navigation():
            await button.or_(link).first.click()

    async def text(self) -> str:
        return await self.page.inner_text("main")

    async def leave(self) -> None:
        await self.page.context.close()


async def accessible(page: Page) -> list[str]:
    """What axe-core finds that is serious or worse, a line each. axe comes in past the page's own policy."""
    client = await page.context.new_cdp_session(page)
    source = AXE.read_text()
    world = await client.send("Page.createIsolatedWorld", {"frameId": await _frame(client)})
    context = world["executionContextId"]
    await client.send("Runtime.evaluate", {"expression": source, "contextId": context})
    found = await client.send(
        "Runtime.evaluate",
        {
            "expression": "axe.run(document).then(found => JSON.stringify(found.violations))",
            "contextId": context,
            "awaitPromise": True,
            "returnByValue": True,
        },
    )
    await client.detach()
    violations = json.loads(found["result"]["value"])
    return [
        f"{each['id']}: {each['help']}: {node['html'][:200]}"
        for each in violations
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]


async def _frame(client: Any) -> str:
    tree = await client.send("Page.getFrameTree")
    return str(tree["frameTree"]["frame"]["id"])
