"""`/v1/traffic` at a real coordinator: what operators say, what a node is told, and what outlives a restart."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agent.layout import Layout
from agent.trust import load_trust
from shared.errors import RollcallError
from shared.messages import Attestation, Body, Payload, Proven, Verdict, sign_message
from shared.report import Asker, NodeReport, ReadinessSummary, SyncAnswer, UpgradeReport
from shared.traffic import Step
from tests.support.coordinatorkit import Running, joined, sync
from tests.unit.test_red_api import red_of, says

NEW, OLD, HASH = "a" * 64, "b" * 64, "c" * 64
WHY = {"reason": "a test"}


def report(name: str = "a", **changes: object) -> NodeReport:
    made = NodeReport(
        node=name,
        agent_version="0",
        release=NEW,
        readiness=ReadinessSummary(status=Verdict.GREEN, ready_probe_sha256=HASH),
        weight=100,
    )
    return made.model_copy(update=changes)


def upgraded(name: str, weight: int, phase: str = "soaking", **changes: object) -> NodeReport:
    upgrade = UpgradeReport(
        order=f"a1b2c3d4:{name}",
        release=NEW,
        phase=phase,
        outcome=None if phase == "soaking" else phase,
        began=0,
    )
    asker = Asker(address="10.0.0.9", via="agent-check", asked=0)
    known = {"upgrade": upgrade, "weight": weight, "balancers": [asker]}
    return report(name, **{**known, **changes})


@pytest.fixture
async def pair(running: Running) -> dict[str, Layout]:
    made = {name: await joined(running, name) for name in ("a", "b")}
    for name, layout in made.items():
        await sync(layout, report(name))
    return made


async def shown(running: Running, name: str = "a") -> dict[str, Any]:
    nodes = (await running.get("/v1/traffic"))["nodes"]
    return next(node for node in nodes if node["node"] == name)


def step_of(answer: SyncAnswer) -> Step:
    assert answer.traffic is not None
    assert answer.traffic.step is not None
    return answer.traffic.step


async def test_a_node_that_nobody_has_spoken_of_keeps_what_it_has(
    running: Running, pair: dict[str, Layout]
) -> None:
    answer = await sync(pair["a"], report(weight=25))
    assert answer.traffic is not None
    assert answer.traffic.step is None
    node = await shown(running)
    assert (node["desired"], node["actual"], node["waits"]) == (None, 25, "")


async def test_an_operators_word_wakes_the_node_and_stands_until_it_is_given_back(
    running: Running, pair: dict[str, Layout]
) -> None:
    known = await sync(pair["b"], report("b"))
    assert known.traffic is not None
    waiting = asyncio.create_task(
        says(pair["b"], wait_s=20, repository=known.repository, traffic=known.traffic.tag)
    )
    await asyncio.sleep(0.2)
    tried = await running.post("/v1/traffic/nodes/b", {"percent": 40, **WHY, "dry_run": True})
    assert (tried["desired"], tried["pinned"]) == (40, True)
    await asyncio.sleep(0.2)
    assert not waiting.done()
    said = await running.post("/v1/traffic/nodes/b", {"percent": 40, **WHY})
    assert (said["desired"], said["pinned"], said["by"][:5]) == (40, True, "first")
    async with asyncio.timeout(60):
        step = step_of(await waiting)
    assert (step.percent, step.release, step.widens) == (40, None, False)
    assert step.id.endswith(":b")
    await sync(pair["b"], report("b", weight=40))
    await running.post("/v1/traffic/nodes/b", {"auto": True, **WHY})
    given_back = step_of(await sync(pair["b"], report("b", weight=40)))
    assert (given_back.percent, given_back.widens, given_back.release) == (40, True, NEW)
    assert given_back.id != step.id


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("nodes/a", {"percent": 40}, 400, "reason"),
        ("nodes/a", {"percent": 40, "reason": ""}, 400, "reason"),
        ("nodes/a", {"percent": 101, **WHY}, 400, "percent"),
        ("nodes/a", {"percent": 40, "auto": True, **WHY}, 400, "not both"),
        ("nodes/a", WHY, 400, "not both"),
        ("nodes/a", {"auto": True, **WHY}, 409, "not set by an operator"),
        ("nodes/c", {"percent": 40, **WHY}, 404, "no node is called 'c'"),
        ("unfreeze", WHY, 409, "not frozen"),
        ("snapshots", {"name": "../x"}, 400, "name"),
        ("snapshots/none/restore", WHY, 404, "no snapshot 'none'"),
    ],
)
async def test_what_cannot_be_is_refused_with_the_reason(
    running: Running,
    pair: dict[str, Layout],
    path: str,
    body: dict[str, object],
    status: int,
    words: str,
) -> None:
    token = running.settings.paths.token.read_text()
    reply = await running.reply(
        "POST", f"/v1/traffic/{path}", token=token, body=json.dumps(body).encode()
    )
    assert (reply.status, words in reply.body["detail"]) == (status, True), reply.body


async def test_a_viewer_sees_and_changes_nothing(running: Running, pair: dict[str, Layout]) -> None:
    token = (await running.operator("viewer"))["token"]
    assert (await running.reply("GET", "/v1/traffic", token=token)).status == 200
    body = json.dumps({"percent": 40, **WHY}).encode()
    assert (
        await running.reply("POST", "/v1/traffic/nodes/a", token=token, body=body)
    ).status == 403


async def test_a_freeze_holds_everybody_and_outlives_the_coordinator(
    running: Running, pair: dict[str, Layout]
) -> None:
    await running.post("/v1/traffic/nodes/a", {"percent": 40, **WHY})
    await running.post("/v1/traffic/freeze", {"reason": "a fair is on"})
    for refused in ("freeze", "nodes/a", "snapshots/x/restore"):
        body = {**WHY, **({"percent": 50} if refused == "nodes/a" else {})}
        if refused.startswith("snapshots"):
            await running.post("/v1/traffic/snapshots", {"name": "x"})
        with pytest.raises(RollcallError, match="a fair is on"):
            await running.post(f"/v1/traffic/{refused}", body)
    await running.restart()
    answer = await sync(pair["a"], report(weight=40))
    assert answer.traffic is not None
    assert "froze all ratios: a fair is on" in answer.traffic.frozen
    assert step_of(answer).percent == 40
    assert (await running.get("/v1/traffic"))["frozen"]["reason"] == "a fair is on"
    over = await running.post("/v1/traffic/unfreeze", WHY)
    assert over["reason"] == "a fair is on"
    told = (await sync(pair["a"], report(weight=40))).traffic
    assert told is not None
    assert told.frozen == ""
    history = (await running.get("/v1/traffic/history"))["history"]
    assert [each["reason"] for each in history] == [
        "freeze lifted: a test",
        "all ratios frozen: a fair is on",
        "a test",
    ]


async def test_a_snapshot_restores_what_was_wanted(
    running: Running, pair: dict[str, Layout]
) -> None:
    await running.post("/v1/traffic/nodes/a", {"percent": 40, **WHY})
    await sync(pair["a"], report(weight=40))
    await running.post("/v1/traffic/snapshots", {"name": "evening", "reason": "before the fair"})
    with pytest.raises(RollcallError, match="a snapshot 'evening' already"):
        await running.post("/v1/traffic/snapshots", {"name": "evening"})
    await running.post("/v1/traffic/nodes/a", {"percent": 0, **WHY})
    await running.post("/v1/traffic/nodes/b", {"percent": 5, **WHY})
    await sync(pair["a"], report(weight=0, release=OLD))
    path = "/v1/traffic/snapshots/evening/restore"
    tried = await running.post(path, {**WHY, "dry_run": True})
    assert [(each["node"], each["now"], each["then"]) for each in tried["differences"]] == [
        ("a", 0, 40),
        ("b", 5, 100),
    ]
    assert "another release" in tried["differences"][0]["note"]
    assert (await shown(running))["desired"] == 0
    await running.post(path, WHY)
    a, b = await shown(running), await shown(running, "b")
    assert (a["desired"], a["pinned"]) == (40, True)
    assert (b["desired"], b["pinned"]) == (100, False)
    assert a["reason"] == "a test (snapshot evening)"


async def until_step(layout: Layout, said: NodeReport, percent: int) -> Step:
    async with asyncio.timeout(60):
        while True:
            answer = await sync(layout, said)
            step = None if answer.traffic is None else answer.traffic.step
            if step is not None and step.percent == percent:
                return step
            await asyncio.sleep(0.1)


class Voice:
    """What a node signs."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self._sequence = layout, 100

    async def says(self, body: Body) -> str:
        trust = await asyncio.to_thread(load_trust, self._layout)
        self._sequence += 1
        payload = Payload(
            fleet=trust.fleet.fleet,
            origin=trust.name,
            epoch=1,
            sequence=self._sequence,
            issued=1.8e9,
            body=body,
        )
        return sign_message(payload, trust.key).raw


