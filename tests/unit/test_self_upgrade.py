"""The agent's own upgrade: what is decided, what is built, and who tells of its end. Builds are real, of
tiny wheels; what an agent needs besides is in tests/fleet."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.builder import BadAgentError, Builder, PipSettings
from agent.cli import app
from agent.environments import (
    Environments,
    Healthy,
    Move,
    State,
    base_python,
    launched_version,
)
from agent.health import ALONE_S, Health, NotHealthyError, Senses, find_missing, is_serving
from agent.layout import Layout
from agent.self_upgrade import (
    Build,
    Departure,
    Facts,
    Go,
    Hold,
    Node,
    Refuse,
    SelfUpgrade,
    Stay,
    decide,
)
from agent.store import SCHEMA_VERSION, Store
from agent.upgrade.phases import Phase
from coordinator.freeze import Request, freeze
from shared.canonical import canonical_json, sha256_hex
from shared.clock import SystemClock
from shared.errors import (
    BadInputError,
    CommandError,
    ConflictError,
    RollcallError,
    UnavailableError,
    UntrustedError,
)
from shared.failpoint import VARIABLE
from shared.messages import RedKind, Verdict
from shared.readiness import Check, CheckStatus, Comparable, ReadinessDocument
from shared.release import AgentBuild, Release, parse_release, same_gateway
from shared.report import Target
from shared.wheel import check_dependencies, read_agent_wheel
from tests.conftest import ManualClock
from tests.support.wheelkit import ROOT, pack, tiny_agent
from tests.unit.test_journal import TARGET
from tests.unit.test_release import manifest
from tests.unit.test_runner import World as StepWorld
from tests.unit.test_runner import runner

off = asyncio.to_thread
BUILD = AgentBuild(version="0.1.1", file="rollcall-0.1.1-py3-none-any.whl", sha256="b" * 64, size=1)
FACTS = Facts("0.1.0", launched=True, settled=True, active="0.1.0", built=None, failed=None)


def built(sha256: str = "b" * 64) -> Any:
    from agent.environments import Built

    return Built(version="0.1.1", sha256=sha256, at=1)


def failure(sha256: str | None = "b" * 64) -> Any:
    from agent.environments import Failed

    return Failed(version="0.1.1", sha256=sha256, why="it was started 3 times")


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, Build(BUILD)),
        ({"built": built()}, Go("0.1.1")),
        ({"built": built("c" * 64)}, Build(BUILD)),
        (
            {"built": built(), "failed": failure()},
            Refuse("agent 0.1.1 failed here: it was started 3 times"),
        ),
        ({"failed": failure(None)}, Refuse("agent 0.1.1 failed here: it was started 3 times")),
        ({"failed": failure("c" * 64)}, Build(BUILD)),
        ({"running": "0.1.1"}, Stay()),
    ],
)
def test_what_is_next(changes: dict[str, Any], wanted: object) -> None:
    assert decide(BUILD, replace(FACTS, **changes)) == wanted


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"launched": False}, "rollcall-agent adopt"),
        ({"settled": False}, "has not reported healthy yet"),
        ({"active": "0.1.1"}, "agent 0.1.0 runs while 0.1.1 is active"),
    ],
)
def test_what_has_to_be_waited_for(changes: dict[str, Any], reason: str) -> None:
    step = decide(BUILD, replace(FACTS, built=built(), **changes))
    assert isinstance(step, Hold)
    assert reason in step.reason


def test_without_an_agent_in_the_release_nothing_is_asked() -> None:
    assert decide(None, replace(FACTS, launched=False, settled=False)) == Stay()


@dataclass
class World:
    """What a self-upgrade has around it, and what it did."""

    layout: Layout
    running: str = "0.1.0"
    launched: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    build_error: Exception | None = None
    did: list[str] = field(default_factory=list)
    reds: list[tuple[str, str]] = field(default_factory=list)
    blocks: dict[str, str] = field(default_factory=dict)
    dropped: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layout.make()
        self.environments = Environments(self.layout)

    def upgrade(self) -> SelfUpgrade:
        node = Node(self.running, self.launched, lambda: True, lambda: True)
        return SelfUpgrade(node, self.environments, self, self, self, self.did.append)

    async def agent_file(self, release: Release, sha256: str) -> bytes:
        if sha256 not in self.files:
            raise UnavailableError("the coordinator is away")
        return self.files[sha256]

    async def build(self, version: str, sha256: str, wheel: Path, wheels: Path | None) -> None:
        beside = await off(os.listdir, wheel.parent)
        self.did.append(f"built from {wheel.name}, {beside}")
        if self.build_error is not None:
            raise self.build_error
        await asyncio.to_thread(self.have, version, sha256)

    def have(self, version: str, sha256: str = "b" * 64) -> None:
        self.environments.folder(version).mkdir(parents=True)
        self.environments.complete(version, sha256, 1)

    def links(self) -> tuple[str | None, str | None]:
        return self.environments.active, self.environments.good

    async def raise_red(self, kind: RedKind, reason: str, release: str | None) -> None:
        self.reds.append((kind, reason))

    async def block(self, release: str, reason: str) -> None:
        self.blocks[release] = reason

    async def blocked(self, release: str) -> str | None:
        return self.blocks.get(release)

    async def drop(self, target: Target, label: str, reason: str) -> None:
        self.dropped.append((target.order, reason))


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(Layout(tmp_path / "home"))
    made.have("0.1.0", "a" * 64)
    made.environments.report_healthy("0.1.0", 1)
    made.environments.activate("0.1.0")
    return made


def release_with(**agent: Any) -> Release:
    value = {**BUILD.model_dump(mode="json"), **agent}
    return parse_release(manifest(agent=value).canonical())


RAW = b"a wheel"
RELEASE = release_with(sha256=sha256_hex(RAW))


async def test_it_builds_then_looks_again_then_departs(world: World) -> None:
    """Whatever was heard during the build counts before `active` moves."""
    world.files = {sha256_hex(RAW): RAW}
    upgrade = world.upgrade()
    assert not await upgrade.step(TARGET, RELEASE, world.drop)
    assert await off(world.links) == ("0.1.0", None)
    with pytest.raises(Departure):
        await upgrade.step(TARGET, RELEASE, world.drop)
    assert await off(world.links) == ("0.1.1", "0.1.0")
    move = await off(world.environments.move)
    assert move is not None
    assert (move.version, move.before, move.target, move.served) == ("0.1.1", "0.1.0", TARGET, True)
    assert not (world.environments.root / ".parts").exists()
    assert world.did == [
        "fetching agent 0.1.1",
        "building agent 0.1.1",
        "built from rollcall-0.1.1-py3-none-any.whl, ['rollcall-0.1.1-py3-none-any.whl']",
        "",
    ]


async def test_a_coordinator_that_goes_away_is_waited_for(world: World) -> None:
    with pytest.raises(UnavailableError):
        await world.upgrade().step(TARGET, RELEASE, world.drop)
    assert (world.dropped, world.reds, world.blocks) == ([], [], {})


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left"),
        (CommandError("pip failed (1): no index"), "no index"),
    ],
)
async def test_a_build_for_which_there_is_no_room_ends_this_order_only(
    world: World, error: Exception, reason: str
) -> None:
    """Fault 36."""
    world.files, world.build_error = {sha256_hex(RAW): RAW}, error
    assert not await world.upgrade().step(TARGET, RELEASE, world.drop)
    assert [order for order, _ in world.dropped] == [TARGET.order]
    assert reason in world.dropped[0][1]
    assert (world.reds, world.blocks) == ([], {})


async def test_a_wheel_that_makes_no_agent_is_red_and_blocked(world: World) -> None:
    world.files = {sha256_hex(RAW): RAW}
    world.build_error = BadAgentError("agent 0.1.1 does not start: ImportError")
    assert not await world.upgrade().step(TARGET, RELEASE, world.drop)
    assert [kind for kind, _ in world.reds] == [RedKind.AGENT_FAILED]
    assert "does not start" in world.blocks[TARGET.release]
    assert "agent 0.1.0 goes on" in world.dropped[0][1]


async def test_a_blocked_release_goes_on_to_be_refused_by_its_claim(world: World) -> None:
    world.blocks[RELEASE.id] = "it failed"
    assert await world.upgrade().step(TARGET, RELEASE, world.drop)
    assert world.did == []


async def test_one_without_a_launcher_says_so_and_does_nothing(world: World) -> None:
    world.launched = False
    with pytest.raises(ConflictError, match="not started by its launcher"):
        await world.upgrade().step(TARGET, RELEASE, world.drop)
    assert world.did == []


def moved(world: World) -> None:
    world.have("0.1.1")
    move = Move(version="0.1.1", before="0.1.0", target=TARGET, label="x", served=True)
    world.environments.begin_move(move)


async def test_the_agent_that_runs_again_tells_of_the_failure_once(world: World) -> None:
    await off(moved, world)
    record = {
        "version": "0.1.1",
        "sha256": "b" * 64,
        "why": "3 starts",
        "at": 1,
        "exit": "no gateway",
    }
    (world.environments.root / "0.1.1.failed.json").write_text(json.dumps(record))
    await off(world.environments.activate, "0.1.0")
    for _ in range(2):
        await world.upgrade().recover(world.drop)
    reason = "agent 0.1.1 failed here: 3 starts: no gateway; agent 0.1.0 goes on"
    assert world.reds == [(RedKind.AGENT_FAILED, reason)]
    assert world.dropped == [(TARGET.order, reason)]
    assert world.blocks == {TARGET.release: reason}
    assert not await world.upgrade().step(TARGET, RELEASE_OF_B, world.drop), "and never again"
    assert len(world.reds) == 2


RELEASE_OF_B = release_with()


async def test_a_kill_before_the_link_moved_means_that_nothing_was_tried(world: World) -> None:
    await off(moved, world)
    await off(world.environments.activate, "0.1.0")
    await world.upgrade().recover(world.drop)
    assert await off(world.environments.move) is None
    assert (world.reds, world.dropped) == ([], [])


async def test_the_new_agent_leaves_the_move_to_its_healthy_report(world: World) -> None:
    await off(moved, world)
    world.running = "0.1.1"
    await world.upgrade().recover(world.drop)
    assert await off(world.environments.move) is not None


def document(status: CheckStatus = CheckStatus.PASS, at: float | None = 1.0) -> ReadinessDocument:
    compared = Comparable(
        release=None,
        core_on_disk=None,
        core_running=None,
        plugins={},
        lock_sha256=None,
        tree_sha256=None,
        doctor=[],
        config_schema=None,
    )
    return ReadinessDocument(
        node="a",
        status=Verdict.GREEN,
        reason="",
        at=1,
        checks=[Check(id="gateway", status=status, at=at)],
        comparable=compared,
        ready_probe_sha256="0" * 64,
        evidence_sha256="0" * 64,
    )


def senses(
    seen: ReadinessDocument | None = None, *, reached: bool = True, refused: str = ""
) -> Senses:
    return Senses(lambda: seen or document(), lambda: reached, lambda: refused)


@pytest.mark.parametrize(
    ("senses", "served", "ran_s", "missing"),
    [
        (senses(), True, 0, ""),
        (senses(document(at=None)), False, 0, "has not been read"),
        (senses(document(CheckStatus.FAIL)), True, 0, "served before"),
        (senses(document(CheckStatus.UNKNOWN)), True, 0, "served before"),
        (senses(document(CheckStatus.WARN)), True, 0, ""),
        (senses(document(CheckStatus.FAIL)), False, 0, ""),
        (senses(reached=False), True, ALONE_S - 1, "neither the coordinator nor a peer"),
        (senses(reached=False), True, ALONE_S, ""),
        (senses(refused="protocol 1"), True, ALONE_S, "refuses it: protocol 1"),
    ],
)
def test_what_healthy_means(senses: Senses, served: bool, ran_s: float, missing: str) -> None:
    found = find_missing(senses, served=served, ran_s=ran_s)
    assert missing in found
    assert bool(missing) == bool(found)
    assert is_serving(document()) is True


async def pass_time(clock: ManualClock, until: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not until():
            clock.advance(5)
            await asyncio.sleep(0.01)


async def test_a_new_agent_reports_healthy_and_tidies_up(world: World, clock: ManualClock) -> None:
    await off(moved, world)
    await off(world.have, "0.0.9")
    health = Health("0.1.1", world.environments, senses(), clock, 180)
    assert not health.settled
    await health.run()
    assert health.settled
    assert await off(world.environments.is_healthy, "0.1.1")
    assert await off(world.environments.move) is None
    listed = {
        each.version: (each.state, each.healthy) for each in await off(world.environments.listing)
    }
    assert listed == {"0.1.0": (State.GOOD, True), "0.1.1": (State.ACTIVE, True)}


async def test_one_that_cannot_be_healthy_leaves_its_reason_and_ends(
    world: World, clock: ManualClock
) -> None:
    await off(moved, world)
    health = Health("0.1.1", world.environments, senses(document(CheckStatus.FAIL)), clock, 180)
    task = asyncio.create_task(health.run())
    await pass_time(clock, task.done)
    with pytest.raises(NotHealthyError, match="the gateway served before"):
        task.result()
    left = json.loads((world.environments.folder("0.1.1") / "EXIT").read_text())
    assert "within 180 s" in left["reason"]
    assert not await off(world.environments.is_healthy, "0.1.1")
    assert not health.settled


async def test_one_without_any_network_is_healthy_after_a_minute(
    world: World, clock: ManualClock
) -> None:
    await off(moved, world)
    health = Health("0.1.1", world.environments, senses(reached=False), clock, 180)
    began = clock.monotonic()
    task = asyncio.create_task(health.run())
    await pass_time(clock, task.done)
    task.result()
    assert ALONE_S <= clock.monotonic() - began < 100


async def test_the_alarm_of_the_launcher_is_put_off(world: World, clock: ManualClock) -> None:
    await off(moved, world)
    signal.alarm(1000)
    await Health("0.1.1", world.environments, senses(), clock, 180).run()
    assert signal.alarm(0) == 0


async def test_an_agent_that_no_launcher_started_waits_for_nothing(
    world: World, clock: ManualClock
) -> None:
    health = Health(None, world.environments, senses(reached=False), clock, 180)
    assert health.settled
    await health.run()
    assert not (world.environments.folder("0.1.0") / "EXIT").exists()


def test_a_process_of_another_environment_was_not_launched_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLCALL_LAUNCHED", "0.1.0")
    assert launched_version(Layout(tmp_path)) is None


def builder(world: World, *, timeout_s: float = 120) -> Builder:
    settings = PipSettings(base_python(), None, timeout_s)
    return Builder(world.environments, settings, SystemClock())


async def build(world: World, wheel: Path, wheels: Path | None, version: str = "0.1.1") -> None:
    sha256 = sha256_hex(await asyncio.to_thread(wheel.read_bytes))
    await builder(world).build(version, sha256, wheel, wheels)


async def test_an_environment_is_built_whole_and_alone(world: World, tmp_path: Path) -> None:
    wheel, wheels = tiny_agent(tmp_path, "0.1.1")
    half = world.environments.folder("0.1.1")
    half.mkdir()
    (half / "leftover").touch()
    await build(world, wheel, wheels)
    mark = await off(world.environments.built, "0.1.1")
    assert mark is not None
    assert mark.sha256 == sha256_hex(wheel.read_bytes())
    assert not (half / "leftover").exists()
    said = await off(
        subprocess.run,
        [half / "bin" / "python", "-I", "-c", "import agent, tinydep; print(agent.__version__)"],
        capture_output=True,
        check=True,
    )
    assert said.stdout == b"0.1.1\n"
    assert {path.name for path in world.environments.root.iterdir()} == {
        "0.1.0",
        "0.1.1",
        ".lock",
    }


async def test_a_broken_import_is_found_before_anything_moves(world: World, tmp_path: Path) -> None:
    wheel, wheels = tiny_agent(tmp_path, "0.1.1", init="raise RuntimeError('half an agent')\n")
    with pytest.raises(BadAgentError, match="half an agent"):
        await build(world, wheel, wheels)
    assert await off(world.environments.built, "0.1.1") is None
    assert [each.state for each in await off(world.environments.listing)] == [
        State.ACTIVE,
        State.UNFINISHED,
    ]


async def test_a_dependency_with_another_hash_is_not_installed(
    world: World, tmp_path: Path
) -> None:
    wheel, wheels = tiny_agent(tmp_path, "0.1.1")
    pack(wheels, "tinydep", "1.0", {"tinydep.py": "SIZE = 'evil'\n"})
    with pytest.raises(CommandError, match="pip failed"):
        await build(world, wheel, wheels)
    assert await off(world.environments.built, "0.1.1") is None


async def test_a_wheel_is_looked_at_before_a_venv_is_made(world: World, tmp_path: Path) -> None:
    wheel, wheels = tiny_agent(tmp_path, "0.1.1")
    with pytest.raises(UntrustedError, match="not the wheel with hash"):
        await builder(world).build("0.1.1", "c" * 64, wheel, wheels)
    with pytest.raises(BadAgentError, match=r"holds agent 0\.1\.1, not 0\.1\.2"):
        await build(world, wheel, wheels, "0.1.2")
    bare, _ = tiny_agent(tmp_path, "0.1.3", lock=False)
    with pytest.raises(BadInputError, match="carries no lock"):
        await build(world, bare, wheels, "0.1.3")
    assert [each.version for each in await off(world.environments.listing)] == ["0.1.0"]


async def test_a_build_ends_at_its_deadline(world: World, tmp_path: Path) -> None:
    wheel, wheels = tiny_agent(tmp_path, "0.1.1")
    sha256 = sha256_hex(wheel.read_bytes())
    with pytest.raises(CommandError, match="not built within"):
        await builder(world, timeout_s=0.2).build("0.1.1", sha256, wheel, wheels)
    assert not (world.environments.root / ".scratch").exists()


ADOPT = "from agent.cli import main; main()"


@pytest.mark.parametrize("place", ["agent.dependencies", "link.active"])
def test_killed_anywhere_in_an_adoption_the_next_one_succeeds(tmp_path: Path, place: str) -> None:
    """Fault 8, with the command that builds as a self-upgrade does."""
    wheel, wheels = tiny_agent(tmp_path, "0.1.1")
    home, points = tmp_path / "a home", tmp_path / "points"
    home.mkdir()
    points.mkdir()
    (points / "armed").write_text(place)
    argv = [sys.executable, "-c", ADOPT, "adopt", "--json", "--home", str(home)]
    argv += ["--wheel", str(wheel), "--wheels", str(wheels)]
    env = {**os.environ, VARIABLE: str(points), "PYTHONPATH": str(ROOT)}
    first = subprocess.run(argv, env=env, capture_output=True, check=False)
    assert first.returncode == -signal.SIGKILL
    environments = Environments(Layout(home))
    assert environments.active is None
    again = subprocess.run(argv, env=env, capture_output=True, check=False)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["version"] == "0.1.1"
    assert environments.active == "0.1.1"
    assert (home / "launcher").stat().st_mode & 0o777 == 0o755


def test_the_versions_are_listed_with_their_state(world: World) -> None:
    moved(world)
    write = Healthy(at=1).canonical()
    (world.environments.folder("0.1.1") / "HEALTHY").write_bytes(write)
    (world.environments.root / "0.1.2.failed.json").write_text(
        '{"version": "0.1.2", "why": "3 starts"}'
    )
    world.environments.folder("0.1.10").mkdir()
    shown = CliRunner().invoke(app, ["versions", "--home", str(world.layout.home), "--json"])
    found = [
        (each["version"], each["state"], each["why"])
        for each in json.loads(shown.stdout)["versions"]
    ]
    assert found == [
        ("0.1.0", "last good", ""),
        ("0.1.1", "active", ""),
        ("0.1.2", "failed", "3 starts"),
        ("0.1.10", "unfinished", ""),
    ]


def test_the_version_is_printed() -> None:
    import agent

    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.stdout) == (0, f"rollcall-agent {agent.__version__}\n")


def test_a_shared_home_leaves_the_launcher_what_it_is(world: World) -> None:
    world.layout.launcher.write_text("#!/bin/sh\n")
    (world.layout.home / "agent.db").touch()
    world.layout.share()
    modes = {
        name: (world.layout.home / name).stat().st_mode & 0o777 for name in ("launcher", "agent.db")
    }
    assert modes == {"launcher": 0o755, "agent.db": 0o600}


def test_what_a_release_accepts_as_an_agent(tmp_path: Path) -> None:
    wheel, wheels = tiny_agent(tmp_path, "0.1.1")
    agent = read_agent_wheel(wheel.name, wheel.read_bytes())
    assert (agent.version, [each.name for each in agent.requirements]) == ("0.1.1", ["tinydep"])
    dependency = next(wheels.iterdir()).read_bytes()
    check_dependencies(agent, {"tinydep-1.0-py3-none-any.whl": dependency})
    with pytest.raises(BadInputError, match="no wheel of tinydep"):
        check_dependencies(agent, {})
    with pytest.raises(BadInputError, match="is not what the agent's lock pins"):
        check_dependencies(agent, {"other-1.0-py3-none-any.whl": dependency + b"x"})
    with pytest.raises(BadInputError, match=r"holds no metadata of rollcall 0\.1\.2"):
        read_agent_wheel(wheel.name.replace("0.1.1", "0.1.2"), wheel.read_bytes())
    with pytest.raises(BadInputError, match="not the name of a wheel of rollcall"):
        read_agent_wheel("other-0.1.1-py3-none-any.whl", wheel.read_bytes())
    with pytest.raises(BadInputError, match="is not a wheel"):
        read_agent_wheel(wheel.name, b"\0" * 100)


@pytest.mark.parametrize(
    "lock",
    [
        "",
        "tinydep==1.0\n",
        "tinydep>=1.0 \\\n    --hash=sha256:" + "a" * 64 + "\n",
        "--index-url x\n",
        "-r other.txt\n",
        "tinydep @ file:///x \\\n    --hash=sha256:" + "a" * 64 + "\n",
        "tinydep==1.0 \\\n    --hash=sha256:" + "a" * 64 + " \\\n    --find-links=/x\n",
    ],
)
def test_a_lock_pins_and_does_nothing_else(tmp_path: Path, lock: str) -> None:
    wheel = pack(tmp_path, "rollcall", "0.1.1", {"agent/requirements.lock": lock})
    with pytest.raises(BadInputError, match=r"pins nothing|not a pin"):
        read_agent_wheel(wheel.name, wheel.read_bytes())


def test_a_manifest_of_before_dependency_wheels_keeps_its_id() -> None:
    plain = BUILD.model_dump(mode="json")
    assert "wheels" not in plain
    value = {**manifest().model_dump(mode="json"), "agent": plain}
    release = parse_release(canonical_json(value))
    assert sha256_hex(release.manifest.canonical()) == release.id
    assert release.unknown == []


OTHER_GATEWAY: dict[str, Any] = {
    "openclaw": "2026.9.7",
    "plugins": {"p": "1.0.0"},
    "dependencies": {"openclaw": "2026.9.7"},
    "lock_sha256": "c" * 64,
    "artifacts": [{"file": "a.tgz", "sha256": "d" * 64, "size": 1}],
    "allow_scripts": ["openclaw"],
    "node_engine": ">=25",
    "schema_versions": {"state": 2, "agent": 1},
    "overlay": {"*": {"a": 1}},
    "migrations": [{"id": "m", "words": ["doctor"]}],
}
SAME_GATEWAY: dict[str, Any] = {
    "name": "2026.9.6+2",
    "agent": BUILD.model_dump(),
    "created": 2.0,
    "expires": 200.0,
    "floor": {"name": "x", "openclaw": "2026.8.1", "created": 1.0},
}


def test_which_releases_need_nothing_done_to_the_gateway() -> None:
    one = manifest()
    assert set(OTHER_GATEWAY) | set(SAME_GATEWAY) == set(type(one).model_fields)
    assert same_gateway(one, manifest(**SAME_GATEWAY))
    for name, value in OTHER_GATEWAY.items():
        assert not same_gateway(one, manifest(**{name: value})), name
    two = [{"file": f"{name}.tgz", "sha256": name * 64, "size": 1} for name in "ab"]
    assert same_gateway(manifest(artifacts=two), manifest(artifacts=two[::-1]))
    steps = [{"id": name, "words": ["x"]} for name in "ab"]
    assert not same_gateway(manifest(migrations=steps), manifest(migrations=steps[::-1]))


async def test_freezing_refuses_what_no_node_could_use(tmp_path: Path) -> None:
    bare, wheels = tiny_agent(tmp_path, "0.1.1", lock=False)

    async def refused(request: Request) -> str:
        with pytest.raises(RollcallError) as error:
            await freeze(request, None, 0.0, lambda text: None)  # type: ignore[arg-type]
        return str(error.value)

    assert "carries no lock" in await refused(Request("2026.9.6", agent_wheel=bare))
    assert "goes with --agent-wheel" in await refused(Request("2026.9.6", agent_wheels=wheels))
    whole, _ = tiny_agent(tmp_path, "0.1.2")
    (tmp_path / "none").mkdir()
    asked = Request("2026.9.6", agent_wheel=whole, agent_wheels=tmp_path / "none")
    assert "no wheel of tinydep" in await refused(asked)


async def test_an_adoption_under_way_is_waited_for(world: World) -> None:
    world.files, world.build_error = {sha256_hex(RAW): RAW}, ConflictError("in use")
    with pytest.raises(ConflictError):
        await world.upgrade().step(TARGET, RELEASE, world.drop)
    assert world.dropped == []


async def test_an_order_that_was_never_begun_ends_in_the_journal_once(tmp_path: Path) -> None:
    """And only as far as the table allows: nothing while another one runs."""
    steps = StepWorld()
    made = await off(runner, tmp_path / "upgrade.log", steps)
    for _ in range(2):
        await made.drop(TARGET, "x", "agent 0.1.1 failed here")
    assert made.record is not None
    assert (made.record.phase, made.record.reason) == (Phase.DROPPED, "agent 0.1.1 failed here")
    again = await off(runner, tmp_path / "upgrade.log", steps)
    assert again.record == made.record
    assert steps.did == []
    other = TARGET.model_copy(update={"order": "00000001:canary"})
    steps.hang = Phase.STAGED
    task = asyncio.create_task(again.begin(other, "y"))
    await steps.hanging.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await again.drop(TARGET.model_copy(update={"order": "00000002:canary"}), "z", "late")
    assert again.record is not None
    assert again.record.target == other


async def test_an_older_agent_opens_a_database_that_a_newer_one_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await (await Store.open(path)).close()

    def become(schema: int, readable_from: int | None) -> None:
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA user_version = {schema}")
            db.execute("DELETE FROM meta WHERE key = 'readable_from'")
            if readable_from is not None:
                db.execute("INSERT INTO meta VALUES ('readable_from', ?)", (readable_from,))
        db.close()

    await off(become, SCHEMA_VERSION + 1, SCHEMA_VERSION)
    store = await Store.open(path)
    await store.block("a" * 64, "x", 1.0)
    await store.close()
    for readable_from in (None, SCHEMA_VERSION + 1):
        await off(become, SCHEMA_VERSION + 1, readable_from)
        with pytest.raises(RollcallError, match="written by a newer agent"):
            await Store.open(path)
