"""The page in a real browser, on a coordinator whose nodes only report: every page, who may, and hostile text."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from agent.layout import Layout
from agent.trust import load_trust
from shared.messages import Payload, Red, Verdict, sign_message
from shared.nodes import NodeHealth
from shared.readiness import CheckStatus
from shared.report import Concern, NodeReport, ReadinessSummary, SaidCheck, Trend
from shared.roster import Role
from tests.support.coordinatorkit import Running, joined, run_coordinator, sync
from tests.support.pagekit import Visitor, accessible, chromium, page_scripts

EVIL = '<img src="//evil.example/x" onerror="alert(1)"><script>alert(2)</script>'


@dataclass
class Scene:
    running: Running
    browser: Browser
    admin: str
    red: str

    async def visitor(self, **options: object) -> Visitor:
        return await Visitor.come(self.browser, self.running.url, **options)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Two nodes, one of them red with hostile words; a release; an alert's silence."""
    await page_scripts()
    async with run_coordinator(tmp_path) as running, chromium() as browser:
        release = await running.publish()
        canary = await joined(running, "canary", Role.CANARY)
        stable = await joined(running, "stable", Role.STABLE)
        await sync(stable, report_of("stable", release, Verdict.GREEN))
        red = await _red(canary)
        await sync(canary, report_of("canary", release, Verdict.RED), messages=[red])
        admin = running.settings.paths.token.read_text().strip()
        asked = {"rule": "runtime-offline", "subject": "", "for_s": 600, "reason": EVIL}
        await running.post("/v1/alert-silences", asked)
        listed = await running.get("/v1/reds")
        yield Scene(running, browser, admin, str(listed["reds"][0]["key"]))


async def _red(node: Layout) -> str:
    trust = await asyncio.to_thread(load_trust, node)
    payload = Payload(
        fleet=trust.fleet.fleet,
        origin=trust.name,
        epoch=1,
        sequence=1,
        issued=time.time(),
        body=Red(kind="readiness", reason=EVIL),
    )
    return sign_message(payload, trust.key).raw


def report_of(name: str, release: str, status: Verdict) -> NodeReport:
    values: list[float | None] = [float(value) for value in range(10, 40)]
    fails = status is Verdict.RED
    return NodeReport(
        node=name,
        agent_version="0.2.0",
        release=release,
        version_on_disk="2026.9.6",
        version_running="2026.9.6",
        readiness=ReadinessSummary(
            status=status,
            reason=EVIL if fails else "",
            concerns=[Concern(id="doctor", status=CheckStatus.FAIL, reason=EVIL)] if fails else [],
            checks=[
                SaidCheck(id="memory", status=CheckStatus.PASS, observed=4e8, unit="bytes", at=1.0),
                SaidCheck(id="doctor", status=CheckStatus.FAIL, reason=EVIL, observed=EVIL[:80]),
            ],
        ),
        waiting=EVIL,
        alerts=[EVIL],
        weight=100,
        health=NodeHealth(window_s=3600, uptime=99.9),
        trends=[Trend(name="memory_bytes", unit="bytes", values=values)],
    )


PAGES = (
    "/",
    "/?q=canary&sort=-health",
    "/nodes/canary",
    "/nodes/canary/restart",
    "/nodes/canary/rollback",
    "/nodes/canary/collect_logs",
    "/nodes/canary/cordon",
    "/nodes/canary/describe",
    "/rollouts",
    "/rollouts/new",
    "/reds",
    "/reds/{red}",
    "/alerts",
    "/alert-silences/new",
    "/releases",
    "/capabilities",
    "/orders",
    "/sla-sweep",
    "/traffic",
    "/traffic/freeze",
    "/traffic/nodes/stable",
    "/audit",
    "/settings",
    "/settings/soak",
    "/you",
    "/nodes/nobody",
)


@pytest.mark.timeout(600)
async def test_every_page_is_accessible_asks_nobody_else_and_keeps_text_text(scene: Scene) -> None:
    visitor = await scene.visitor()
    assert await visitor.go("/") == 200, "whoever is not signed in gets the form"
    assert visitor.page.url == f"{scene.running.url}/sign-in?next=/"
    assert await accessible(visitor.page) == []
    await visitor.sign_in(scene.admin)
    for path in PAGES:
        wanted = 404 if "nobody" in path else 200
        assert await visitor.go(path.format(red=scene.red)) == wanted, path
        assert await accessible(visitor.page) == [], path
        assert await visitor.page.locator("main img, main script").count() == 0, path
        visitor.complaints = [each for each in visitor.complaints if "404" not in each]
        assert visitor.complaints == [], path
    assert visitor.elsewhere == []
    await visitor.go("/nodes/canary")
    assert EVIL in await visitor.text(), "it is shown as the text that it is"
    await visitor.leave()
    dark = await scene.visitor(color_scheme="dark", reduced_motion="reduce")
    await dark.sign_in(scene.admin)
    for path in ("/", "/nodes/canary", "/rollouts/new", "/reds"):
        await dark.go(path)
        assert await accessible(dark.page) == [], path
    phone = await scene.visitor(is_mobile=True, has_touch=True)
    await phone.page.set_viewport_size({"width": 390, "height": 800})
    await phone.sign_in(scene.admin)
    for path in ("/", "/nodes/canary", "/settings", "/rollouts/new"):
        await phone.go(path)
        wide = await phone.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, f"{path} is {wide} wide"


