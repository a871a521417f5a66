"""A fleet of real agents, run from the page in a real browser: with a keyboard, without JavaScript, live, on a phone.

The tests run in their order: each leaves the fleet as the next one needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from typing import Any

import pytest
from playwright.async_api import expect

from scripts.minifleet.breakage import How, break_release
from shared.errors import RollcallError
from shared.metadata import fingerprint, read_root
from shared.roster import Role
from tests.fleet.conftest import NEW, OLD
from tests.fleet.test_fleet import gateway_pid
from tests.page.conftest import Stage
from tests.support.pageflows import (
    PATIENCE_MS,
    enter,
    id_of,
    live,
    loaded_once,
    plan_by_forms,
    reloaded,
    say,
    sees,
    tab_to,
    type_into,
    undo,
)
from tests.support.pagekit import Visitor, accessible

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]
PHONE, DARK = 375, 64
LIVE_S = 10.0
"""Far above the second that it takes, for machines that have other things to do."""
EVIL = '<img src="//evil.example/x" onerror="alert(1)"><script>alert(2)</script>'
VERBS = ("pause", "promote", "retry", "skip", "abort")


async def verified(stage: Stage, archive: str) -> list[str]:
    """Names of the checks that the evidence passes."""
    first = stage.fleet.root / "coordinator" / "tuf" / "1.root.json"
    root = fingerprint(read_root(first.read_bytes()))
    found = await stage.fleet.rollcall("evidence", "verify", archive, "--root", root)
    assert found["ok"]
    return [each["name"] for each in found["checks"]]


async def start_by_keyboard(me: Visitor, release: str) -> str:
    """From the fleet's page on. The plan's hash."""
    page = me.page
    await enter(page, page.get_by_role("link", name="Start a rollout"))
    await tab_to(page, page.locator("#f-release"))
    await page.keyboard.type(NEW)
    assert await page.locator("#f-release").input_value() == release
    await type_into(page, "#f-soak", "4s")
    await type_into(page, "#f-settle", "1s")
    await tab_to(page, page.locator("input[name=yes_really]"))
    await page.keyboard.press("Space")
    await enter(page, page.get_by_role("button", name="Preview the plan"))
    plan = await page.locator("input[name=plan]").input_value()
    assert await accessible(page) == []
    text = await me.text()
    assert plan[:12] in text
    for words in ("canary", "stable", "witness", "Way back"):
        assert words in text
    await enter(page, page.get_by_role("button", name="Start this plan"))
    return plan


async def seen_by_all_and_evident(stage: Stage, me: Visitor) -> None:
    """Every node was seen green by both others, and what the page gives as evidence of that holds."""
    rows = await me.page.locator("table.matrix tbody tr").all_inner_texts()
    assert [len(re.findall("green", row)) for row in rows] == [2, 2, 2]
    assert [row.split()[0] for row in rows] == ["canary", "stable", "witness"]
    assert await accessible(me.page) == []
    async with me.page.expect_download() as downloading:
        await me.page.get_by_role("link", name="one archive, signed").click()
    archive = str(stage.fleet.root / "evidence.tar.gz")
    await (await downloading.value).save_as(archive)
    assert "attestations of witness" in await verified(stage, archive)


async def test_a_rollout_is_planned_started_held_and_taken_back(stage: Stage) -> None:
    new = await stage.fleet.freeze(NEW)
    me = await stage.visitor()
    plan = await start_by_keyboard(me, new)
    id_ = id_of(me)
    assert (await stage.get(f"/v1/rollouts/{id_}"))["plan"] == plan
    assert f"Rollout {id_} to {NEW}" in await me.text()
    await live(me)
    await sees(me, "#r-canary", "moving")
    told = await say(me, "Pause", "lunch")
    assert "Nothing new begins" in told
    assert "canary is on its way and goes on to its end" in told
    await live(me)
    await sees(me, "#r-canary", "done")
    await sees(me, "main .head", "paused")
    await sees(me, "#holding + ul", "stable")
    assert await loaded_once(me)
    for verb in VERBS:
        assert await me.go(f"/rollouts/{id_}/{verb}") == 200
        assert await me.page.locator("main ul li.reason").count() > 0, verb
    await me.go(f"/rollouts/{id_}")
    assert "stable" in await say(me, "Resume")
    await live(me)
    await sees(me, "main .head", "succeeded")
    await sees(me, ".happened", "rollout: succeeded")
    assert await loaded_once(me), "all that came by itself"
    await seen_by_all_and_evident(stage, me)
    undone = await undo(me)
    await live(me)
    await sees(me, "main .head", "succeeded")
    assert await loaded_once(me)
    assert (await stage.get(f"/v1/rollouts/{undone}"))["undoes"] == id_
    assert me.complaints == []
    assert me.elsewhere == []
    await me.leave()


async def test_without_javascript_a_rollout_is_started_held_and_taken_back(stage: Stage) -> None:
    (release,) = [
        each["id"]
        for each in (await stage.get("/v1/releases"))["releases"]
        if each["openclaw"] == NEW
    ]
    me = await stage.visitor(java_script_enabled=False)
    plan = await plan_by_forms(me, release, only="witness")
    await me.press("Start this plan")
    id_ = id_of(me)
    assert (await stage.get(f"/v1/rollouts/{id_}"))["plan"] == plan
    await say(me, "Pause", "tea")
    assert "paused" in await me.text()
    await say(me, "Resume")
    await reloaded(me, "succeeded")
    await undo(me)
    await reloaded(me, "succeeded")
    await me.leave()


async def order_done(stage: Stage, me: Visitor, node: str, kind: str) -> None:
    """Looks on until the node's newest order of this kind is done, and goes to it."""
    await me.go(f"/orders?node={node}")
    await live(me)
    row = f"table tbody tr:has-text('{kind}')"
    await sees(me, row, "completed")
    assert await loaded_once(me)
    async with me.page.expect_navigation():
        await me.page.locator(f"{row} >> th a").first.click()
    assert await accessible(me.page) == []


