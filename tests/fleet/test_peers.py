"""Real agents that find each other with the coordinator off, and the command that says how."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from agent.peers.listing import PeerLine, PeersReport, PeerState
from scripts.minifleet.fleet import STANDIN, MiniFleet, Node
from scripts.minifleet.workspace import Workspace
from shared.errors import RollcallError

PATIENCE_S = 150.0


class Chain(MiniFleet):
    """No mDNS. Each node is told of those in `knows`, by a host name."""

    knows = {"canary": ["stable"], "stable": ["witness"], "witness": []}

    def agent_toml(self, node: Node) -> str:
        ports = {name: self.node(name).peer_port for name in self.knows[node.name]}
        static = ", ".join(f'"{name}=localhost:{port}"' for name, port in ports.items())
        return re.sub(r"(?m)^static = .*$", f"static = [{static}]", super().agent_toml(node))

    async def start_again(self, *, forget: bool) -> None:
        for node in self.nodes:
            await self.supervisor.stop(node.name)
        for node in self.nodes:
            if forget:
                (node.home / "addresses.json").unlink(missing_ok=True)
            (node.home / "agent.toml").write_text(self.agent_toml(node))
            self.start_agent(node)

    async def sees(self, name: str) -> dict[str, PeerLine]:
        """By peer; empty while the agent is not up."""
        try:
            report = PeersReport.from_value(await self.agent(self.node(name), "peers"))
        except RollcallError:
            return {}
        return {each.name: each for each in report.peers}

    async def until_seen(self, name: str, **states: PeerState) -> dict[str, PeerLine]:
        seen: dict[str, PeerLine] = {}
        try:
            async with asyncio.timeout(PATIENCE_S):
                while any(
                    peer not in seen or seen[peer].state is not state
                    for peer, state in states.items()
                ):
                    await asyncio.sleep(0.3)
                    seen = await self.sees(name)
        except TimeoutError:
            pytest.fail(f"{name} sees {seen}")
        return seen


@pytest.fixture
async def chain() -> AsyncIterator[Chain]:
    fleet = Chain(Workspace(), STANDIN, standin=True, mdns=False)
    try:
        await fleet.open()
        yield fleet
    finally:
        await fleet.close()


async def test_a_chain_of_static_peers_is_enough_and_is_remembered(chain: Chain) -> None:
    linked = {"stable": PeerState.LINKED, "witness": PeerState.LINKED}
    await chain.until_seen("canary", **linked)
    await chain.supervisor.stop("coordinator")

    await chain.start_again(forget=True)
    seen = await chain.until_seen("canary", **linked)
    assert seen["witness"].rtt_ms is not None
    assert set(seen["witness"].hints) == {"peer"}, "nobody else has told it"

    chain.knows = {name: [] for name in chain.knows}
    await chain.start_again(forget=False)
    seen = await chain.until_seen("canary", **linked)
    assert "remembered" in seen["stable"].hints
    assert "static" not in seen["stable"].hints

    await chain.supervisor.stop("witness")
    seen = await chain.until_seen("canary", stable=PeerState.LINKED, witness=PeerState.BLOCKED)
    assert "refused" in {each.reason for each in seen["witness"].failures}
    said = (await chain.rollcall_agent(chain.node("canary"), "peers")).decode()
    assert re.search(r"(?m)^  witness +blocked +last reached \d+ s ago$", said)
    assert "): refused" in said

    chain.start_agent(chain.node("witness"))
    await chain.start_again(forget=True)
    await chain.until_seen("canary", stable=PeerState.EMPTY, witness=PeerState.EMPTY)
    said = (await chain.rollcall_agent(chain.node("canary"), "peers")).decode()
    assert "mDNS is off, no static peers, coordinator not reached" in said
