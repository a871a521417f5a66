"""The gateway's account, for real: this module starts processes as `nobody` where it runs as root."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from agent.cage import gateway_account, prepare_cage
from agent.config import AgentConfig
from agent.layout import Layout
from agent.openclaw.cli import OpenClaw
from agent.openclaw.handover import hand_over, lend
from agent.openclaw.settings import CONFIG, apply_overlays, read_settings
from agent.openclaw.tree import read_facts, verify_tree
from agent.service.process import ProcessService
from agent.upgrade.bookmark import Bookmarks
from agent.upgrade.context import Context, Deps
from agent.upgrade.installers.factory import make_installer
from agent.upgrade.phases import Phase
from agent.upgrade.record import Record, Status
from agent.upgrade.snapshots import Snapshots
from agent.upgrade.steps.stage import Stage
from scripts.minifleet.packages import pack_standin
from scripts.minifleet.ports import free_port
from shared.account import Account, identity_of
from shared.canonical import sha256_hex
from shared.clock import SystemClock
from shared.command import CHILD_OF, end_children_of, run_command
from shared.durable import write_durable
from shared.errors import ConfigError, NotFoundError, UntrustedError
from shared.npm import Npm, find_tools
from shared.release import Artifact, Release, parse_release
from shared.scratch import give
from tests.support.cage import PATH_ONLY, caged_tools, home_of, needs_root, open_place, shell
from tests.support.installkit import Source
from tests.unit.test_journal import TARGET
from tests.unit.test_release import manifest
from tests.unit.test_snapshots import bookmark_of

VERSION = "2026.9.6"
TOML = Path("agent.toml")


@pytest.fixture
def nobody() -> Account:
    return Account.find("nobody")


@pytest.fixture
def place() -> Iterator[Path]:
    with open_place() as root:
        yield root


@pytest.fixture
def layout(place: Path) -> Layout:
    layout = Layout(place / "agent")
    layout.make()
    layout.share()
    return layout


def config_of(place: Path, **openclaw: Any) -> AgentConfig:
    tools = find_tools()
    gateway = {"home": place / "home", "port": free_port(), "user": "nobody"}
    parts = {"node": tools.node, "npm": tools.npm_cli, **openclaw}
    return AgentConfig.model_validate({"gateway": gateway, "openclaw": parts})


@pytest.mark.parametrize(
    ("user", "euid", "said"),
    [
        (None, 0, "gateway.user is missing, and the agent is root"),
        ("nobody", 12345, "runs as 12345"),
        ("no-such-account", 0, "no account 'no-such-account'"),
        ("no\0such", 0, "no account"),
    ],
)
def test_an_account_that_does_not_fit_the_agents_is_refused(
    user: str | None, euid: int, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        gateway_account(user, TOML, euid)


def test_an_agent_may_run_its_gateway_as_itself(nobody: Account) -> None:
    assert gateway_account(None, TOML, 501) is None
    assert gateway_account("nobody", TOML, nobody.uid) is None
    assert gateway_account("root", TOML, 0) is None, "an operator who really wants root"
    assert gateway_account("nobody", TOML, 0) == nobody
    with pytest.raises(NotFoundError):
        Account.find("no-such-account")


@needs_root
def test_what_the_account_cannot_reach_or_does_not_own_is_named(
    place: Path, layout: Layout, nobody: Account
) -> None:
    with pytest.raises(ConfigError, match=r"gateway.home: .* is not a folder of nobody"):
        prepare_cage(config_of(place), layout, nobody)
    home_of(nobody, place)
    cache = place / "cache"
    prepare_cage(config_of(place, npm_cache=cache), layout, nobody)
    assert cache.stat().st_uid == nobody.uid
    os.chown(cache, 0, 0)
    with pytest.raises(ConfigError, match=r"openclaw.npm_cache.*chown -R nobody"):
        prepare_cage(config_of(place, npm_cache=cache), layout, nobody)
    place.chmod(0o700)
    with pytest.raises(ConfigError, match="nobody may not enter"):
        prepare_cage(config_of(place), layout, nobody)


@needs_root
async def test_a_child_is_the_account_and_nothing_of_root(nobody: Account) -> None:
    script = "id -u; id -g; id -G; umask; cat /etc/shadow"
    done = await run_command(["/bin/sh", "-c", script], env=PATH_ONLY, timeout_s=30, account=nobody)
    said = done.stdout.decode().split("\n")
    assert said[:2] == [str(nobody.uid), str(nobody.gid)]
    assert set(map(int, said[2].split())) == {nobody.gid, *nobody.groups}
    assert said[3] == "0077"
    assert done.code != 0, "nor may it read what only root may"


@needs_root
def test_the_agents_home_lets_the_account_through_and_shows_it_nothing(
    layout: Layout, nobody: Account
) -> None:
    write_durable(layout.message_key, b"secret")
    for path in (layout.database, layout.config):
        path.write_text("secret")
        path.chmod(0o644)
    (layout.releases / "file").write_text("open")
    (layout.releases / "file").chmod(0o644)
    layout.share()
    closed = [layout.message_key, layout.database, layout.config]
    for script in [f"cat '{path}'" for path in closed] + [
        f"ls '{path}'"
        for path in (layout.home, layout.identity, layout.bookmarks, layout.journal, layout.scratch)
    ]:
        assert shell(nobody, script) != 0, script
    assert shell(nobody, f"cat '{layout.releases}/file'") == 0


@needs_root
def test_children_of_another_account_are_still_found_by_their_mark(
    place: Path, nobody: Account
) -> None:
    child = subprocess.Popen(
        ["/bin/sleep", "300"],
        env={CHILD_OF: str(place)},
        start_new_session=True,
        **identity_of(nobody),
    )
    try:
        ends = time.monotonic() + 20
        while not (found := end_children_of(str(place))) and time.monotonic() < ends:
            time.sleep(0.05)
        assert found == 1
    finally:
        child.kill()
        child.wait()


@needs_root
def test_settings_and_state_keep_their_owner(place: Path, nobody: Account) -> None:
    state = home_of(nobody, place) / ".openclaw"
    (state / CONFIG).write_text("{}")
    give(state / CONFIG, nobody)
    apply_overlays(state, [{"gateway": {"mode": "local"}}], Path("/tree"))
    assert (state / CONFIG).stat().st_uid == nobody.uid
    (place / "bookmarks").mkdir()
    snapshots = Snapshots(Bookmarks(place / "bookmarks"), str(place))
    bookmark = bookmark_of(snapshots, [state])
    (state / CONFIG).unlink()
    snapshots.restore(bookmark)
    for path in (state, state / CONFIG):
        assert (path.stat().st_uid, path.stat().st_gid) == (nobody.uid, nobody.gid)


@needs_root
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("ln -s /etc/passwd x", "a link out of the tree"),
        ("ln -s ../../x x", "a link out of the tree"),
        ("mkdir -p a; ln -s a/../../x x", "a link out of the tree"),
        ("mkfifo x", "not a regular file"),
        ("echo 1 > x; ln x ../../home/x", "another name outside"),
        ("mkdir -p $(printf 'd/%.0s' $(seq 120))", "folders deep"),
    ],
)
def test_a_way_back_into_the_tree_is_not_taken_over(
    place: Path, nobody: Account, script: str, said: str
) -> None:
    home_of(nobody, place)
    modules = place / "tree" / "node_modules"
    modules.parent.mkdir(mode=0o755)
    lend(modules, nobody)
    assert shell(nobody, f"cd '{modules}' && {script}") == 0
    with pytest.raises(UntrustedError, match=said):
        hand_over(modules, nobody, str(place))


@needs_root
def test_what_is_taken_over_is_ours_for_good(place: Path, nobody: Account) -> None:
    """Neither a file held open for writing nor a setuid bit is a way to change it later."""
    modules = place / "tree" / "node_modules"
    modules.parent.mkdir(mode=0o755)
    lend(modules, nobody)
    script = "echo 1 > x; cp /bin/sh sh; chmod 4755 sh; mkdir .bin; ln -s ../x .bin/x; ln x y"
    assert shell(nobody, f"cd '{modules}' && {script}") == 0
    with (modules / "x").open("r+b") as held:
        hand_over(modules, nobody, str(place))
        held.write(b"2")
    assert (modules / "x").read_text() == "1\n"
    assert (modules / "sh").stat().st_mode & 0o7777 == 0o755
    for path in [modules, *modules.rglob("*")]:
        assert path.lstat().st_uid == 0
    spoil = f"cd '{modules}'; echo 3 > x; rm x; mkdir z; mv .bin b; chmod 777 ."
    shell(nobody, spoil)
    assert sorted(path.name for path in modules.iterdir()) == [".bin", "sh", "x", "y"]


async def source_of(place: Path) -> tuple[Source, Release]:
    """The stand-in as a release: resolved by npm."""
    npm, project = Npm(find_tools()), place / "project"
    (project / "artifacts").mkdir(parents=True)
    tarball = await pack_standin(npm, VERSION, project / "artifacts")
    body = tarball.read_bytes()
    changes = {
        "dependencies": {"openclaw": f"file:artifacts/{tarball.name}"},
        "artifacts": [Artifact(file=tarball.name, sha256=sha256_hex(body), size=len(body))],
        "allow_scripts": ["openclaw"],
    }
    draft = manifest(**changes)
    (project / "package.json").write_text(json.dumps(draft.package_json()))
    await npm.lock(project)
    lock = (project / "package-lock.json").read_bytes()
    whole = draft.model_copy(update={"lock_sha256": sha256_hex(lock)})
    release = parse_release(whole.canonical())
    return Source(release, [lock, body]), release


async def context_of(place: Path, layout: Layout, nobody: Account, config: AgentConfig) -> Context:
    source, release = await source_of(place)
    tools = caged_tools(layout, nobody)
    nothing = cast(Any, None)
    deps = Deps(
        config=config,
        layout=layout,
        role=nothing,
        clock=SystemClock(),
        tools=tools,
        npm=Npm(tools),
        installer=make_installer(config, layout, tools),
        service=nothing,
        gateway=nothing,
        readiness=nothing,
        releases=source,
        attestors=nothing,
        alarm=nothing,
        weight=nothing,
        claims=nothing,
        trees=nothing,
        snapshots=nothing,
        baseline=lambda release: {},
        progress=lambda text: None,
    )
    target = TARGET.model_copy(update={"release": release.id})
    record = Record(
        upgrade="u1",
        target=target,
        label="x",
        phase=Phase.STAGED,
        status=Status.ENTERED,
        began=1.0,
        entered=1.0,
    )
    return Context(deps, record, release)


@needs_root
def test_the_gateway_runs_caged_out_of_a_tree_that_is_not_its_own(
    place: Path, layout: Layout, nobody: Account
) -> None:
    """The whole way: npm stages as nobody, root takes the tree over, nobody's gateway runs from it."""
    config = config_of(place)
    home = home_of(nobody, place)
    write_durable(layout.message_key, b"secret")
    settings = {"gateway": {"mode": "local", "port": config.gateway.port, "auth": {"token": "t"}}}
    (home / ".openclaw" / CONFIG).write_text(json.dumps(settings))
    give(home / ".openclaw" / CONFIG, nobody)
    context = asyncio.run(staged(place, layout, nobody, config))
    tree, release = context.tree, context.signed()
    verify_tree(tree, release.id, release.manifest.lock_sha256)
    assert all(path.lstat().st_uid == 0 for path in [tree, *tree.rglob("*")])
    assert list(layout.scratch.iterdir()) == []
    layout.current.symlink_to(tree)
    asyncio.run(run_as(nobody, context.deps))
    for script in (f"echo x >> {tree}/COMPLETE", f"touch {tree}/x", f"cat {layout.message_key}"):
        assert shell(nobody, script) != 0, script
    assert read_facts(tree).core == VERSION
    shell(nobody, f"cd {home}/.openclaw && rm {CONFIG} && ln -s /etc/shadow {CONFIG}")
    with pytest.raises(UntrustedError, match="is a link"):
        read_settings(home / ".openclaw")


