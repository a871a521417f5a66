"""The agent put on a host, looked after and taken off again; which keeper its gateway gets."""

from __future__ import annotations

import asyncio
import json
import os
import plistlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.config import AgentConfig, load_config
from agent.hosting.plan import obstacles, plan_install, plan_uninstall
from agent.hosting.setup import Setup
from agent.hosting.watchdog import Watchdog, Watched, note
from agent.layout import Layout
from agent.service.base import ServiceSpec
from agent.service.choose import choose_service
from agent.service.host import Host
from agent.service.process import ProcessService
from agent.service.supervised import SupervisedService
from agent.service.wrapper import wrapper_script
from shared.account import Account
from shared.clock import SystemClock
from shared.errors import ConfigError, NotFoundError
from tests.support.launchd.emulator import Launchd, Systemd, emulated_systemd

ME = os.geteuid()
ROOT = Path(__file__).resolve().parents[2]
AGENT, WATCHDOG = "system/io.rollcall.agent", "system/io.rollcall.watchdog"
needs_root = pytest.mark.skipif(ME != 0, reason="jobs of the system domain are root's")
SLEEPER = (sys.executable, "-S", "-c", "import time; time.sleep(300)")


@pytest.fixture
def systemd() -> Iterator[Systemd]:
    with emulated_systemd() as made:
        yield made


def mac(launchd: Launchd, euid: int = 0) -> Host:
    folder = launchd.folder / "daemons"
    folder.mkdir(exist_ok=True)
    return Host("darwin", launchd.launchctl, None, folder, euid=euid)


def linux(systemd: Systemd) -> Host:
    return Host("linux", None, systemd.systemctl, units=systemd.units, euid=0)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Of a node that has joined, with a launcher that stays."""
    layout = Layout(tmp_path / "home")
    layout.make()
    layout.node_file.write_text("{}")
    configure(layout)
    launcher = layout.home / "launcher"
    launcher.write_text('#!/bin/sh\n[ "$1" = run ] && exec sleep 300\nexit 0\n')
    launcher.chmod(0o755)
    return layout


def configure(layout: Layout, service: str = "") -> AgentConfig:
    layout.config.write_text(
        f"""
