"""What preflight says: of this very host, of emulated service managers, and of readings made up."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import plistlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.hosting.checks import disk, network, tools
from agent.hosting.checks.network import Dial
from agent.hosting.finding import Finding
from agent.hosting.preflight import necessary_missing, preflight
from agent.layout import Layout
from agent.service.host import Host
from scripts.minifleet.ports import free_port
from shared.npm import find_tools
from shared.readiness import CheckStatus
from tests.support.launchd.emulator import Launchd

ME = os.geteuid()
LAN = [ipaddress.IPv4Interface("192.168.7.5/24")]
IDS = {"id", "status", "observed", "reason", "remedy"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "gateway").mkdir(parents=True)
    return home


def configure(home: Path, service: str = "", peers: str = "", node: str | None = None) -> Layout:
    found = find_tools()
    user = 'user = "root"' if ME == 0 else ""
    (home / "agent.toml").write_text(
        f"""
[gateway]
home = "{home / "gateway"}"
port = 18789
{user}
[openclaw]
node = "{node or found.node}"
npm = "{found.npm_cli}"
[peers]
mdns = false
{peers}
[service]
{service}
"""
    )
    return Layout(home)


def host(launchd: Launchd | None = None, tmp_path: Path = Path("/nowhere")) -> Host:
    launchctl = launchd.launchctl if launchd is not None else None
    return Host("linux", launchctl, None, tmp_path / "daemons", tmp_path / "units", ME)


def by_id(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.id: finding for finding in findings}


async def test_a_host_with_everything_has_nothing_necessary_missing(home: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        layout = configure(home, peers=f'static = ["b=127.0.0.1:{port}", "c=127.0.0.1:1"]')
        found = by_id(await preflight(host(), layout))
    assert not necessary_missing(list(found.values())), found
    for name in ("agent.config", "node.runs", "npm.runs", "disk.space", "disk.sync", "net.peers"):
        assert found[name].status is CheckStatus.PASS, found[name]
    assert found["node.runs"].observed.startswith("v2")
    assert found["net.peers"].observed == "2 of 2 answered", "a refused connection is an answer"
    assert found["disk.clone"].status in (CheckStatus.PASS, CheckStatus.WARN)
    assert not list(home.glob(".preflight-*"))


async def test_a_node_that_does_not_run_fails_with_its_key(home: Path, tmp_path: Path) -> None:
    broken = tmp_path / "node"
    broken.write_text("#!/bin/sh\necho cannot >&2\nexit 3\n")
    broken.chmod(0o755)
    found = by_id(await preflight(host(), configure(home, node=str(broken))))
    assert found["node.runs"].status is CheckStatus.FAIL
    assert "ended with 3: cannot" in found["node.runs"].reason
    assert "openclaw.node" in found["node.runs"].remedy
    missing = by_id(await preflight(host(), configure(home, node=str(tmp_path / "none"))))
    assert missing["node.runs"].status is CheckStatus.FAIL


async def test_without_agent_toml_the_rest_is_still_looked_at(home: Path) -> None:
    found = by_id(await preflight(host(), Layout(home)))
    assert found["agent.config"].status is CheckStatus.FAIL
    assert found["disk.sync"].status is CheckStatus.PASS
    assert found["net.peers"].status is CheckStatus.UNKNOWN


async def test_booted_without_a_session(home: Path, launchd: Launchd) -> None:
    launchd.turn(sessions=[])
    layout = configure(home, f'kind = "launchd"\ndomain = "gui/{ME}"')
    found = by_id(await preflight(host(launchd), layout))
    assert found["gateway.domain"].status is CheckStatus.FAIL
    assert found["gateway.domain"].observed == "booted, no session"
    assert "log in" in found["gateway.domain"].remedy
    launchd.turn(sessions=[ME])
    found = by_id(await preflight(host(launchd), layout))
    assert found["gateway.domain"].status is CheckStatus.PASS


async def test_jobs_that_somebody_switched_off(home: Path, launchd: Launchd) -> None:
    layout = configure(home, f'kind = "launchd"\ndomain = "gui/{ME}"')
    launchd.run("disable", f"gui/{ME}/io.rollcall.gateway")
    launchd.run("disable", "system/io.rollcall.agent")
    found = by_id(await preflight(host(launchd), layout))
    assert found["gateway.override"].status is CheckStatus.WARN
    assert "launchctl enable" in found["gateway.override"].remedy
    assert found["agent.job"].status is CheckStatus.FAIL
    assert "Login Items" in found["agent.job"].reason


async def test_a_plist_of_openclaws_that_names_a_version(home: Path, launchd: Launchd) -> None:
    """An upgrade would flip the link and start the old release again (OPENCLAW.md, law 6)."""
    plist = home / "ai.openclaw.gateway.plist"
    layout = configure(
        home,
        f'kind = "launchd"\nlabel = "ai.openclaw.gateway"\ndomain = "gui/{ME}"\nplist = "{plist}"',
    )

    async def said(words: list[str] | None) -> Finding:
        if words is not None:
            job = {"Label": "ai.openclaw.gateway", "ProgramArguments": words}
            plist.write_bytes(plistlib.dumps(job))
        return by_id(await preflight(host(launchd), layout))["gateway.plist"]

    assert (await said(None)).status is CheckStatus.FAIL
    fixed = "/opt/oc/2026.9.6/lib/node_modules/openclaw/dist/index.js"
    bad = await said(["/bin/sh", "env", "node", fixed, "gateway"])
    assert (bad.status, bad.observed) == (CheckStatus.FAIL, fixed)
    assert "--wrapper" in bad.remedy
    good = await said(["/bin/sh", "env", str(home / "bin" / "openclaw-gateway"), "gateway"])
    assert good.status is CheckStatus.PASS


async def test_a_domain_that_is_another_users(home: Path, launchd: Launchd) -> None:
    layout = configure(home, f'kind = "launchd"\ndomain = "gui/{ME + 4242}"')
    found = by_id(await preflight(host(launchd), layout))
    assert found["gateway.domain"].status is CheckStatus.FAIL
    assert f"gui/{ME}" in found["gateway.domain"].remedy


async def test_launchd_on_a_host_without_launchctl(home: Path) -> None:
    found = by_id(await preflight(host(), configure(home, 'kind = "launchd"')))
    assert found["service.manager"].status is CheckStatus.FAIL


def dial(peer: str, host: str, code: int | None, seconds: float = 0.01) -> Dial:
    return Dial(peer, host, code, seconds)


@pytest.mark.parametrize(
    ("dials", "from_terminal", "status", "observed"),
    [
        ([dial("b", "192.168.7.9", errno.EHOSTUNREACH)], False, CheckStatus.FAIL, "blocked"),
        ([dial("b", "b.local", errno.EHOSTUNREACH)], False, CheckStatus.FAIL, "blocked"),
        ([dial("b", "192.168.7.9", errno.EHOSTUNREACH, 3.0)], False, CheckStatus.WARN, "empty"),
        ([dial("b", "10.9.9.9", errno.EHOSTUNREACH)], False, CheckStatus.WARN, "empty"),
        ([dial("b", "192.168.7.9", None, 4.0)], False, CheckStatus.WARN, "empty"),
        ([dial("b", "192.168.7.9", errno.EHOSTDOWN, 2.0)], False, CheckStatus.WARN, "empty"),
        (
            [dial("b", "192.168.7.9", errno.EHOSTUNREACH), dial("c", "192.168.7.8", 0)],
            False,
            CheckStatus.PASS,
            "1 of 2 answered",
        ),
        (
            [dial("b", "192.168.7.9", 0)],
            True,
            CheckStatus.UNKNOWN,
            "1 of 1 answered, from a terminal",
        ),
        ([], False, CheckStatus.UNKNOWN, ""),
    ],
)
def test_blocked_is_told_from_empty(
    dials: list[Dial], from_terminal: bool, status: CheckStatus, observed: str
) -> None:
    """MACOS.md, 1: at once and near means this host refuses; a check over SSH gives a false green."""
    found = network.judge_peers(dials, LAN, from_terminal=from_terminal)
    assert (found.status, found.observed) == (status, observed)


def test_a_peer_that_this_host_refuses_at_once_is_blocked_for_real() -> None:
    """A route that refuses, on a network of this host's own: what local network privacy looks like."""
    if ME != 0:
        pytest.skip("only root may set routes")
    near = "192.0.2.66"
    commands = (
        ["ip", "link", "add", "rollcall-pf0", "type", "veth", "peer", "name", "rollcall-pf1"],
        ["ip", "addr", "add", "192.0.2.1/24", "dev", "rollcall-pf0"],
        ["ip", "link", "set", "rollcall-pf0", "up"],
        ["ip", "route", "add", "unreachable", f"{near}/32"],
    )
    script = "; ".join(
        [
            "import asyncio, json, sys",
            "from pathlib import Path",
            "from agent.hosting.checks import network",
            "from agent.hosting.checks.network import _dial, judge_peers, own_networks",
            f"dial = asyncio.run(_dial('b', '{near}', 7465))",
            "found = judge_peers([dial], own_networks(), from_terminal=False)",
            "print(json.dumps(found.shown()))",
        ]
    )
    run = " && ".join(" ".join(each) for each in commands)
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", f'{run} && exec "$0" -c "$1"', sys.executable, script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"no network namespaces here: {done.stderr[-200:]}")
    assert json.loads(done.stdout)["observed"] == "blocked"