def claim(step: Step) -> Proven:
    return Proven(order=step.id, release=NEW, ready_probe_sha256=HASH, nonce="d" * 64)


def green(step: Step, **changes: object) -> Attestation:
    made = Attestation(
        subject="a",
        order=step.id,
        release=NEW,
        nonce="d" * 64,
        verdict=Verdict.GREEN,
        ready_probe_sha256=HASH,
    )
    return made.model_copy(update=changes)


async def set_steps(running: Running, **values: object) -> None:
    for key, value in values.items():
        body = json.dumps({"value": value}).encode()
        await running.client.ask("PUT", f"/v1/settings/{key}", body)


async def test_each_step_needs_the_signatures_of_that_very_step(
    running: Running, pair: dict[str, Layout]
) -> None:
    """The coordinator believes the peers' signatures, and nothing that the node says of them."""
    await set_steps(running, steps=[10, 50, 100], step_for=0)
    a, b = Voice(pair["a"]), Voice(pair["b"])
    first = await until_step(pair["a"], upgraded("a", 10), 10)
    assert (first.release, first.widens) == (NEW, True)
    await sync(pair["a"], upgraded("a", 10), [await a.says(claim(first))])
    for other in (
        green(first, verdict=Verdict.UNKNOWN, nonce="e" * 64),
        green(first, release=OLD),
        green(first, order="ffffffff:a"),
        green(first, ready_probe_sha256="9" * 64, nonce="f" * 64),
    ):
        await sync(pair["b"], report("b"), [await b.says(other)])
    await sync(pair["a"], upgraded("a", 10), [await a.says(green(first))])
    await asyncio.sleep(1.5)
    node = await shown(running)
    assert (node["desired"], node["step"], node["steps"]) == (10, 1, 3)
    assert node["waits"] == "not seen green in this step by b: no answer"
    assert node["asked_by"] == ["10.0.0.9"]
    await sync(pair["b"], report("b"), [await b.says(green(first))])
    second = await until_step(pair["a"], upgraded("a", 10), 50)
    assert second.id != first.id
    await sync(pair["a"], upgraded("a", 50), [await a.says(claim(second))])
    await sync(pair["b"], report("b"), [await b.says(green(first, order=second.id))])
    last = await until_step(pair["a"], upgraded("a", 50), 100)
    assert not last.widens
    history = (await running.get("/v1/traffic/history"))["history"]
    found = [(each["percent"], each["rollout"]) for each in history]
    assert found == [(100, "a1b2c3d4"), (50, "a1b2c3d4"), (10, "a1b2c3d4")]
    of_it = await running.get("/v1/traffic/rollouts/a1b2c3d4")
    assert of_it == {"history": history, "snapshots": []}
    assert (await running.get("/v1/traffic/rollouts/00000000"))["history"] == []


async def test_a_red_anywhere_holds_every_share(running: Running, pair: dict[str, Layout]) -> None:
    await set_steps(running, steps=[10, 100], step_for=0)
    first = await until_step(pair["a"], upgraded("a", 10), 10)
    red = await asyncio.to_thread(red_of, pair["b"])
    await sync(pair["b"], report("b"), [red.raw])
    a, b = Voice(pair["a"]), Voice(pair["b"])
    await sync(pair["a"], upgraded("a", 10), [await a.says(claim(first))])
    await sync(pair["b"], report("b"), [await b.says(green(first))])
    await asyncio.sleep(1.5)
    node = await shown(running)
    assert node["desired"] == 10
    assert node["waits"].startswith("red of b: no way back; ends with: rollcall red clear b:1:1")


async def test_a_step_outlives_the_coordinator(running: Running, pair: dict[str, Layout]) -> None:
    """It is not taken twice, and not forgotten."""
    await set_steps(running, steps=[10, 100], step_for=3600)
    first = await until_step(pair["a"], upgraded("a", 10), 10)
    await running.restart()
    assert step_of(await sync(pair["a"], upgraded("a", 10))) == first
    assert len((await running.get("/v1/traffic/history"))["history"]) == 1
