"""Each gate on real agents, set and lifted by the command line: while it is shut nothing moves, and every node says
why; then the rollout goes on, or waits for an operator, as the gate says. One fleet walks through them all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from scripts.minifleet.fleet import BIN, MiniFleet
from shared.command import Output, run_command
from shared.errors import CommandError
from shared.terminal import EXIT_INTERRUPTED
from tests.fleet.conftest import NEW, OLD, Ready
from tests.fleet.test_fleet import gateway_pid, until

PATIENCE_S = 90.0
LOOKS_S = 2.5
"""Longer than agents and coordinator take to begin what may begin."""
NEVER = "0 2 31 12 * for 1h in Europe/Berlin"
FAR = "2026.12.1"


Said = set[tuple[str, str, tuple[str, ...]]]


@dataclass
class Walk:
    fleet: MiniFleet
    new: str

    async def say(self, *words: str) -> dict[str, Any]:
        return await self.fleet.rollcall(*words)

    async def set(self, key: str, value: str) -> None:
        await self.say("config", "set", key, value)

    async def refused(self, words: str, *command: str) -> None:
        with pytest.raises(CommandError, match=words):
            await self.say(*command)

    async def plan(self, *words: str) -> dict[str, Any]:
        """A plan with its refusals: such a command ends with 1 and shows it all the same."""
        output = await self.run("rollout", "plan", *words, "--json")
        found = dict(json.loads(output.stdout))
        assert output.code == (1 if found["refusals"] else 0)
        return found

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.fleet.workspace.environment(),
            "ROLLCALL_CONFIG": str(self.fleet.config),
        }

    async def run(self, *words: str) -> Output:
        argv = [str(BIN / "rollcall"), *words]
        return await run_command(argv, env=self.environment, timeout_s=PATIENCE_S)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[asyncio.subprocess.Process]:
        watch = await asyncio.create_subprocess_exec(
            str(BIN / "rollcall"),
            "rollout",
            "watch",
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            yield watch
        finally:
            if watch.returncode is None:
                watch.kill()
                await watch.wait()

    async def start(self, *words: str) -> str:
        planned = await self.say("rollout", "plan", *words, "--yes-really")
        return str((await self.say("rollout", "start", planned["sha256"]))["id"])

    async def status(self) -> dict[str, Any]:
        return await self.say("rollout", "status")

    async def node(self, name: str) -> dict[str, Any]:
        return next(each for each in (await self.status())["nodes"] if each["name"] == name)

    async def until(self, what: str, holds: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not holds(found):
                    with contextlib.suppress(CommandError):
                        found = await self.status()
        except TimeoutError:
            raise AssertionError(f"not {what}: {json.dumps(found)[:3000]}") from None
        return found

    async def until_node(self, name: str, **wanted: str) -> dict[str, Any]:
        def holds(found: dict[str, Any]) -> bool:
            nodes = {each["name"]: each for each in found.get("nodes", [])}
            mine = nodes.get(name, {})
            return all(mine.get(key) == value for key, value in wanted.items())

        return await self.until(f"{name} {wanted}", holds)

    async def held(
        self, words: str, *, state: str = "running", waits_for: str | None = None
    ) -> None:
        """The rollout says so, the nodes of its turn say so too, and nothing begins."""
        found = await self.until(
            f"{state}: {words}", lambda it: it.get("state") == state and words in it["reason"]
        )
        pids = {node.name: gateway_pid(node) for node in self.fleet.nodes}
        before = {each["name"]: each["state"] for each in found["nodes"]}
        assert "pending" not in before.values(), before
        waiting = [each for each in found["nodes"] if words in each["reason"]]
        assert waiting, found["nodes"]
        assert all(each["since"] > 0 for each in waiting)
        if waits_for is not None:
            assert all(each["waits_for"] == [waits_for] for each in waiting), waiting
        await asyncio.sleep(LOOKS_S)
        after = await self.status()
        assert {each["name"]: each["state"] for each in after["nodes"]} == before
        assert {node.name: gateway_pid(node) for node in self.fleet.nodes} == pids
        assert [each["since"] for each in after["nodes"] if words in each["reason"]] == [
            each["since"] for each in waiting
        ], "it waits since then, not since the last look"

    async def follow(self, *words: str) -> tuple[str, Said]:
        """A rollout to its good end, with what nodes said that they waited for. It is watched from before its start:
        on a busy host a node may have moved by the time that the command returns."""
        said: dict[str, Said] = {}
        watching = asyncio.create_task(self._watch(said))
        try:
            id_ = await self.start(*words)
            view = await asyncio.wait_for(self.fleet.until_ended(id_), PATIENCE_S)
        finally:
            watching.cancel()
        assert view.rollout is not None
        assert view.rollout.state == "succeeded", view.rollout.reason
        return id_, said[id_]

    async def _watch(self, said: dict[str, Said]) -> None:
        """For ever. What nodes say, by rollout."""
        generation = 0
        while True:
            view = await self.fleet.watch(generation)
            generation = view.generation
            if view.rollout is not None:
                found = {
                    (each.name, each.reason, tuple(each.waits_for)) for each in view.rollout.nodes
                }
                said.setdefault(view.rollout.id, set()).update(found)

    async def moves(self, id_: str) -> list[str]:
        kept = (await self.say("rollout", "history", id_))["history"]
        return [
            f"{each['node']} {each['state']}"
            for each in kept
            if each["node"] and each["state"] in ("moving", "done")
        ]

    async def clear_reds(self) -> None:
        for red in (await self.say("red", "list"))["reds"]:
            if red["open"]:
                node = self.fleet.node(red["origin"])
                await self.fleet.rollcall_agent(node, "clear", red["key"], "--reason", "a test")


async def read_all(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    return await process.stdout.read()


@asynccontextmanager
async def stopped(pid: int) -> AsyncIterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.timeout(900)
async def test_every_gate_holds_a_rollout_of_real_agents(ready: Ready) -> None:
    walk = Walk(ready.fleet, await ready.fleet.freeze(NEW))
    await walk.set("settle", "1s")
    await what_a_plan_refuses(walk)
    await what_opens_by_itself(walk)
    await a_node_that_is_not_there(walk)
    await a_red_and_a_release_that_failed(walk)
    await unknown_is_never_green(walk)
    await classes_sites_and_slots(walk)
    await one_is_left_out_and_all_of_it_is_watched(walk)


async def what_a_plan_refuses(walk: Walk) -> None:
    """And a start of what was planned otherwise."""
    planned = await walk.plan(walk.new, "--soak", "5s")
    assert planned["refusals"][0]["reason"].endswith("30 minutes are the least")
    assert (await walk.plan(walk.new, "--soak", "5s", "--yes-really"))["refusals"] == []
    far = await walk.fleet.freeze(FAR)
    planned = await walk.plan(far)
    assert {each["gate"] for each in planned["refusals"]} == {"train"}
    assert "--stop-the-world" in planned["refusals"][0]["remedy"]
    assert (await walk.plan(far, "--stop-the-world"))["refusals"] == []
    await walk.set("frozen", "the weekend")
    assert [each["gate"] for each in (await walk.plan(walk.new))["refusals"]] == ["frozen"]
    await walk.set("frozen", "")
    planned = await walk.plan(walk.new)
    await walk.say("node", "set", "witness", "--site", "lisbon")
    await walk.refused(
        "witness: site none becomes lisbon", "rollout", "start", planned["sha256"][:12]
    )
    await walk.refused("no plan 0{12} was made within the last hour", "rollout", "start", "0" * 12)
    await walk.refused("is no plan's hash", "rollout", "start", "0")


async def what_opens_by_itself(walk: Walk) -> None:
    """One gate is shut before the other is opened, so nothing can move between them."""
    await walk.set("windows", NEVER)
    await walk.start(walk.new, "--soak", "600s")
    await walk.held("outside the windows (`0 2 31 12 *` Europe/Berlin): the next opens ")
    await walk.set("blackouts", f"{datetime.now(UTC):%Y-%m-%d}")
    await walk.set("windows", "")
    await walk.held(" is a blackout day (UTC)")
    await walk.say("traffic", "freeze", "--reason", "a launch")
    await walk.set("blackouts", "")
    await walk.held("froze all ratios: a launch")
    await walk.set("frozen", "the weekend")
    await walk.say("traffic", "unfreeze", "--reason", "it is over")
    await walk.held("the fleet is frozen: the weekend")
    assert (await walk.status())["eta"] is None, "nobody knows"


async def a_node_that_is_not_there(walk: Walk) -> None:
    """One that its peers do not reach, then one that itself is not heard of."""
    fleet = walk.fleet
    await fleet.supervisor.stop("witness")
    await walk.held("held: witness said goodbye to ", waits_for="witness")
    await walk.set("frozen", "")
    await walk.held("held: witness said goodbye to ", waits_for="witness")
    fleet.start_agent(fleet.node("witness"))
    await walk.until_node("canary", phase="soaking")
    assert (await walk.node("stable"))["waits_for"] == ["canary"]


async def a_red_and_a_release_that_failed(walk: Walk) -> None:
    """What halts, what pauses, and what an operator has to do before it goes on."""
    fleet, canary = walk.fleet, walk.fleet.node("canary")
    await walk.set("block_after", "1")
    await fleet.agent(canary, "rollback", "--reason", "it looks odd")
    await walk.held("red of canary: it looks odd; ends when canary clears it", state="halted")
    await walk.refused("red of canary: it looks odd", "rollout", "resume")
    await walk.clear_reds()
    await walk.refused("the release is blocked: it was rolled back once", "rollout", "resume")
    refusals = (await walk.plan(walk.new))["refusals"]
    assert [each["gate"] for each in refusals] == ["blocked", "blocklist"]
    await walk.say("release", "unblock", walk.new)
    await walk.refused("1 of 1 in wave 1 failed", "rollout", "resume")
    await walk.refused("failed on canary before", "rollout", "retry")
    await fleet.agent(canary, "blocklist", "clear", "all")
    await walk.set("failure_halt", "100")
    state = canary.gateway_home / ".openclaw"
    aside = state.rename(state.with_name("aside"))
    state.symlink_to(aside)
    await walk.say("rollout", "retry", "--reason", "once more")
    await walk.held("1 of 1 in wave 1 failed (100 %): canary failed", state="paused")
    state.unlink()
    aside.rename(state)
    await walk.set("failure_halt", "20")
    await walk.held("1 of 1 in wave 1 failed (100 %): canary failed", state="halted")
    await walk.say("rollout", "retry", "canary")
    await walk.until_node("canary", phase="soaking")


async def unknown_is_never_green(walk: Walk) -> None:
    """Doubt holds the next wave; where it lasts the rollout is paused, and stays so."""
    fleet = walk.fleet
    await walk.set("health_floor", "100")
    async with stopped(gateway_pid(fleet.node("witness"))):
        await until_unknown(walk, "witness")
        await walk.say("rollout", "promote")
        words = "1 of 2 nodes are healthy, 100 % are wanted: not witness (gateway: "
        await walk.held(words, waits_for="witness")
        await walk.until("paused", lambda it: it.get("state") == "paused")
    await until_green(walk, "witness")
    await walk.held("1 of 2 nodes are healthy", state="paused")
    await walk.say("rollout", "resume")
    await walk.until_node("stable", state="moving")
    await walk.set("frozen", "a moment")
    await walk.until_node("stable", state="done")
    async with stopped(gateway_pid(fleet.node("stable"))):
        await until_unknown(walk, "stable")
        await walk.set("health_floor", "50")
        await walk.set("frozen", "")
        await walk.held("unknown since it moved: stable (gateway: ", waits_for="stable")
    await walk.until_node("witness", state="done")
    await walk.say("rollout", "abort", "--yes", "--reason", "the canary has soaked long enough")
    ended = await walk.until("aborted", lambda it: it.get("state") == "aborted")
    assert {each["name"]: each["state"] for each in ended["nodes"]} == {
        "canary": "rolled_back",
        "stable": "done",
        "witness": "done",
    }


async def until_unknown(walk: Walk, name: str) -> None:
    await until(
        walk.fleet,
        lambda view: any((each.name, each.status) == (name, "unknown") for each in view.nodes),
        f"{name} is unknown",
    )


async def until_green(walk: Walk, name: str) -> None:
    await until(
        walk.fleet,
        lambda view: any((each.name, each.status) == (name, "green") for each in view.nodes),
        f"{name} is green",
    )


async def classes_sites_and_slots(walk: Walk) -> None:
    """The bootstrap node first and the scheduler last, each alone; then one at a time, and one of each site."""
    await walk.say("node", "set", "witness", "--class", "scheduler")
    await walk.say("node", "set", "stable", "--class", "bootstrap")
    undone = (await walk.say("rollout", "history"))["rollouts"][0]["id"]
    id_, said = await walk.follow("--undo", undone, "--strategy", "immediate")
    assert await walk.moves(id_) == [
        "stable moving",
        "stable done",
        "witness moving",
        "witness done",
    ]
    assert ("witness", "waits for stable", ("stable",)) in said
    for name in ("stable", "witness"):
        await walk.say("node", "set", name, "--class", "gateway")
    together = (walk.new, "--strategy", "immediate", "--max-unavailable", "100%")
    id_, said = await walk.follow(*together, "--max-per-site", "1")
    assert (
        "stable",
        "1 of its site are out, the most there: waits for canary",
        ("canary",),
    ) in said
    moves = await walk.moves(id_)
    assert moves.index("witness moving") < moves.index("canary done")
    id_, said = await walk.follow(
        "--undo", id_, "--strategy", "immediate", "--max-unavailable", "1"
    )
    alone = "1 of at most 1 are out: waits for canary"
    assert {("stable", alone, ("canary",)), ("witness", alone, ("canary",))} <= said
    assert [each for each in await walk.moves(id_) if each.endswith("done")] == (
        ["canary done", "stable done", "witness done"]
    )
    view = await walk.fleet.watch()
    assert {node.version_running for node in view.nodes} == {OLD}
    assert not any(red.open for red in view.reds)


async def one_is_left_out_and_all_of_it_is_watched(walk: Walk) -> None:
    """`skip`, `watch` to the end and until Ctrl-C, `export`, and an undo of what has moved."""
    fleet = walk.fleet
    await walk.set("windows", NEVER)
    id_ = await walk.start(walk.new, "--soak", "1s")
    await walk.say("rollout", "skip", "witness", "--reason", "its owner is away")
    async with walk.watching() as left, walk.watching() as watch:
        await walk.held("outside the windows")
        left.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(left.wait(), PATIENCE_S) == EXIT_INTERRUPTED
        assert b"Traceback" not in await read_all(left)
        await walk.set("windows", "")
        assert await asyncio.wait_for(watch.wait(), PATIENCE_S) == 0
        said = (await read_all(watch)).decode()
    for words in ("outside the windows", "canary       canary   moving", "succeeded"):
        assert words in said, said
    assert f"rollout {id_}, upgrade to {NEW}" in said
    out = fleet.root / "rollout.json"
    await walk.run("rollout", "export", id_, "--out", str(out))
    kept = json.loads(out.read_bytes())
    assert kept["plan"]["sha256"] == kept["rollout"]["plan"]
    states = {each["name"]: each["state"] for each in kept["rollout"]["nodes"]}
    assert states == {"canary": "done", "stable": "done", "witness": "skipped"}
    assert any("skipped by first" in each["reason"] for each in kept["history"])
    undone, _ = await walk.follow("--undo", id_)
    done = [each for each in await walk.moves(undone) if each.endswith("done")]
    assert done == ["canary done", "stable done"]