async def test_a_viewer_sees_no_buttons_and_is_refused_behind_them(scene: Scene) -> None:
    token = str((await scene.running.operator("viewer"))["token"])
    viewer, admin = await scene.visitor(), await scene.visitor()
    await viewer.sign_in(token)
    await admin.sign_in(scene.admin)
    for path in ("/", "/nodes/canary", "/alerts", "/traffic", "/settings", "/orders"):
        await viewer.go(path)
        await admin.go(path)
        offered = "main .deeds a, main td a:text-matches('…')"
        assert await admin.page.locator(offered).count() > 0, path
        assert await viewer.page.locator(offered).count() == 0, path
    for path in ("/rollouts/new", "/nodes/canary/restart", "/settings/soak", "/traffic/freeze"):
        assert await viewer.go(path) == 403, path
    await viewer.go("/you")
    csrf = await viewer.page.locator("input[name=csrf]").first.input_value()
    for path in ("/nodes/canary/restart", "/traffic/freeze", "/settings/soak", "/rollouts/plan"):
        answer = await viewer.page.request.post(
            scene.running.url + path,
            form={"csrf": csrf, "key": "a", "reason": "x", "release": "2026.9.6"},
            max_redirects=0,
        )
        assert answer.status == 403, path
    rows = (await scene.running.get("/v1/audit?limit=500"))["rows"]
    refused = {row["action"] for row in rows if row["status"] == 403 and "a-viewer" in row["who"]}
    assert {"POST /v1/orders", "POST /v1/traffic/freeze", "PUT /v1/settings/{key}"} <= refused


async def forms_of_others_are_refused(url: str, here: Visitor, there: Visitor) -> None:
    await there.go("/you")
    of_another = await there.page.locator("input[name=csrf]").first.input_value()
    post = here.page.request.post
    for csrf in (None, "", "\u00e9", of_another):
        for path in ("/traffic/freeze", "/sign-out", "/rollouts"):
            form: dict[str, str | float | bool] = {"reason": "x", "key": "a"}
            form |= {} if csrf is None else {"csrf": csrf}
            answer = await post(url + path, form=form, max_redirects=0)
            assert answer.status == 403, (path, csrf)
    await here.go("/you")
    ours: dict[str, str | float | bool] = {
        "csrf": await here.page.locator("input[name=csrf]").first.input_value()
    }
    elsewhere = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    answer = await post(f"{url}/sign-out", form=ours, headers=elsewhere, max_redirects=0)
    assert answer.status == 403


async def test_a_session_is_its_browsers_alone_and_ends_everywhere(scene: Scene) -> None:
    url = scene.running.url
    here, there = await scene.visitor(), await scene.visitor()
    assert await here.go("/sign-in") == 200
    await here.page.fill("#token", "rollcall_op_none")
    await here.press("Sign in")
    assert await here.page.get_by_role("alert").count() == 1
    assert await here.page.context.cookies() == []
    await here.sign_in(scene.admin)
    await there.sign_in(scene.admin)
    (cookie,) = await here.page.context.cookies()
    assert cookie["name"] == "__Host-rollcall"
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Strict")
    assert (cookie["path"], cookie["expires"]) == ("/", -1)
    assert await here.page.evaluate("document.cookie") == ""
    await forms_of_others_are_refused(url, here, there)
    assert (await scene.running.get("/v1/traffic"))["frozen"] is None
    await here.go("/")
    await here.page.wait_for_selector("#link[data-state=on]")
    await there.press("Sign out everywhere")
    await joined(scene.running, "newcomer")
    await here.page.wait_for_url(f"{url}/sign-in", timeout=10_000)
    assert await here.go("/audit") == 200
    assert here.page.url == f"{url}/sign-in?next=/audit"
    await here.page.fill("#token", scene.admin)
    await here.press("Sign in")
    assert here.page.url == f"{url}/audit", "on to where one wanted to go"
    assert "page sign-out" in await here.text()