def test_interfaces_without_multicast_leave_static_peers() -> None:
    dead = {"10.0.0.1": "No such device"}
    judge = network.judge_multicast
    assert judge(dead, wanted=True, has_static=False).status is CheckStatus.FAIL
    assert judge(dead, wanted=True, has_static=True).status is CheckStatus.WARN
    assert judge(dead, wanted=False, has_static=False).status is CheckStatus.PASS
    assert judge({"10.0.0.1": ""}, wanted=True, has_static=False).status is CheckStatus.PASS
    assert network.multicast_addresses(["203.0.113.77"])["203.0.113.77"], "no such interface here"


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/Users/f/.nvm/versions/node/v24/bin/node", "nvm"),
        ("/Users/f/.volta/tools/image/node/24/bin/node", "Volta"),
        ("/Users/f/.local/state/fnm_multishells/1_2/bin/node", "fnm"),
        ("/opt/homebrew/Cellar/node/24.1/bin/node", "Homebrew"),
        ("/usr/local/bin/node", None),
        ("/opt/cellar-door/node", None),
    ],
)
def test_a_node_that_its_manager_may_take_away(path: str, owner: str | None) -> None:
    """OPENCLAW.md, 6.8 and 6.9."""
    found = tools.judge_node_path(Path(path))
    assert found.status is (CheckStatus.PASS if owner is None else CheckStatus.WARN)
    assert owner is None or owner in found.reason


