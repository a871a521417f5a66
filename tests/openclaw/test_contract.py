"""The same assertions on the stand-in's commands and on the real package's.

Whatever Rollcall relies on is stated here once; a stand-in that drifts from the real thing fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from agent.openclaw.cli import first_object
from agent.openclaw.doctor import LINT, judge
from agent.openclaw.gateway import Gate, Gateway, suspend
from agent.openclaw.rpc import RefusedError, Rpc
from agent.openclaw.settings import last_touched_version
from shared.command import Output, kill_group, run_command
from shared.errors import CommandError
from shared.readiness import CheckStatus
from tests.openclaw.conftest import NEW, OLD, Home, port_is_free, start_gateway

SLOW_S = 180.0


async def doctor(home: Home, *more: str) -> Output:
    return await home.openclaw().run(*LINT, *more, timeout_s=SLOW_S)


def finding_ids(output: Output) -> set[str]:
    value = first_object(output.stdout) or {}
    return {finding["checkId"] for finding in value["findings"]}


async def test_version_and_config_validate(home: Home) -> None:
    assert await home.openclaw().version() == home.version
    output, value = await home.openclaw().run_json("config", "validate", "--json", timeout_s=SLOW_S)
    assert (output.code, value["valid"]) == (0, True)
    home.write(rollcallDemo={"unknown": True})
    output, value = await home.openclaw().run_json("config", "validate", "--json", timeout_s=SLOW_S)
    assert (output.code, value["valid"]) == (1, False)


async def test_doctor_on_a_healthy_home_exits_1_and_passes(home: Home) -> None:
    output = await doctor(home)
    value = first_object(output.stdout)
    assert value is not None
    assert output.code == 1, "warnings alone make Doctor exit 1"
    assert "core/doctor/security" in finding_ids(output)
    assert value["checksRun"] == (35 if home.is_new else 24)
    assert ("schemaVersion" in value) == home.is_new
    assert judge(output).status is CheckStatus.PASS
    quiet = await doctor(home, "--severity-min", "error")
    assert quiet.code == 0


async def test_doctor_on_an_unknown_key(home: Home) -> None:
    home.write(rollcallDemo={"unknown": True})
    output = await doctor(home)
    assert output.code == 1
    assert finding_ids(output) == {"core/doctor/final-config-validation"}
    assert judge(output).status is CheckStatus.FAIL


async def test_doctor_on_a_wrong_value(home: Home) -> None:
    home.write(gateway={"mode": "local", "port": "twelve"})
    output = await doctor(home)
    assert (output.code, judge(output).status) == (1, CheckStatus.FAIL)


async def test_doctor_without_a_config_only_warns_and_must_not_pass(home: Home) -> None:
    (home.state / "openclaw.json").unlink()
    output = await doctor(home)
    assert {"core/doctor/gateway-config", "core/doctor/gateway-auth"} <= finding_ids(output)
    assert (await doctor(home, "--severity-min", "error")).code == 0
    assert judge(output).status is CheckStatus.FAIL


async def test_bare_doctor_json_is_no_way_to_judge(home: Home) -> None:
    output = await home.openclaw().run("doctor", "--json", timeout_s=SLOW_S)
    if home.is_new:
        assert (output.code, first_object(output.stdout) is not None) == (0, True)
    else:
        assert (output.code, output.stdout) == (2, b"")


async def test_a_gateway_refuses_an_invalid_config_with_78(home: Home) -> None:
    home.write(rollcallDemo={"unknown": True})
    port = str(home.port)
    output = await home.openclaw().run("gateway", "--port", port, timeout_s=SLOW_S)
    assert output.code == 78


@asynccontextmanager
async def serving(home: Home) -> AsyncIterator[tuple[Gateway, asyncio.subprocess.Process]]:
    """A gateway in the foreground, from its first breath; yields when it is ready."""
    process = await start_gateway(home)
    try:
        async with aiohttp.ClientSession() as client:
            gateway = Gateway(client, home.port)
            async with asyncio.timeout(SLOW_S):
                await until_ready(gateway)
            yield gateway, process
    finally:
        kill_group(process.pid)
        await process.wait()


async def until_ready(gateway: Gateway) -> None:
    """Down, then perhaps not ready for `startup-sidecars`, then ready; nothing else on the way."""
    while True:
        reading = await gateway.readyz()
        if reading.gate is Gate.READY:
            return
        if reading.gate is Gate.NOT_READY:
            assert reading.reason == "startup-sidecars"
        else:
            assert reading.gate is Gate.DOWN
        await asyncio.sleep(0.02)


async def fetch(home: Home, path: str) -> tuple[int, str, bytes]:
    url = f"http://127.0.0.1:{home.port}{path}"
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        return answer.status, answer.content_type, await answer.read()


async def test_the_http_surface_of_a_ready_gateway(home: Home) -> None:
    async with serving(home) as (gateway, process):
        for path in ("/healthz", "/health", "/readyz", "/ready"):
            assert (await fetch(home, path))[:2] == (200, "application/json"), path
        assert await fetch(home, "/healthz") == (
            200,
            "application/json",
            b'{"ok":true,"status":"live"}',
        )
        assert (await fetch(home, "/nowhere"))[:2] == (200, "text/html"), "unknown paths are HTML"
        status, kind, _ = await fetch(home, "/startupz")
        assert (status, kind) == (200, "application/json" if home.is_new else "text/html")
        assert await gateway.startup_version() == (NEW if home.is_new else None)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await process.wait() == 0
        assert port_is_free(home.port)


async def test_what_the_cli_says_of_a_running_gateway(home: Home) -> None:
    openclaw = home.openclaw()
    async with serving(home) as (gateway, _):
        assert await gateway.running_version(openclaw) == home.version
        _, status = await openclaw.run_json("gateway", "call", "status", "--json", timeout_s=SLOW_S)
        assert status["runtimeVersion"] == home.version
        async with asyncio.timeout(60):
            while not (queue := await gateway.queue(openclaw)).safe:
                assert queue.blockers, "what is not safe names its blockers"
                await asyncio.sleep(1)
        assert queue.active == 0
        health, _ = await gateway.health(openclaw)
        assert health["plugins"]["errors"] == []
        assert health["plugins"]["loaded"]
        output, value = await openclaw.run_json("gateway", "status", "--json", timeout_s=SLOW_S)
        assert output.code == 0
        assert value["rpc"]["server"]["version"] == home.version
        await say_the_same(gateway, home)


async def say_the_same(gateway: Gateway, home: Home) -> None:
    """The socket and the CLI."""
    openclaw = home.openclaw()
    for method, params in (("gateway.restart.preflight", "{}"), ("tasks.list", '{"limit": 500}')):
        words = ("gateway", "call", method, "--params", params, "--json")
        _, printed = await openclaw.run_json(*words, timeout_s=SLOW_S)
        assert (await gateway.call(openclaw, method, json.loads(params))).value == printed
    rpc = Rpc(gateway.client, home.port, time.monotonic)
    assert await rpc.version(openclaw.state) == home.version
    with pytest.raises(CommandError, match="refuses nothing-of-the-kind"):
        await rpc.call(openclaw.state, "nothing-of-the-kind")
    assert gateway.is_cheap, "nothing of this went through the CLI"
    other = home.path / "other"
    other.mkdir()
    auth = {"mode": "token", "token": "not-the-one-that-runs"}
    (other / "openclaw.json").write_text(json.dumps({"gateway": {"auth": auth}}))
    with pytest.raises(RefusedError, match="token mismatch"):
        await Rpc(gateway.client, home.port, time.monotonic).call(other, "health")


async def test_what_the_cli_says_when_nothing_runs(home: Home) -> None:
    openclaw = home.openclaw()
    async with aiohttp.ClientSession() as client:
        gateway = Gateway(client, home.port)
        assert (await gateway.readyz()).gate is Gate.DOWN
        assert await gateway.startup_version() is None
        assert await gateway.running_version(openclaw) is None
        for asked in (gateway.queue, gateway.health):
            with pytest.raises(CommandError):
                await asked(openclaw)
    output = await openclaw.run("gateway", "call", "health", "--json", timeout_s=SLOW_S)
    assert output.code == 1
    _, value = await openclaw.run_json("gateway", "status", "--json", timeout_s=SLOW_S)
    assert value["rpc"]["ok"] is False, "its exit code is 0 or 1 from release to release"


async def test_suspend_and_resume(home: Home) -> None:
    openclaw = home.openclaw()
    async with serving(home) as (gateway, _):
        if not home.is_new:
            output = await openclaw.run("gateway", "suspend", "--json", timeout_s=SLOW_S)
            assert output.code == 1
            return
        async with asyncio.timeout(120):
            while (held := await suspend(openclaw, "r1", wait_s=20)).id is None:
                assert held.blockers
        reading = await gateway.readyz()
        assert (reading.gate, reading.reason) == (Gate.NOT_READY, "gateway-draining")
        assert (await fetch(home, "/healthz"))[0] == 200
        assert (await fetch(home, "/startupz"))[0] == 503
        assert await gateway.startup_version() == NEW, "a draining gateway still says what it is"
        with pytest.raises(CommandError, match="unavailable during gateway suspension"):
            await gateway.queue(openclaw)
        assert gateway.is_cheap
        assert (await suspend(openclaw, "r1", wait_s=1)).id == held.id, "the same request renews"
        other = await openclaw.run(
            "gateway", "suspend", "--json", "--request-id", "r2", "--wait", "1", timeout_s=SLOW_S
        )
        assert other.code == 1
        assert b"gateway-suspension-conflict" in other.stdout
        await openclaw.run("gateway", "resume", str(held.id), "--json", timeout_s=SLOW_S)
        assert (await gateway.readyz()).gate is Gate.READY
        again, value = await openclaw.run_json(
            "gateway", "resume", str(held.id), "--json", timeout_s=SLOW_S
        )
        assert (again.code, value["resumed"]) == (0, False)


async def test_state_moves_forward_only(home: Home) -> None:
    """Laws 1 and 3: the new Doctor migrates, and the old gateway then refuses to start."""
    if home.version != OLD:
        pytest.skip("told once, from the old release's side")
    async with serving(home):
        pass
    home.packages.tree(home.kind, NEW)
    new = home.openclaw(NEW)
    fixed = await new.run("doctor", "--fix", "--non-interactive", timeout_s=SLOW_S)
    assert fixed.code == 0, fixed.last_line()
    assert last_touched_version(home.state) == NEW
    assert judge(await new.run(*LINT, timeout_s=SLOW_S)).status is CheckStatus.PASS
    port = str(home.port)
    refused = await home.openclaw().run("gateway", "--port", port, timeout_s=SLOW_S)
    assert refused.code == 1
    assert b"older than the config" in refused.stderr + refused.stdout


async def test_npms_own_view_of_the_tree(home: Home) -> None:
    tools = home.packages.tools
    tree = home.packages.tree(home.kind, home.version)
    with contextlib.suppress(FileNotFoundError):
        (tree / ".npmrc").unlink()
    listing = await run_command(
        [str(tools.node), str(tools.npm_cli), "ls", "--depth=0", "--json"],
        env=tools.environment(home.path),
        timeout_s=SLOW_S,
        cwd=tree,
    )
    value = first_object(listing.stdout) or {}
    assert listing.code == 0
    assert value["dependencies"]["openclaw"]["version"] == home.version
