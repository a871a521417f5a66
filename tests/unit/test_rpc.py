"""Requests over the gateway's WebSocket, and what a gateway that is sick or strange makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from agent.openclaw.rpc import FORGET_S, MAX_FRAME, RefusedError, Rpc
from scripts.minifleet.ports import free_port
from shared.errors import CommandError
from shared.npm import NodeTools
from tests.support.gatewaystub import TOKEN, GatewayStub

IDLE = {"safe": True, "counts": {"queueSize": 0, "totalActive": 0}, "blockers": []}
PREFLIGHT = "gateway.restart.preflight"


class Tick:
    """A monotonic clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def stub() -> AsyncIterator[GatewayStub]:
    async with GatewayStub() as stub:
        stub.answers = {PREFLIGHT: IDLE, "health": {"ok": True}}
        yield stub


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


@pytest.fixture
def state(stub: GatewayStub, tmp_path: Path) -> Path:
    state = tmp_path / "home" / ".openclaw"
    stub.configure(state)
    return state


@pytest.fixture
def rpc(stub: GatewayStub, client: aiohttp.ClientSession) -> Rpc:
    return Rpc(client, stub.port, Tick())


def command_line(folder: Path, script: str) -> OpenClaw:
    """An `openclaw` that is this shell script."""
    tools = NodeTools(Path("/usr/bin/false"), Path("/usr/bin/false"))
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return OpenClaw(tools, folder, home, ("/bin/sh", "-c", script))


async def test_requests_of_one_moment_share_a_connection_that_is_then_closed(
    stub: GatewayStub, rpc: Rpc, state: Path
) -> None:
    queue, health = await asyncio.gather(rpc.call(state, PREFLIGHT), rpc.call(state, "health"))
    assert (queue.value, health.value) == (IDLE, {"ok": True})
    assert stub.calls == ["connect", PREFLIGHT, "health"]
    assert stub.connections == 1
    alike = await asyncio.gather(*(rpc.call(state, "health") for _ in range(3)))
    assert [each.value for each in alike] == [{"ok": True}] * 3
    assert (stub.connections, stub.calls.count("health")) == (2, 2)
    assert await rpc.version(state) == "2026.9.6"


async def test_one_refused_request_does_not_spoil_the_others(
    stub: GatewayStub, rpc: Rpc, state: Path
) -> None:
    stub.answers["status"] = {"error": {"code": "UNAVAILABLE", "message": "not during suspension"}}
    status, health = await asyncio.gather(
        rpc.call(state, "status"), rpc.call(state, "health"), return_exceptions=True
    )
    assert isinstance(status, CommandError)
    assert "suspension" in status.message
    assert not isinstance(health, BaseException)
    assert not rpc.refused


async def test_a_gateway_that_refuses_is_left_alone_for_a_while(
    stub: GatewayStub, client: aiohttp.ClientSession, state: Path
) -> None:
    tick = Tick()
    rpc = Rpc(client, stub.port, tick)
    stub.token = "another"
    for _ in range(3):
        with pytest.raises(RefusedError, match="token mismatch"):
            await rpc.call(state, PREFLIGHT)
    assert stub.connections == 1
    stub.token = TOKEN
    tick.now += FORGET_S + 1
    assert (await rpc.call(state, PREFLIGHT)).value == IDLE


async def test_the_token_is_in_no_message_not_even_when_it_is_sent_back(
    stub: GatewayStub, rpc: Rpc, state: Path
) -> None:
    stub.token = "another"
    with pytest.raises(RefusedError) as refused:
        await rpc.call(state, PREFLIGHT)
    assert TOKEN not in str(refused.value)
    assert "…" in refused.value.message


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ({"mode": "token"}, "gateway.auth.token"),
        ({"mode": "token", "token": "${GATEWAY_TOKEN}"}, "gateway.auth.token"),
        ({"mode": "token", "token": {"source": "env", "id": "X"}}, "gateway.auth.token"),
        ({"mode": "trusted-proxy"}, "gateway.auth.trusted-proxy"),
    ],
)
async def test_a_secret_that_is_kept_elsewhere_is_left_to_the_cli(
    stub: GatewayStub, rpc: Rpc, state: Path, auth: dict[str, object], said: str
) -> None:
    stub.configure(state, **auth)
    with pytest.raises(RefusedError, match=said):
        await rpc.call(state, PREFLIGHT)
    assert stub.connections == 0