[gateway]
home = "{layout.home / "gateway"}"
port = 18789
[openclaw]
node = "/opt/node/bin/node"
npm = "/opt/node/lib/node_modules/npm/bin/npm-cli.js"
[service]
{service}
"""
    )
    return load_config(layout.config)


def plan(host: Host, layout: Layout, service: str = "") -> Any:
    config = configure(layout, service)
    return plan_install(host, layout, layout.home / "launcher", config, None)


@needs_root
async def test_installed_started_stopped_and_taken_off_again(
    launchd: Launchd, layout: Layout
) -> None:
    host = mac(launchd)
    setup = Setup(host, SystemClock())
    wanted = await asyncio.to_thread(plan, host, layout)
    first = await setup.install(wanted)
    assert psutil.Process(first).cmdline() == ["sleep", "300"]
    for file in wanted.files:
        info = file.path.stat()
        assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (0, 0, 0o644)
    assert await setup.install(wanted) == first, "again changes nothing"
    await setup.stop()
    assert not psutil.pid_exists(first)
    for target in (AGENT, WATCHDOG):
        assert launchd.run("print", target).returncode == 113
    launchd.run("disable", AGENT)
    second = await setup.start()
    assert second != first
    assert launchd.run("print", WATCHDOG).returncode == 0
    removed = await setup.uninstall()
    assert sorted(path.name for path in removed) == [
        "io.rollcall.agent.plist",
        "io.rollcall.watchdog.plist",
    ]
    assert not psutil.pid_exists(second)
    assert await setup.uninstall() == []
    with pytest.raises(NotFoundError, match="rollcall-agent install"):
        await setup.start()


@needs_root
async def test_another_launcher_is_loaded_by_installing_again(
    launchd: Launchd, layout: Layout
) -> None:
    host, setup = mac(launchd), Setup(mac(launchd), SystemClock())
    first = await setup.install(await asyncio.to_thread(plan, host, layout))
    other = layout.home / "other"
    other.write_text("#!/bin/sh\nexec sleep 301\n")
    other.chmod(0o755)
    config = await asyncio.to_thread(configure, layout)
    changed = plan_install(host, layout, other, config, None)
    second = await setup.install(changed)
    assert psutil.Process(second).cmdline() == ["sleep", "301"]
    assert not psutil.pid_exists(first)


async def test_on_systemd(systemd: Systemd, layout: Layout) -> None:
    host = linux(systemd)
    setup = Setup(host, SystemClock())
    wanted = await asyncio.to_thread(plan, host, layout)
    first = await setup.install(wanted)
    assert psutil.Process(first).cmdline() == ["sleep", "300"]
    unit = (systemd.units / "rollcall-agent.service").read_text()
    assert "KillMode=process" in unit, "a gateway of the agent's own is in its control group"
    assert await setup.install(wanted) == first
    await setup.stop()
    assert not psutil.pid_exists(first)
    assert await setup.start() != first
    assert [path.name for path in await setup.uninstall()] == ["rollcall-agent.service"]


def test_a_dry_run_shows_files_and_commands_and_does_nothing(
    launchd: Launchd, layout: Layout
) -> None:
    shown = plan(mac(launchd), layout).shown()
    assert [Path(file["path"]).name for file in shown["files"]] == [
        "io.rollcall.agent.plist",
        "io.rollcall.watchdog.plist",
    ]
    assert shown["commands"][:2] == [
        ["launchctl", "enable", AGENT],
        [
            "launchctl",
            "bootstrap",
            "system",
            str(launchd.folder / "daemons" / "io.rollcall.agent.plist"),
        ],
    ]
    assert plistlib.loads(shown["files"][0]["text"].encode())["Label"] == "io.rollcall.agent"
    assert list((launchd.folder / "daemons").iterdir()) == []
    assert plan_uninstall(mac(launchd)).commands[0] == ("launchctl", "bootout", WATCHDOG)


def test_openclaws_own_job_gets_a_wrapper_and_a_word_on_it(
    launchd: Launchd, layout: Layout
) -> None:
    domain = f'domain = "gui/{ME}"'
    made = plan(
        mac(launchd, ME), layout, f'kind = "launchd"\nlabel = "ai.openclaw.gateway"\n{domain}'
    )
    wrapper = made.files[0]
    assert wrapper.path == layout.home / "bin" / "openclaw-gateway"
    assert f"{layout.current}/node_modules/.bin/openclaw" in wrapper.data.decode()
    assert "ROLLCALL_CHILD_OF" not in wrapper.data.decode()
    assert f"--wrapper '{wrapper.path}'" in made.hints[0]
    assert plan(mac(launchd, ME), layout, f'kind = "launchd"\n{domain}').hints == ()


def test_a_wrapper_hands_every_word_on_and_expands_nothing(tmp_path: Path) -> None:
    node = tmp_path / "no de"
    node.write_text('#!/bin/sh\nprintf "%s\\n" "$SAID" "$@"\n')
    node.chmod(0o755)
    wrapper = tmp_path / "wrapper"
    env = {"SAID": "it's $HOME `id`"}
    wrapper.write_bytes(wrapper_script(node, tmp_path / "$current", env))
    wrapper.chmod(0o755)
    done = subprocess.run(
        [str(wrapper), "gateway", "a b", "$x"], capture_output=True, text=True, check=True
    )
    entry = f"{tmp_path}/$current/node_modules/.bin/openclaw"
    assert done.stdout.splitlines() == ["it's $HOME `id`", entry, "gateway", "a b", "$x"]


def reasons(host: Host, layout: Layout, launcher: Path) -> str:
    return "; ".join(str(each) for each in obstacles(host, layout, launcher))


@needs_root
def test_what_stands_in_the_way_is_named(launchd: Launchd, layout: Layout, tmp_path: Path) -> None:
    host, launcher = mac(launchd), layout.home / "launcher"
    assert reasons(host, layout, launcher) == ""
    assert "sudo" in reasons(replace(host, euid=501), layout, launcher)
    assert "no launchctl" in reasons(replace(host, launchctl=None), layout, launcher)
    assert "joined no fleet" in reasons(host, Layout(tmp_path), launcher)
    assert "--launcher" in reasons(host, layout, Path("launcher"))
    assert "--launcher" in reasons(host, layout, Path(sys.executable)), "Login Items show its name"
    assert "--launcher" in reasons(host, layout, layout.home / "none")
    launcher.chmod(0o775)
    assert "others than root may change" in reasons(host, layout, launcher)
    launcher.chmod(0o644)
    assert "chmod 755" in reasons(host, layout, launcher)
    launcher.chmod(0o755)
    os.chown(launcher, 65534, 65534)
    assert "others than root may change" in reasons(host, layout, launcher)


def test_sharing_the_home_leaves_the_launcher_a_program(layout: Layout) -> None:
    layout.share()
    assert os.access(layout.home / "launcher", os.X_OK)
    assert layout.config.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def watched(launchd: Launchd) -> Watchdog:
    plist = launchd.folder / "io.rollcall.agent.plist"
    job = {"Label": "io.rollcall.agent", "ProgramArguments": ["/bin/sleep", "300"]}
    plist.write_bytes(plistlib.dumps({**job, "KeepAlive": True}))
    return Watchdog(launchd.launchctl, "io.rollcall.agent", plist, domain=f"gui/{ME}")


def test_the_watchdog_needs_nothing_but_the_standard_library() -> None:
    """What is wrong with the agent's environment must not be wrong with this too."""
    words = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import agent.hosting.watchdog"
    subprocess.run([sys.executable, "-I", "-S", "-c", words], timeout=30, check=True)