async def upgrade_alone(stage: Stage, me: Visitor) -> None:
    await me.go("/nodes/stable")
    await me.press("Upgrade …")
    assert await me.page.locator("#f-only").input_value() == "stable"
    await me.page.select_option("#f-release", label=f"{NEW} (OpenClaw {NEW})")
    await me.page.fill("#f-soak", "1s")
    await me.page.fill("#f-settle", "1s")
    await me.page.check("input[name=yes_really]")
    await me.press("Preview the plan")
    await me.press("Start this plan")
    await live(me)
    await sees(me, "main .head", "succeeded")


async def restart_and_logs(stage: Stage, me: Visitor) -> None:
    node = stage.fleet.node("stable")
    with node.log.open("a") as log:
        log.write(f"ERROR plugin broke: {EVIL}\n")
    before = gateway_pid(node)
    await me.go("/nodes/stable")
    await me.press("Restart …")
    assert "The gateway of stable is restarted" in await me.text()
    await me.page.fill("#f-reason", EVIL)
    await me.press("Restart")
    assert "Ordered: restart." in await me.text()
    await order_done(stage, me, "stable", "restart")
    assert EVIL in await me.text()
    assert gateway_pid(node) not in (0, before)
    await me.go("/nodes/stable")
    await me.press("Collect logs …")
    await me.press("Collect logs")
    await order_done(stage, me, "stable", "collect logs")
    assert "1 new form since the upgrade" in await me.text()
    shown = await me.page.locator("table tr:has(.tag)").inner_text()
    assert "ERROR plugin broke" in shown
    for each in await me.page.locator("details summary").all():
        await each.click()
    assert EVIL in await me.text()
    assert await me.page.locator("main img, main script").count() == 0


