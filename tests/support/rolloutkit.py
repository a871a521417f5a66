"""A rollout at a real coordinator, played by nodes that sign what real agents sign."""

from __future__ import annotations

import asyncio
from typing import Any

from agent.layout import Layout
from agent.trust import load_trust
from shared.canonical import sha256_hex
from shared.messages import (
    Attestation,
    Clear,
    Message,
    Payload,
    Proven,
    Red,
    Verdict,
    sign_message,
)
from shared.report import NodeReport, ReadinessSummary, UpgradeReport
from shared.roster import Role
from tests.support.coordinatorkit import Running, joined, sync

PROBE = sha256_hex(b"what two healthy nodes have in common")
NONCE = sha256_hex(b"nonce")


class Player:
    """One node; `sequence` numbers what it signs."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self._sequence = layout, 0
        self.trust = load_trust(layout)

    @property
    def name(self) -> str:
        return self.trust.name

    def sign(self, body: Any, issued: float) -> Message:
        self._sequence += 1
        payload = Payload(
            fleet=self.trust.fleet.fleet,
            origin=self.name,
            epoch=1,
            sequence=self._sequence,
            issued=issued,
            body=body,
        )
        return sign_message(payload, self.trust.key)

    def red(self) -> Message:
        return self.sign(Red(kind="readiness", reason="x"), 1.8e9)

    async def says(self, *messages: Message, **changes: Any) -> None:
        ready = ReadinessSummary(
            status=Verdict.GREEN, ready_probe_sha256=PROBE, evidence_sha256=NONCE
        )
        report = NodeReport(
            node=self.name, agent_version="0", readiness=ready, version_running="2026.9.6"
        )
        said = report.model_copy(update=changes)
        await sync(self.layout, said, [message.raw for message in messages])


async def players(running: Running, *names: str) -> list[Player]:
    layouts = [await joined(running, name, Role.STABLE) for name in names]
    return [await asyncio.to_thread(Player, layout) for layout in layouts]


def upgrade(order: str, release: str, phase: str, outcome: str | None = None) -> UpgradeReport:
    return UpgradeReport(order=order, release=release, phase=phase, outcome=outcome, began=1.8e9)


async def half_way(running: Running, nodes: list[Player], release: str) -> dict[str, str]:
    """All nodes at once, until each moves. Returns the order of each."""
    for node in nodes:
        await node.says()
    asked = {"release": release, "strategy": "immediate", "soak_s": 0}
    made = await running.post("/v1/targets", asked)
    orders = {node.name: f"{made['id']}:{node.name}" for node in nodes}
    for node in nodes:
        await node.says(upgrade=upgrade(orders[node.name], release, "staged"))
    await reaches(running, lambda each: all(n["state"] == "moving" for n in each["nodes"]))
    return orders


async def play(running: Running, nodes: list[Player], release: str) -> dict[str, Any]:
    """All nodes at once, to the end; every one of them sees every other one green. Returns the rollout."""
    orders = await half_way(running, nodes, release)
    return await prove(running, nodes, orders, release)


async def prove(
    running: Running, nodes: list[Player], orders: dict[str, str], release: str
) -> dict[str, Any]:
    """From phase `attested` to the rollout's good end."""
    for node in nodes:
        claim = Proven(
            order=orders[node.name], release=release, ready_probe_sha256=PROBE, nonce=NONCE
        )
        await node.says(
            node.sign(claim, 1.8e9), upgrade=upgrade(orders[node.name], release, "attested")
        )
    for node in nodes:
        seen = [
            node.sign(
                Attestation(
                    subject=other.name,
                    order=orders[other.name],
                    release=release,
                    nonce=NONCE,
                    verdict=Verdict.GREEN,
                    ready_probe_sha256=PROBE,
                ),
                1.8e9,
            )
            for other in nodes
            if other is not node
        ]
        done = upgrade(orders[node.name], release, "done", "done")
        await node.says(*seen, upgrade=done, release=release)
    return await reaches(running, lambda each: each["state"] == "succeeded")


async def reaches(running: Running, holds: Any) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            rollout = (await running.get("/v1/rollouts"))["rollouts"][0]
            if holds(rollout):
                return dict(rollout)
            await asyncio.sleep(0.05)


async def red_and_clear(node: Player) -> Message:
    """A red that its origin ends again."""
    red = node.red()
    await node.says(red)
    await node.says(node.sign(Clear(ref=red.key, reason="repaired"), 1.8e9))
    return red
