"""Agents that are killed, stopped and gone on, and ended in order: what their peers say, and what a rollout does."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import pytest

from agent.peers.silence import SETTLE_S
from scripts.minifleet.fleet import MiniFleet
from shared.report import Absence
from shared.rollout import FleetView
from tests.fleet.conftest import NEW, Ready

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATIENCE_S = 150.0


async def away(fleet: MiniFleet, name: str) -> dict[str, Any]:
    report = await fleet.status(fleet.node(name))
    return dict(report.model_dump(mode="json")["away"])


async def until_away(fleet: MiniFleet, name: str, peer: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        while peer not in (found := await away(fleet, name)):
            await asyncio.sleep(0.2)
    return dict(found[peer])


async def until_nobody_is_away(fleet: MiniFleet, *names: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        for name in names:
            while await away(fleet, name):
                await asyncio.sleep(0.2)


async def until_rollout(fleet: MiniFleet, rollout: str, said: str) -> FleetView:
    generation = 0
    async with asyncio.timeout(PATIENCE_S):
        while True:
            view = await fleet.watch(generation)
            generation = view.generation
            mine = view.rollout is not None and view.rollout.id == rollout
            if mine and view.rollout is not None and said in view.rollout.reason:
                return view


async def test_a_killed_agent_is_silent_and_one_that_is_ended_has_left(shared: Ready) -> None:
    fleet = shared.fleet
    seen = asyncio.create_task(until_away(fleet, "canary", "stable"))
    await fleet.supervisor.stop("stable")
    found = await seen
    assert found["left"]
    assert found["reason"].startswith("stable said goodbye ")
    fleet.start_agent(fleet.node("stable"))
    await until_nobody_is_away(fleet, "canary", "witness")
    await asyncio.sleep(SETTLE_S + 1)
    generation = (await fleet.watch()).generation
    os.kill(fleet.supervisor.pid("witness") or 0, signal.SIGKILL)
    said: dict[str, Absence] = {}
    async with asyncio.timeout(PATIENCE_S):
        while not {"canary", "stable"} <= said.keys():
            view = await fleet.watch(generation)
            generation = view.generation
            said |= {
                node.name: node.away["witness"] for node in view.nodes if "witness" in node.away
            }
    assert not any(absence.left for absence in said.values())
    await until_nobody_is_away(fleet, "canary", "stable", "witness")


async def test_a_silent_peer_pauses_a_rollout_which_goes_on_when_it_is_back(shared: Ready) -> None:
    """Fault 22: the witness is stopped, and accuses nobody when it goes on."""
    fleet = shared.fleet
    new = await fleet.freeze(NEW)
    witness = fleet.supervisor.pid("witness") or 0
    os.kill(witness, signal.SIGSTOP)
    try:
        for name in ("canary", "stable"):
            found = await until_away(fleet, name, "witness")
            assert not found["left"]
            assert found["reason"].startswith("witness has not answered this node for ")
        rollout = await fleet.set_target(new, strategy="canary", soak_s=0)
        view = await until_rollout(fleet, rollout, "held: witness is silent to canary, stable")
        assert view.rollout is not None
        assert {node.state for node in view.rollout.nodes} == {"waiting"}
        assert not view.reds
        assert not any(node.frozen_by for node in view.nodes)
    finally:
        os.kill(witness, signal.SIGCONT)
    ended = time.monotonic() + 3
    while time.monotonic() < ended:
        assert await away(fleet, "witness") == {}
        await asyncio.sleep(0.1)
    view = await fleet.until_ended(rollout)
    assert view.rollout is not None
    assert view.rollout.state == "succeeded", view.rollout.reason
    await until_nobody_is_away(fleet, "canary", "stable", "witness")