def test_the_watchdog_brings_back_what_launchd_lost(launchd: Launchd, watched: Watchdog) -> None:
    target = f"gui/{ME}/io.rollcall.agent"
    first = watched.look_after()
    assert (first.action, first.detail) == ("started", "it was not loaded")
    assert watched.look_after() == Watched("running", "running", first.pid)
    launchd.run("disable", target)
    launchd.run("bootout", target)
    assert first.pid is not None
    again = watched.look_after()
    assert again.action in ("started", "running")
    while watched.look_after().pid == first.pid:
        pass
    final = watched.look_after()
    assert (final.action, final.pid == first.pid) == ("running", False)
    assert f"enable {target} -> 0" in launchd.calls()


def test_the_watchdog_leaves_a_throttled_agent_to_launchd(
    launchd: Launchd, watched: Watchdog
) -> None:
    launchd.turn(throttle_scale=1.0)
    first = watched.look_after()
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    while (found := watched.look_after()).action == "running":
        pass
    assert found.action == "scheduled"


def test_the_watchdog_kickstarts_what_is_loaded_and_does_not_run(
    launchd: Launchd, tmp_path: Path
) -> None:
    plist = tmp_path / "a.plist"
    plist.write_bytes(plistlib.dumps({"Label": "a", "ProgramArguments": ["/bin/sleep", "300"]}))
    launchd.run("bootstrap", f"gui/{ME}", str(plist))
    found = Watchdog(launchd.launchctl, "a", plist, domain=f"gui/{ME}").look_after()
    assert (found.action, found.detail) == ("started", "it was not running")


def test_the_watchdog_says_when_it_cannot(launchd: Launchd, tmp_path: Path) -> None:
    gone = Watchdog(launchd.launchctl, "a", tmp_path / "none.plist").look_after()
    assert (gone.action, gone.well) == ("not-installed", True)
    plist = tmp_path / "a.plist"
    plist.write_text("")
    launchd.turn(sessions=[])
    for program in (launchd.launchctl, tmp_path / "nothing", Path("/bin/false")):
        found = Watchdog(program, "a", plist, domain="gui/4242").look_after()
        assert (found.action, found.well) == ("failed", False)
    note(tmp_path, found)
    line = json.loads((tmp_path / "watchdog.log").read_text())
    assert line["action"] == "failed"


async def choose(layout: Layout, host: Host, service: str, account: Account | None = None) -> Any:
    config = await asyncio.to_thread(configure, layout, service)
    return await choose_service(config, layout, account, SystemClock(), lambda: None, host)


async def test_the_keeper_is_what_agent_toml_names(
    launchd: Launchd, systemd: Systemd, layout: Layout
) -> None:
    assert isinstance(await choose(layout, mac(launchd), ""), ProcessService)
    assert isinstance(await choose(layout, mac(launchd), 'kind = "launchd"'), SupervisedService)
    assert isinstance(await choose(layout, linux(systemd), 'kind = "systemd"'), SupervisedService)


@pytest.mark.parametrize(
    ("service", "euid", "said"),
    [
        ('kind = "systemd"', 0, "no systemctl"),
        ('kind = "launchd"\ndomain = "gui/77"', 0, 'set service.domain = "gui/0"'),
        ('kind = "launchd"', 501, 'service.domain = "gui/501"'),
    ],
)
async def test_what_this_host_or_agent_cannot_do_is_said(
    launchd: Launchd, layout: Layout, service: str, euid: int, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        await choose(layout, mac(launchd, euid), service)


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ('kind = "lauchd"', "service.kind"),
        ('label = "x"', "label means nothing where kind is process"),
        ('kind = "systemd"\ndomain = "system"', "domain means nothing where kind is systemd"),
        ('kind = "systemd"\nplist = "/x"', "plist means nothing"),
        ('kind = "launchd"\nlabel = "ai.openclaw.gateway"', "gui/<uid>"),
        ('kind = "launchd"\ndomain = "gui/fleet"', "service.domain"),
        ('kind = "launchd"\nlabel = "a/b"', "service.label"),
        ('kind = "launchd"\nplist = "a.plist"', "not an absolute path"),
        ('kind = "launchd"\ndomains = "system"', "nearest known key is 'domain'"),
    ],
)
def test_contradictions_in_agent_toml_are_named(layout: Layout, service: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        configure(layout, service)


async def test_a_gateway_that_the_agent_kept_itself_makes_room(
    launchd: Launchd, layout: Layout
) -> None:
    """Otherwise it would hold the port against the one that launchd starts."""
    before = await choose(layout, mac(launchd, ME), "")
    spec = ServiceSpec(SLEEPER, {}, layout.home, layout.logs / "gateway.log")
    old = await before.start(spec)
    after = await choose(layout, mac(launchd, ME), f'kind = "launchd"\ndomain = "gui/{ME}"')
    assert await after.alive() is None
    assert await before.alive() is None
    assert not psutil.pid_exists(old.pid)


def test_the_command_prints_its_plan(layout: Layout) -> None:
    layout.config.write_text(
        layout.config.read_text().replace("[openclaw]", 'user = "root"\n[openclaw]', 1)
        if ME == 0
        else layout.config.read_text()
    )
    words = ["install", "--home", str(layout.home), "--dry-run", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "agent", *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["files"][0]["path"].endswith("rollcall-agent.service")
    assert shown["commands"][0] == ["systemctl", "daemon-reload"]