async def test_a_configuration_that_breaks_does_not_blind_the_agent(
    stub: GatewayStub, rpc: Rpc, state: Path
) -> None:
    """The gateway goes on with the one that it read at its start."""
    await rpc.call(state, PREFLIGHT)
    (state / "openclaw.json").write_text("{ broken")
    assert (await rpc.call(state, PREFLIGHT)).value == IDLE
    (state / "openclaw.json").unlink()
    (state / "openclaw.json").symlink_to("/etc/passwd")
    assert (await rpc.call(state, PREFLIGHT)).value == IDLE


async def test_a_link_in_place_of_the_configuration_is_not_read(
    stub: GatewayStub, rpc: Rpc, state: Path, tmp_path: Path
) -> None:
    """Fault 31."""
    real = tmp_path / "elsewhere.json"
    (state / "openclaw.json").rename(real)
    (state / "openclaw.json").symlink_to(real)
    with pytest.raises(RefusedError, match="cannot be read"):
        await rpc.call(state, PREFLIGHT)
    assert stub.connections == 0


async def test_a_starting_gateway_is_not_taken_for_one_that_refuses(
    stub: GatewayStub, rpc: Rpc, state: Path
) -> None:
    stub.refusal = {"code": "UNAVAILABLE", "message": "gateway starting", "retryable": True}
    with pytest.raises(CommandError, match="starting") as error:
        await rpc.call(state, PREFLIGHT)
    assert not isinstance(error.value, RefusedError)
    stub.refusal = None
    assert (await rpc.call(state, PREFLIGHT)).value == IDLE


async def test_a_scope_that_was_not_given_is_a_refusal(
    stub: GatewayStub, rpc: Rpc, state: Path
) -> None:
    stub.scopes = []
    with pytest.raises(RefusedError, match="not to read"):
        await rpc.call(state, PREFLIGHT)
    assert PREFLIGHT not in stub.calls


async def test_another_server_is_told_no_token(stub: GatewayStub, rpc: Rpc, state: Path) -> None:
    stub.challenge = {"type": "event", "event": "welcome"}
    with pytest.raises(RefusedError, match="does not greet"):
        await rpc.call(state, PREFLIGHT)
    assert stub.calls == []


async def test_a_frame_that_is_too_large_ends_the_reading(
    stub: GatewayStub, rpc: Rpc, state: Path
) -> None:
    stub.answers["health"] = {"ok": True, "filler": "x" * (MAX_FRAME + 1)}
    with pytest.raises(CommandError, match="cannot be read"):
        await rpc.call(state, "health")
    assert (await rpc.call(state, PREFLIGHT)).value == IDLE


async def test_who_gives_up_leaves_nobody_behind(stub: GatewayStub, rpc: Rpc, state: Path) -> None:
    """The first request is made for all; a second one must not wait for ever when the first is cancelled."""
    stub.hold.clear()
    first = asyncio.create_task(rpc.call(state, PREFLIGHT))
    second = asyncio.create_task(rpc.call(state, "health"))
    async with asyncio.timeout(60):
        while stub.connections == 0:
            await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(CommandError, match="not asked to the end"):
            await second
    stub.hold.set()
    assert (await rpc.call(state, PREFLIGHT)).value == IDLE


async def test_nothing_listens_is_said_at_once_and_asks_no_cli(
    client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    openclaw = command_line(tmp_path, "touch ran; echo '{}'")
    GatewayStub().configure(openclaw.state)
    gateway = Gateway(client, free_port())
    with pytest.raises(CommandError, match="nothing listens"):
        await gateway.queue(openclaw)
    assert not (openclaw.home / "ran").exists()


async def test_a_gateway_that_lets_only_its_cli_in_is_asked_through_it(
    stub: GatewayStub, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    said = '{"safe":false,"counts":{"queueSize":3,"totalActive":6},"blockers":[{"kind":"queue"}]}'
    openclaw = command_line(tmp_path, f"echo '{said}'")
    stub.configure(openclaw.state)
    stub.refusal = {"code": "INVALID_REQUEST", "message": "device identity required"}
    gateway = Gateway(client, stub.port, Tick())
    queue = await gateway.queue(openclaw)
    assert (queue.safe, queue.depth, queue.active, queue.blockers) == (False, 3, 6, ("queue",))
    assert not gateway.is_cheap
    await gateway.queue(openclaw)
    assert stub.connections == 1