async def cordon_and_back(stage: Stage, me: Visitor) -> None:
    await me.go("/nodes/stable")
    await me.press("Cordon …")
    await me.page.fill("#f-reason", "repairs")
    await me.press("Cordon")
    await live(me)
    await sees(
        me, "dl.facts", re.compile("Traffic *0 % of 0 % wanted by .*, until it is given back")
    )
    assert await loaded_once(me)
    await me.press("Uncordon …")
    await me.page.fill("#f-reason", "repaired")
    await me.press("Uncordon")
    assert "Cordon …" in await me.text()
    for percent in ("100", ""):
        await me.go("/traffic/nodes/stable")
        await me.page.fill("#f-percent", percent)
        await me.page.fill("#f-reason", "all at once")
        await me.press("Set it")
    await me.go("/nodes/stable")
    await live(me)
    await sees(me, "dl.facts", re.compile("Traffic *100 % of 100 % wanted"))


async def test_a_node_is_upgraded_restarted_and_its_logs_are_read(stage: Stage) -> None:
    me = await stage.visitor()
    await me.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await me.go("/nodes/stable")
    await me.press("Describe …")
    await me.page.fill("#f-address", "ops@stable.example")
    await me.press("Save")
    await live(me)
    await me.page.locator("[data-copy=ssh]").click()
    await sees(me, "[data-copy=ssh]", "copied")
    copied = await me.page.evaluate("navigator.clipboard.readText()")
    assert copied == "ssh ops@stable.example"
    await upgrade_alone(stage, me)
    await restart_and_logs(stage, me)
    assert me.complaints == []
    await me.leave()


async def test_a_node_is_cordoned_and_rolled_back(stage: Stage) -> None:
    me = await stage.visitor()
    await cordon_and_back(stage, me)
    await me.go("/nodes/stable")
    checks = await me.page.inner_text("section[aria-labelledby=readiness]")
    for each in ("doctor", "memory", "tree"):
        assert each in checks
    assert await me.page.locator("figure.spark").count() >= 3
    assert "canary" in await me.page.inner_text("section[aria-labelledby=peers]")
    await me.press("Roll back …")
    assert "goes back to the release before" in await me.text()
    await me.page.fill("#f-reason", "back")
    await me.press("Roll back")
    await live(me)
    await sees(me, "section[aria-labelledby=versions]", OLD)
    await sees(me, "section[aria-labelledby=history] tbody tr", "rolled back")
    assert me.complaints == []
    await me.leave()
    for red in (await stage.get("/v1/reds"))["reds"]:
        if red["open"]:
            words = ("clear", red["key"], "--reason", "as it was asked")
            await stage.fleet.rollcall_agent(stage.fleet.node("stable"), *words)


async def known_red(stage: Stage) -> tuple[dict[str, Any], float]:
    """The first open red, and when the coordinator was heard to have it."""
    generation = 0
    while True:
        view = await stage.fleet.watch(generation)
        now, generation = time.monotonic(), view.generation
        if any(red.open for red in view.reds) and any(node.frozen_by for node in view.nodes):
            return next(red for red in view.reds if red.open).model_dump(), now


