"""Capabilities at a real coordinator: signed, listed, published by nodes that play their part, resumed, refused."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import tarfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from agent.layout import Layout
from coordinator.bundling import BundleRequest, make_bundle
from coordinator.ceremony import add_capability, withdraw_capability
from coordinator.cli import app
from shared.canonical import sha256_hex
from shared.capability import CapabilityReport, Stage, StageReport
from shared.clock import SystemClock
from shared.errors import BadInputError, ConflictError, UnavailableError
from shared.http import RefusedError
from shared.messages import Verdict
from shared.npm import Npm, find_tools
from shared.report import NodeReport, ReadinessSummary
from tests.support.coordinatorkit import Reached, Running, joined, run_coordinator, sync

NAMES = ("canary", "stable")
PATIENCE_S = 60.0
SKILL = "---\nname: hello-fleet\ndescription: Says hello.\n---\n\nSay hello.\n"


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with run_coordinator(tmp_path) as made:
        yield made


def skill(folder: Path, name: str = "hello-fleet") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "SKILL.md").write_text(SKILL.replace("hello-fleet", name))
    return folder


async def signed(running: Running, version: str = "1.0.0", **changes: Any) -> str:
    """A skill, signed and handed in; its id."""
    request = BundleRequest(skill(running.root / "skill"), "canary", version=version, **changes)
    made = await make_bundle(request, Npm(find_tools()), SystemClock().now())
    published = await asyncio.to_thread((await running.desk()).published, running.client)
    bundle = add_capability(published, made.manifest, made.files, SystemClock().now())
    running.operator_keys.sign(bundle, published.root.signed)
    await running.offer(bundle)
    return sha256_hex(made.manifest.canonical())


class Player:
    """A node that reports green and does its orders at once; `fails` says at which stage it does not."""

    def __init__(self, layout: Layout, running: Reached, name: str, release: str) -> None:
        self._layout, self._running, self.name, self._release = layout, running, name, release
        self.fails: Stage | None = None
        self.did: list[str] = []
        self.idle = False

    async def play(self) -> None:
        while True:
            with contextlib.suppress(UnavailableError, aiohttp.ClientError):
                await self.turn()
            await asyncio.sleep(0.1)

    async def turn(self) -> None:
        said = NodeReport(
            node=self.name,
            agent_version="0",
            release=self._release,
            version_on_disk="2026.9.6",
            readiness=ReadinessSummary(status=Verdict.GREEN),
        )
        answer = await sync(self._layout, said, orders="")
        for order in [] if self.idle or answer.orders is None else answer.orders.orders:
            if not await self._post(order.id, "claim", {"eta_s": 60}):
                continue  # it is not this node's turn yet
            self.did.append(f"{order.kind} {order.terms.label}")
            result = self._report(str(order.terms.subject), order.terms.label)
            failed = self.fails is not None and order.kind == "install_capability"
            ended = {"failed": failed, "reason": "so it is", "result": result}
            await self._post(order.id, "complete", ended)

    def _report(self, subject: str, label: str) -> str:
        stages = []
        for stage in Stage:
            stages.append(StageReport(stage=stage, ok=stage is not self.fails, reason="it broke"))
            if stage is self.fails:
                break
        report = CapabilityReport(
            node=self.name, capability=subject, label=label, stages=stages, undone=bool(self.fails)
        )
        return report.canonical().decode()

    async def _post(self, order: str, verb: str, body: dict[str, Any]) -> bool:
        """Whether it was taken; a claim may be too early."""
        reply = await self._running.reply(
            "POST",
            f"/v1/orders/{order}/{verb}",
            node=self._layout,
            body=json.dumps(body).encode(),
            headers={"Idempotency-Key": str(uuid.uuid4()), "Content-Type": "application/json"},
        )
        assert reply.status == 200 or (reply.status, verb) == (409, "claim"), reply.body
        return reply.status == 200


@pytest_asyncio.fixture
async def players(running: Running) -> AsyncIterator[dict[str, Player]]:
    release = await running.publish()
    layouts = {name: await joined(running, name) for name in NAMES}
    made = {name: Player(layout, running, name, release) for name, layout in layouts.items()}
    tasks = [asyncio.create_task(each.play()) for each in made.values()]
    async with asyncio.timeout(PATIENCE_S):
        while True:
            view = await running.get("/v1/nodes")
            if all(node["release"] == release for node in view["nodes"]):
                break
            await asyncio.sleep(0.1)
    yield made
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


async def ended(running: Running, run: dict[str, Any]) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        while run["state"] in ("running", "rolling_back"):
            await asyncio.sleep(0.2)
            run = await running.get(f"/v1/capability-runs/{run['id']}")
    return run


def gates(run: dict[str, Any]) -> str:
    """`G0 passed …` in one line."""
    return " ".join(f"{gate['gate']}:{gate['state']}" for gate in run["gates"])


async def test_published_through_every_gate_listed_and_unpublished(
    running: Running, players: dict[str, Player]
) -> None:
    capability = await signed(running)
    asked = {"capability": "hello-fleet", "reason": "hello"}
    dry = await running.post("/v1/capabilities/publish", {**asked, "dry_run": True})
    assert gates(dry).startswith("G0:passed G1:passed G2:passed G3:passed G4:running G5:waiting")
    run = await ended(running, await running.post("/v1/capabilities/publish", asked))
    assert {gate["state"] for gate in run["gates"]} == {"passed"}, run
    assert [gate["name"] for gate in run["gates"]] == [
        "authz",
        "schema",
        "provenance",
        "owner liveness",
        "install stage",
        "wire stage",
        "smoke test",
        "rollout",
        "index activate",
        "postcheck",
    ]
    (found,) = (await running.get("/v1/capabilities"))["capabilities"]
    assert (found["id"], found["state"]) == (capability, "active")
    assert found["nodes"] == ["canary", "stable"]
    assert [each.did for each in players.values()] == [["install_capability hello-fleet@1.0.0"]] * 2

    run = await running.post("/v1/capabilities/unpublish", {"capability": capability[:10]})
    run = await ended(running, run)
    assert gates(run) == "U0:passed U1:passed U2:passed U3:passed U4:passed"
    detail = await running.get("/v1/capabilities/hello-fleet")
    assert [each["state"] for each in detail["versions"]] == ["archived"]
    assert [each["verb"] for each in detail["runs"]] == ["unpublish", "publish"]
    with pytest.raises(RefusedError, match="is published"):
        await running.post("/v1/capabilities/unpublish", {"capability": "hello-fleet"})


async def test_a_node_that_joins_later_is_named_until_it_has_it(
    running: Running, players: dict[str, Player]
) -> None:
    await signed(running)
    asked = {"capability": "hello-fleet"}
    await ended(running, await running.post("/v1/capabilities/publish", asked))
    release = (await running.get("/v1/nodes"))["nodes"][0]["release"]
    late = Player(await joined(running, "late"), running, "late", release)
    playing = asyncio.create_task(late.play())
    (found,) = (await running.get("/v1/capabilities"))["capabilities"]
    assert (found["nodes"], found["missing"]) == (["canary", "stable"], ["late"])
    command = ["capability", "list", "--config", str(running.settings.paths.client)]
    listed = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert "\tcanary, stable; missing on: late\t" in listed.stdout
    async with asyncio.timeout(PATIENCE_S):
        while (await running.get("/v1/nodes/late"))["node"]["release"] is None:
            await asyncio.sleep(0.1)
    only = {"capability": "hello-fleet@1.0.0", "nodes": ["late"]}
    run = await ended(running, await running.post("/v1/capabilities/publish", only))
    assert (run["state"], run["everywhere"]) == ("succeeded", True), "what is for all stays so"
    (found,) = (await running.get("/v1/capabilities"))["capabilities"]
    assert (found["nodes"], found["missing"]) == (["canary", "late", "stable"], [])
    assert late.did == ["install_capability hello-fleet@1.0.0"]
    playing.cancel()
    await asyncio.gather(playing, return_exceptions=True)


async def test_what_was_published_for_some_is_missing_nowhere(
    running: Running, players: dict[str, Player]
) -> None:
    await signed(running)
    asked = {"capability": "hello-fleet", "nodes": ["canary"]}
    run = await ended(running, await running.post("/v1/capabilities/publish", asked))
    assert [node["node"] for node in run["nodes"]] == ["canary"]
    (found,) = (await running.get("/v1/capabilities"))["capabilities"]
    assert (found["nodes"], found["missing"]) == (["canary"], [])


async def test_a_failure_takes_it_back_from_who_has_it(
    running: Running, players: dict[str, Player]
) -> None:
    await signed(running)
    players["stable"].fails = Stage.WIRE
    asked = {"capability": "hello-fleet@1.0.0"}
    run = await ended(running, await running.post("/v1/capabilities/publish", asked))
    assert run["state"] == "failed"
    assert gates(run).endswith("G6:passed G7:failed G8:waiting G9:waiting")
    assert players["canary"].did == [
        "install_capability hello-fleet@1.0.0",
        "remove_capability hello-fleet@1.0.0",
    ]
    assert players["stable"].did == ["install_capability hello-fleet@1.0.0"]
    (found,) = (await running.get("/v1/capabilities"))["capabilities"]
    assert found["state"] == "signed"


async def test_a_restart_of_the_coordinator_goes_on_and_orders_nothing_twice(
    running: Running, players: dict[str, Player]
) -> None:
    await signed(running)
    players["stable"].idle = True
    run = await running.post("/v1/capabilities/publish", {"capability": "hello-fleet"})
    with pytest.raises(RefusedError, match="has not ended"):
        await running.post("/v1/capabilities/publish", {"capability": "hello-fleet"})
    async with asyncio.timeout(PATIENCE_S):
        while "G7:running" not in gates(await running.get(f"/v1/capability-runs/{run['id']}")):
            await asyncio.sleep(0.1)
    await running.restart()
    players["stable"].idle = False
    run = await ended(running, run)
    assert run["state"] == "succeeded", run
    orders = await running.get("/v1/orders?kind=install_capability")
    assert sorted(order["node"] for order in orders["orders"]) == ["canary", "stable"]


async def test_what_is_withdrawn_or_unknown_or_for_strangers_is_refused(
    running: Running, players: dict[str, Player]
) -> None:
    await signed(running)
    with pytest.raises(RefusedError, match="no node is called 'nobody'"):
        await running.post(
            "/v1/capabilities/publish", {"capability": "hello-fleet", "nodes": ["nobody"]}
        )
    with pytest.raises(RefusedError, match=r"there are: hello-fleet@1\.0\.0"):
        await running.post("/v1/capabilities/publish", {"capability": "other"})
    viewer = (await running.operator("viewer"))["token"]
    refused = await running.reply(
        "POST", "/v1/capabilities/publish", token=viewer, body=b'{"capability": "hello-fleet"}'
    )
    assert refused.status == 403
    run = await ended(
        running, await running.post("/v1/capabilities/publish", {"capability": "hello-fleet"})
    )
    assert run["state"] == "succeeded"
    published = await asyncio.to_thread((await running.desk()).published, running.client)
    bundle = withdraw_capability(published, "hello-fleet", "1.0.0", SystemClock().now())
    running.operator_keys.sign(bundle, published.root.signed)
    await running.offer(bundle)
    (found,) = (await running.get("/v1/capabilities"))["capabilities"]
    assert (found["state"], found["manifest"]) == ("withdrawn", None)
    with pytest.raises(RefusedError, match="is signed"):
        await running.post("/v1/capabilities/publish", {"capability": "hello-fleet"})


async def test_a_bundle_without_its_file_or_of_a_taken_version_is_refused(
    running: Running,
) -> None:
    await signed(running)
    request = BundleRequest(skill(running.root / "skill"), "canary", version="1.0.0")
    made = await make_bundle(request, Npm(find_tools()), SystemClock().now())
    published = await asyncio.to_thread((await running.desk()).published, running.client)
    with pytest.raises(ConflictError, match="exists"):
        add_capability(published, made.manifest, made.files, SystemClock().now())
    other = made.manifest.model_copy(
        update={
            "version": "2.0.0",
            "artifacts": [made.manifest.artifacts[0].model_copy(update={"sha256": "e" * 64})],
        }
    )
    bundle = add_capability(published, other, {}, SystemClock().now())
    with pytest.raises(BadInputError, match="lacks blobs/eeee"):
        bundle.check_follows(published)
    running.operator_keys.sign(bundle, published.root.signed)
    with pytest.raises(RefusedError, match=r"of capability hello-fleet@2\.0\.0 is missing"):
        await running.offer(bundle)


async def test_a_folder_gives_the_same_bytes_again_and_strange_ones_are_refused(
    tmp_path: Path,
) -> None:
    npm, source = Npm(find_tools()), skill(tmp_path / "skill")
    request = BundleRequest(source, "canary", version="1.0.0")
    first, again = [await make_bundle(request, npm, 1.0) for _ in range(2)]
    assert first == again
    with tarfile.open(fileobj=io.BytesIO(next(iter(first.files.values())))) as archive:
        assert archive.getnames() == ["package/SKILL.md"]
    with pytest.raises(BadInputError, match="no version"):
        await make_bundle(BundleRequest(source, "canary"), npm, 1.0)
    (source / "link").symlink_to("/etc/passwd")
    with pytest.raises(BadInputError, match="not a plain file"):
        await make_bundle(request, npm, 1.0)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "README").write_text("nothing")
    with pytest.raises(BadInputError, match=r"neither openclaw\.plugin\.json nor SKILL\.md"):
        await make_bundle(BundleRequest(empty, "canary"), npm, 1.0)