async def staged(place: Path, layout: Layout, nobody: Account, config: AgentConfig) -> Context:
    context = await context_of(place, layout, nobody, config)
    await Stage().act(context)
    return context


async def run_as(account: Account, deps: Deps) -> None:
    """Start the gateway, look at its process, ask it something, and find it again as a later agent."""
    folder = deps.layout.service
    service = await ProcessService.open(folder, SystemClock(), lambda: None)
    pid = await service.start(deps.service_spec())
    try:
        process = psutil.Process(pid.pid)
        assert set(process.uids()) == {account.uid}
        assert set(process.gids()) == {account.gid}
        assert process.environ()["USER"] == account.name
        await until_answers(deps.openclaw(deps.layout.current))
        again = await ProcessService.open(folder, SystemClock(), lambda: None)
        assert await again.alive() == pid
    finally:
        await service.stop(5)


async def until_answers(openclaw: OpenClaw) -> None:
    async with asyncio.timeout(60):
        while True:
            output = await openclaw.run("gateway", "status", "--json", timeout_s=30)
            if json.loads(output.stdout)["rpc"]["ok"]:
                return


@needs_root
def test_a_link_that_the_account_plants_before_the_rollback_is_refused(
    place: Path, nobody: Account
) -> None:
    """Fault 31, by the account itself: the state's own name, and the name beside it."""
    home = home_of(nobody, place)
    state, victim = home / ".openclaw", place / "victim"
    victim.mkdir(mode=0o755)
    (place / "bookmarks").mkdir()
    snapshots = Snapshots(Bookmarks(place / "bookmarks"), str(place))
    bookmark = bookmark_of(snapshots, [state])
    for plant in (
        f"mv {state} {home}/away; ln -s {victim} {state}",
        f"rm {state}; mv {home}/away {state}; ln -s {victim} {state}.restored",
        f"rm {state}.restored; mkdir -m 700 {state}.restored",
    ):
        assert shell(nobody, plant) == 0
        with pytest.raises(UntrustedError):
            snapshots.restore(bookmark)
    assert list(victim.iterdir()) == []