def test_a_link_into_the_cellar_is_seen_through(tmp_path: Path) -> None:
    real = tmp_path / "Cellar" / "node" / "bin" / "node"
    real.parent.mkdir(parents=True)
    real.touch()
    link = tmp_path / "node"
    link.symlink_to(real)
    assert tools.judge_node_path(link).status is CheckStatus.WARN


def test_an_interpreter_of_homebrews_is_not_private() -> None:
    judge, home = tools.judge_interpreter, Path("/x")
    for prefix in ("/opt/homebrew/opt/python@3.11/Frameworks", "/usr/local/Cellar/python/3.11"):
        assert judge(home / "bin/python", Path(prefix), home).status is CheckStatus.WARN
    assert judge(home / "bin/python", Path("/x/python"), home).status is CheckStatus.PASS


def test_space_is_proved_and_not_believed(tmp_path: Path) -> None:
    disk.allocate(tmp_path / "a", 1 << 20, False)
    assert not (tmp_path / "a").exists()
    with pytest.raises(OSError, match=r"File too large|No space"):
        disk.allocate(tmp_path / "a", 1 << 60, False)
    assert disk.judge_space(1 << 30, "").status is CheckStatus.FAIL
    assert disk.judge_space(5 << 30, "").status is CheckStatus.WARN
    assert disk.judge_space(500 << 30, "").status is CheckStatus.PASS
    assert disk.judge_space(500 << 30, "refused").status is CheckStatus.FAIL


def test_clones_and_open_files(tmp_path: Path) -> None:
    why = disk.try_clone(tmp_path, False)
    finding = disk.judge_clone(why)
    assert finding.status is (CheckStatus.WARN if why else CheckStatus.PASS)
    assert disk.judge_files(256).status is CheckStatus.WARN
    assert disk.judge_files(4096).status is CheckStatus.PASS


def test_the_command_prints_a_list_and_exits_with_what_is_missing(home: Path) -> None:
    port = free_port()
    layout = configure(home, peers=f'static = ["b=127.0.0.1:{port}"]')
    done = run("preflight", "--home", str(layout.home), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    checks = json.loads(done.stdout)["checks"]
    assert all(set(check) == IDS for check in checks)
    (home / "agent.toml").write_text("[gateway\n")
    broken = run("preflight", "--home", str(layout.home), "--json")
    assert broken.returncode == 1
    config = json.loads(broken.stdout)["checks"][0]
    assert (config["id"], config["status"]) == ("agent.config", "fail")
    shown = run("preflight", "--home", str(layout.home))
    assert "agent.config" in shown.stdout
    assert "Traceback" not in shown.stderr


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
