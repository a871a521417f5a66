"""Environments of the agent, really built from tiny wheels, and what a release says of them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.builder import BadAgentError, Builder, PipSettings
from agent.cli import make_app
from agent.environments import (
    Environments,
    Healthy,
    State,
    base_python,
)
from agent.layout import Layout
from coordinator.freeze import Request, freeze
from shared.canonical import canonical_json, sha256_hex
from shared.clock import SystemClock
from shared.command import run_command
from shared.errors import (
    BadInputError,
    CommandError,
    RollcallError,
    UntrustedError,
)
from shared.failpoint import VARIABLE
from shared.protocol import FIRST, SPOKEN
from shared.release import check_for_agent, parse_release, same_gateway
from shared.wheel import check_dependencies, read_agent_wheel
from tests.support.agentworld import BUILD, World, make_world, moved, off
from tests.support.wheelkit import ROOT, build_wheel, pack, tiny_agent
from tests.unit.test_release import manifest


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "home")


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
    look = "import agent, tinydep; print(agent.__version__)"
    argv = [str(half / "bin" / "python"), "-I", "-c", look]
    said = await run_command(argv, env={}, timeout_s=30)
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
    (points / "armed").write_text(f"{place}#1")
    argv = [sys.executable, "-c", ADOPT, "adopt", "--json", "--home", str(home)]
    argv += ["--wheel", str(wheel), "--wheels", str(wheels)]
    env = {**os.environ, VARIABLE: str(points), "PYTHONPATH": str(ROOT)}
    first = subprocess.run(argv, env=env, capture_output=True, check=False)
    assert first.returncode == -signal.SIGKILL
    environments = Environments(Layout(home))
    assert not (home / "active").exists()
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
    shown = CliRunner().invoke(make_app(), ["versions", "--home", str(world.layout.home), "--json"])
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

    shown = CliRunner().invoke(make_app(), ["--version"])
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
    assert agent.protocol == FIRST, "it does not say"
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
        "-i x\n",
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


def test_a_wheel_of_this_tree_carries_its_lock_and_its_protocol(tmp_path: Path) -> None:
    wheel = build_wheel("0.1.7", tmp_path, {})
    agent = read_agent_wheel(wheel.name, wheel.read_bytes())
    assert agent.version == "0.1.7"
    assert agent.protocol == SPOKEN
    assert agent.lock == (ROOT / "scripts" / "locks" / "agent.txt").read_bytes()
    assert {"aiohttp", "pydantic"} <= {each.name for each in agent.requirements}


def test_a_release_that_says_more_than_this_agent_knows_is_not_installed_by_it() -> None:
    value = {**manifest().model_dump(mode="json"), "sandbox": True}
    value["schema_versions"] = {"state": 1, "agent": 1, "queue": 4}
    release = parse_release(canonical_json(value))
    assert release.unknown == ["sandbox", "schema_versions.queue"]
    with pytest.raises(UntrustedError, match=r"sandbox, schema_versions\.queue") as refused:
        check_for_agent(release, "0.1.0")
    assert "--agent-wheel" in str(refused.value)
    plain = parse_release(manifest(overlay={"*": {"anything": [{"goes": 1}]}}).canonical())
    assert plain.unknown == []
    check_for_agent(plain, "0.1.0")
