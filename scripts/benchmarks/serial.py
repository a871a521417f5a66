"""Ansible's side of `rollout`: hosts on this machine, moved by a playbook with `serial: 1`."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from scripts.benchmarks.moving import LOOK_S, Moved
from scripts.minifleet.packages import pack_standin
from scripts.minifleet.ports import free_port
from scripts.minifleet.workspace import Workspace
from shared.command import run_command
from shared.errors import RollcallError
from shared.npm import Npm, find_tools

PLAYBOOK = Path(__file__).with_name("rollout.yml")
NOTHING = Path(__file__).with_name("nothing.yml")
TIMED = Path(__file__).with_name("timed.py")
LIMIT_S = 900.0
_TASK = re.compile(r"^TASK \[([a-z]+)\]")
_DELTA = re.compile(r'"delta": "(\d+):(\d\d):(\d\d\.\d+)"')


def deltas(printed: str) -> dict[str, float]:
    """Seconds that each task's commands ran, on all hosts together, as `ansible-playbook -v` says them."""
    found: dict[str, float] = {}
    task = ""
    for line in printed.splitlines():
        if begins := _TASK.match(line):
            task = begins[1]
        for hours, minutes, seconds in _DELTA.findall(line):
            ran = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
            found[task] = found.get(task, 0.0) + ran
    return found


async def play(
    workspace: Workspace, root: Path, playbook: Path, *words: str
) -> tuple[float, dict[str, float]]:
    """Seconds in all, and those of the commands. Raises RollcallError unless every host is through."""
    env = {
        **workspace.environment(),
        "ANSIBLE_LOCAL_TEMP": str(root / "tmp"),
        "ANSIBLE_REMOTE_TEMP": str(root / "tmp"),
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_GATHERING": "explicit",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_STDOUT_CALLBACK": "default",
    }
    argv = ["ansible-playbook", "-v", "-i", str(root / "hosts"), str(playbook), *words]
    began = time.monotonic()
    done = await run_command(argv, env=env, timeout_s=LIMIT_S, cwd=root)
    total = time.monotonic() - began
    printed = done.stdout.decode("utf-8", "replace")
    if done.code != 0:
        raise RollcallError(f"ansible-playbook failed ({done.code}): {printed[-600:]}")
    return total, deltas(printed)


class Hosts:
    def __init__(self, workspace: Workspace, size: int) -> None:
        self._workspace, self._size = workspace, size
        self._root = workspace.root / "ansible"
        self._root.mkdir()
        self._tools = find_tools()

    async def move(self, version: str) -> Moved:
        words = ("-e", f"new={self._root / version}", "-e", f"version={version}")
        before, _ = await play(self._workspace, self._root, PLAYBOOK, *words, "--list-tasks")
        total, work = await play(self._workspace, self._root, PLAYBOOK, *words)
        return Moved(total - before, work, {"before": before})

    async def prepare(self, versions: list[str]) -> None:
        """A tree of each version, locked; the first one installed, and its gateway up on every host."""
        root, npm = self._root, Npm(self._tools)
        for version in versions:
            tree = root / version
            tree.mkdir()
            tarball = await pack_standin(npm, version, root)
            wanted = {"private": True, "dependencies": {"openclaw": f"file:{tarball}"}}
            (tree / "package.json").write_text(json.dumps(wanted))
            await npm.lock(tree)
        await npm.install_locked(root / versions[0])
        lines = [await self._host(f"n{number}", root / versions[0]) for number in range(self._size)]
        common = {
            "node": self._tools.node,
            "npm": self._tools.npm_cli,
            "timed": TIMED,
            "apart": LOOK_S,
        }
        write_hosts(root, lines, {name: str(value) for name, value in common.items()})

    async def _host(self, name: str, tree: Path) -> str:
        home, port = self._root / name, free_port()
        (home / ".openclaw").mkdir(parents=True)
        gateway = {"mode": "local", "port": port, "auth": {"mode": "token", "token": "t" * 32}}
        (home / ".openclaw" / "openclaw.json").write_text(json.dumps({"gateway": gateway}))
        (home / "current").symlink_to(tree)
        argv = [sys.executable, str(TIMED), "start", str(self._tools.node)]
        argv += [str(home / "current"), str(home), str(port)]
        env = {**self._workspace.environment(), "HOME": str(home)}
        done = await run_command(argv, env=env, timeout_s=60)
        if done.code != 0:
            raise RollcallError(f"a gateway did not start: {done.last_line()}")
        return f"{name} home={home} port={port}"


def write_hosts(root: Path, lines: list[str], common: dict[str, str]) -> None:
    shared = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        **common,
    }
    words = ["[nodes]", *lines, "[nodes:vars]"]
    words += [f"{name}={value}" for name, value in shared.items()]
    (root / "hosts").write_text("\n".join(words) + "\n")


@asynccontextmanager
async def ansible(size: int, versions: list[str]) -> AsyncIterator[Hosts]:
    """So many hosts, whose gateways run the first of these versions."""
    workspace = Workspace()
    try:
        hosts = Hosts(workspace, size)
        await hosts.prepare(versions)
        yield hosts
    finally:
        await asyncio.to_thread(workspace.remove)


async def play_nothing(size: int, sample: int) -> Moved:
    """As many tasks as a move has, on hosts where they do nothing. What a host of the sample took is taken for every
    other one."""
    workspace = Workspace()
    root = workspace.root
    try:
        write_hosts(root, [f"n{number}" for number in range(size)], {})
        before, _ = await play(workspace, root, NOTHING, "--list-tasks")
        some, work = await play(workspace, root, NOTHING, "--limit", f"nodes[0:{sample - 1}]")
    finally:
        await asyncio.to_thread(workspace.remove)
    each = (some - before - sum(work.values())) / sample
    return Moved(size * each, other_s={"before": before, "sample": some})