async def test_without_javascript_what_is_done_by_forms_is_done(scene: Scene) -> None:
    visitor = await scene.visitor(java_script_enabled=False)
    await visitor.sign_in(scene.admin)
    await visitor.page.fill("#q", "stable")
    await visitor.press("Filter")
    names = await visitor.page.locator("table.nodes tbody th").all_inner_texts()
    assert names == ["stable"]
    await visitor.go("/nodes/stable")
    await visitor.press("Cordon …")
    await visitor.page.fill("#f-reason", "repairs")
    await visitor.press("Cordon")
    assert "Done: cordon." in await visitor.text()
    traffic = await scene.running.get("/v1/traffic")
    share = next(each for each in traffic["nodes"] if each["node"] == "stable")
    assert (share["desired"], share["pinned"], share["reason"]) == (0, True, "repairs")
    await visitor.go("/settings/soak")
    await visitor.page.fill("#f-value", "45m")
    await visitor.press("Set it")
    assert "soak is set." in await visitor.text()
    assert "2h to 45m" in (await visitor.text()).replace("from ", "")
    await visitor.go("/nodes/stable/restart")
    await visitor.page.fill("#f-reason", EVIL)
    await visitor.press("Restart")
    await visitor.go("/orders?state=open")
    assert "restart" in await visitor.text()
    await visitor.page.locator("table tbody th a").first.click()
    assert EVIL in await visitor.text()
    await visitor.press("Cancel …")
    await visitor.press("Cancel the order")
    assert "Cancelled." in await visitor.text()
    await visitor.go("/rollouts/new")
    await visitor.page.select_option("#f-release", index=1)
    chosen = await visitor.page.input_value("#f-release")
    await visitor.page.fill("#f-batch", "lots")
    await visitor.page.check("input[name=yes_really]")
    await visitor.press("Preview the plan")
    assert "batch" in await visitor.page.get_by_role("alert").inner_text()
    kept = [await visitor.page.input_value(f"#f-{name}") for name in ("release", "batch")]
    assert kept == [chosen, "lots"]
    assert await visitor.page.is_checked("input[name=yes_really]")
    await visitor.go("/sla-sweep")
    await visitor.press("Look")
    assert "Dry run" in await visitor.text()
    await visitor.go("/you")
    await visitor.press("Sign out everywhere")
    assert visitor.page.url.endswith("/sign-in")
    await visitor.go("/")
    assert "/sign-in" in visitor.page.url


async def test_an_alert_is_taken_on_and_silenced(scene: Scene) -> None:
    visitor = await scene.visitor()
    await visitor.sign_in(scene.admin)
    await alerted(scene, "red-open")
    await visitor.go("/alerts")
    row = visitor.page.locator("tr", has_text="readiness").first
    await row.get_by_role("link", name="acknowledge …").click()
    assert "taken on by you" in await visitor.text()
    await visitor.page.fill("#f-reason", "on my way")
    await visitor.press("Acknowledge")
    assert "Acknowledged." in await visitor.text()
    alert = await alerted(scene, "red-open")
    taken_on = alert["acknowledged"]
    assert (taken_on["by"].split()[0], taken_on["reason"]) == ("first", "on my way")
    assert f"{taken_on['by']}: on my way" in await row.inner_text()
    await row.get_by_role("link", name="silence …").click()
    assert await visitor.page.input_value("#f-rule") == "red-open"
    assert await visitor.page.input_value("#f-subject") == alert["subject"]
    await visitor.page.fill("#f-for", "soon")
    await visitor.page.fill("#f-reason", "repairs")
    await visitor.press("Silence")
    assert "for:" in await visitor.page.get_by_role("alert").inner_text()
    assert await visitor.page.input_value("#f-reason") == "repairs", "nothing typed is lost"
    await visitor.page.fill("#f-for", "2h")
    await visitor.press("Silence")
    assert "Silenced." in await visitor.text()
    await expect(row).to_contain_text("silenced", timeout=20_000)
    silences = visitor.page.locator("section[aria-labelledby=silences] li", has_text="repairs")
    await silences.get_by_role("link", name="lift …").click()
    await visitor.press("Lift")
    assert "Lifted." in await visitor.text()
    assert await silences.count() == 0
    await expect(row).not_to_contain_text("silenced", timeout=20_000)


async def alerted(scene: Scene, rule: str) -> dict[str, Any]:
    """The open alert by this rule, which stands there a moment after its cause."""
    async with asyncio.timeout(30):
        while True:
            for each in (await scene.running.get("/v1/alerts"))["alerts"]:
                if each["rule"] == rule:
                    return dict(each)
            await asyncio.sleep(0.1)


async def test_a_page_is_drawn_anew_when_something_happens(scene: Scene) -> None:
    visitor = await scene.visitor()
    await visitor.sign_in(scene.admin)
    await visitor.page.wait_for_selector("#link[data-state=on]")
    await joined(scene.running, "newcomer")
    await visitor.page.wait_for_selector("text=newcomer", timeout=10_000)
    await visitor.page.route("**/live?*", lambda route: route.abort(), times=1)
    await visitor.go("/reds")
    await visitor.page.wait_for_selector("#link[data-state=lost]")
    await visitor.page.wait_for_selector("#link[data-state=on]")
    assert (
        json.loads(await visitor.page.evaluate("JSON.stringify(Object.keys(localStorage))")) == []
    )