async def test_a_red_and_its_freeze_are_seen_as_they_come_and_end(stage: Stage) -> None:
    """The rollout is started, and the red ended, without JavaScript; somebody else looks on."""
    bad = await break_release(stage.fleet.npm, Role.CANARY, How.READY, stage.fleet.packages)
    release = await stage.fleet.freeze(NEW, name=f"{NEW}+bad", breakage=bad)
    watcher, plain = await stage.visitor(), await stage.visitor(java_script_enabled=False)
    await live(watcher)
    await plan_by_forms(plain, release)
    await plain.press("Start this plan")
    known = asyncio.create_task(known_red(stage))
    await watcher.page.wait_for_selector("section.reds", timeout=PATIENCE_MS)
    await sees(watcher, "#open-reds", "frozen")
    seen = time.monotonic()
    red, at = await known
    assert seen - at < LIVE_S
    assert red["reason"] in await watcher.text()
    await sees(watcher, "tr#n-stable", "frozen")
    assert await loaded_once(watcher)
    await reloaded(plain, "halted")
    assert "canary" in await plain.page.inner_text("section[aria-labelledby=holding]")
    await plain.go(f"/reds/{red['key']}")
    await plain.page.fill("#reason", "looked into it")
    async with plain.page.expect_download() as downloading:
        await plain.page.get_by_role("button", name="Download it").click()
    path = stage.fleet.root / "red.clear"
    await (await downloading.value).save_as(path)
    unsigned = path.read_text()
    await stage.fleet.rollcall("red", "sign", str(path), *stage.fleet.desk(), "--yes")
    for text, answer in ((unsigned, "nobody has signed"), (path.read_text(), "Ended.")):
        await plain.go(f"/reds/{red['key']}/clear")
        assert red["reason"] in await plain.text()
        await plain.page.fill("#f-file", text)
        await plain.press("End the red")
        assert answer in await plain.text()
    await expect(watcher.page.locator("section.reds")).to_have_count(0, timeout=PATIENCE_MS)
    await expect(watcher.page.locator("main .tag")).to_have_count(0, timeout=PATIENCE_MS)
    assert await loaded_once(watcher)
    await plain.leave()
    await watcher.leave()


async def test_the_page_catches_up_when_the_coordinator_is_back(stage: Stage) -> None:
    watcher = await stage.visitor()
    await watcher.go("/alerts")
    await live(watcher)
    asked: list[str] = []
    watcher.page.on(
        "request",
        lambda request: (
            asked.append(request.headers.get("last-event-id", ""))
            if "/live" in request.url
            else None
        ),
    )
    await stage.fleet.supervisor.stop("coordinator")
    await watcher.page.wait_for_selector("#link[data-state=lost]")
    stage.fleet.start_coordinator()
    async with asyncio.timeout(PATIENCE_MS / 1000):
        while True:
            with contextlib.suppress(RollcallError):
                silence = ("--rule", "clock", "--for", "10m", "--reason", "while it was away")
                await stage.fleet.rollcall("alert", "silence", *silence)
                break
            await asyncio.sleep(0.2)
    await watcher.page.wait_for_selector("#link[data-state=on]", timeout=PATIENCE_MS)
    await sees(watcher, "section[aria-labelledby=silences]", "while it was away")
    assert await loaded_once(watcher)
    assert re.fullmatch(r"[0-9]+\.[0-9]+", asked[-1])
    await watcher.leave()


async def test_on_a_phone_in_the_dark_every_page_fits_and_is_accessible(stage: Stage) -> None:
    me = await stage.visitor(is_mobile=True, has_touch=True, color_scheme="dark")
    await me.page.set_viewport_size({"width": PHONE, "height": 700})
    rollouts = [each["id"] for each in (await stage.get("/v1/rollouts"))["rollouts"]]
    (red, *_) = [each["key"] for each in (await stage.get("/v1/reds"))["reds"]]
    orders = [each["id"] for each in (await stage.get("/v1/orders"))["orders"]]
    paths = ["/", "/rollouts", "/rollouts/new", f"/rollouts/{rollouts[0]}", f"/reds/{red}"]
    paths += [f"/rollouts/{rollouts[0]}/skip", f"/reds/{red}/clear", "/nodes/stable"]
    paths += [f"/orders/{id_}" for id_ in orders[:3]]
    paths += ["/reds", "/orders", "/traffic", "/alerts", "/releases", "/audit", "/settings"]
    for path in paths:
        assert await me.go(path) == 200, path
        wide = await me.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE, f"{path} is {wide} wide"
        found = await accessible(me.page)
        assert found == [], f"{path}: {found}"
    back = await me.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(each) for each in re.findall("[0-9]+", back)[:3]) < DARK
    assert me.complaints == []
    await me.leave()
