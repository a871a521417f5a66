"""Reds at the coordinator, and operators' clears on their way through it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from agent.coordinator import Coordinator
from agent.layout import Layout
from agent.trust import load_trust
from shared.envelope import OPERATOR_CLEAR, seal
from shared.errors import RollcallError
from shared.http import RefusedError
from shared.keys import SigningKey
from shared.messages import Message, Payload, Red, RedKind, Verdict, sign_message
from shared.operatorclear import OperatorClear, identity
from shared.report import NodeReport, ReadinessSummary, SyncAnswer, SyncRequest
from tests.support.coordinatorkit import Running, dialling, joined


def red_of(layout: Layout, sequence: int = 1) -> Message:
    trust = load_trust(layout)
    payload = Payload(
        fleet=trust.fleet.fleet,
        origin=trust.name,
        epoch=1,
        sequence=sequence,
        issued=1.8e9,
        body=Red(kind=RedKind.STUCK, reason="no way back"),
    )
    return sign_message(payload, trust.key)


def clear_of(red: Message, *keys: SigningKey, sha256: str | None = None) -> bytes:
    ref, found = identity(red.raw)
    clear = OperatorClear(
        fleet=red.payload.fleet, ref=ref, sha256=sha256 or found, reason="seen to", issued=1.8e9
    )
    return seal(clear.canonical(), OPERATOR_CLEAR, *keys)


async def says(layout: Layout, wait_s: float = 0, **said: object) -> SyncAnswer:
    trust = await asyncio.to_thread(load_trust, layout)
    report = NodeReport(
        node=trust.name, agent_version="0", readiness=ReadinessSummary(status=Verdict.GREEN)
    )
    request = SyncRequest.from_value(
        {
            "report": report.model_dump(mode="json"),
            "wait_s": wait_s,
            "roster": trust.roster.number,
            "repository": 2,
            **said,
        }
    )
    async with dialling(layout) as dialler:
        return await Coordinator(dialler, trust.identity.url).sync(request)


@pytest.fixture
async def held(running: Running) -> tuple[Layout, Message]:
    """A node whose red has reached the coordinator."""
    layout = await joined(running, "a")
    red = await asyncio.to_thread(red_of, layout)
    await says(layout, messages=[red.raw])
    return layout, red


async def test_only_enough_operators_clear_at_the_coordinator(
    running: Running, held: tuple[Layout, Message]
) -> None:
    layout, red = held
    targets = running.operator_keys.targets
    node = await asyncio.to_thread(load_trust, layout)
    for raw in (
        clear_of(red, SigningKey.generate()),
        clear_of(red, node.key),
        clear_of(red, targets, sha256="0" * 64),
        b"{}",
    ):
        with pytest.raises(RefusedError):
            await running.client.ask("POST", "/v1/reds/clears", raw)
    assert (await running.get("/v1/reds"))["reds"][0]["open"]
    viewer = (await running.operator("viewer"))["token"]
    refused = await running.reply(
        "POST", "/v1/reds/clears", token=viewer, body=clear_of(red, targets)
    )
    assert refused.status == 403
    await running.client.ask("POST", "/v1/reds/clears", clear_of(red, targets))
    shown = (await running.get("/v1/reds"))["reds"][0]
    assert (shown["open"], shown["ended_by"]) == (False, "operator")
    rows = (await running.get("/v1/audit"))["rows"]
    assert any(red.key == row["subject"] and row["detail"] == "seen to" for row in rows)


async def test_one_red_is_shown_as_it_was_signed(
    running: Running, held: tuple[Layout, Message]
) -> None:
    _, red = held
    shown = await running.get(f"/v1/reds/{red.key}")
    assert (shown["red"], shown["clears"], shown["held_by"]) == (red.raw, [], [])
    missing = await running.reply(
        "GET", "/v1/reds/a:1:99", token=(await running.operator("viewer"))["token"]
    )
    assert missing.status == 404


async def test_who_waits_with_an_open_red_is_told_at_once(
    running: Running, held: tuple[Layout, Message]
) -> None:
    layout, red = held
    first = await says(layout, open_reds=[red.key])
    assert first.clears == []
    waiting = asyncio.create_task(says(layout, wait_s=20, open_reds=[red.key]))
    await asyncio.sleep(0.3)
    raw = clear_of(red, running.operator_keys.targets)
    await running.client.ask("POST", "/v1/reds/clears", raw)
    async with asyncio.timeout(60):
        assert (await waiting).clears == [raw.decode()]
    assert (await says(layout, open_reds=["a:1:77"])).clears == []
    assert (await says(layout)).clears == [], "an older agent asks for none"


async def test_a_clear_that_came_to_a_node_by_hand_reaches_the_coordinator(
    running: Running, held: tuple[Layout, Message]
) -> None:
    layout, red = held
    raw = clear_of(red, running.operator_keys.targets).decode()
    forged = clear_of(red, SigningKey.generate()).decode()
    answer = await says(layout, clears=[forged])
    assert len(answer.stored) == 1, "named, so that it is not offered for ever"
    assert (await running.get("/v1/reds"))["reds"][0]["open"]
    await says(layout, clears=[raw])
    assert not (await running.get("/v1/reds"))["reds"][0]["open"]
    await running.restart()
    assert not (await running.get("/v1/reds"))["reds"][0]["open"], "durable"


async def test_an_open_red_gates_a_rollout_until_operators_clear_it(
    running: Running, held: tuple[Layout, Message], tmp_path: Path
) -> None:
    _, red = held
    release = await running.publish()
    body = json.dumps({"release": release, "dry_run": True}).encode()
    with pytest.raises(RollcallError, match="red of a"):
        await running.client.ask("POST", "/v1/targets", body)
    raw = clear_of(red, running.operator_keys.targets)
    await running.client.ask("POST", "/v1/reds/clears", raw)
    planned = json.loads(await running.client.ask("POST", "/v1/targets", body))
    assert planned["nodes"][0]["name"] == "a"
