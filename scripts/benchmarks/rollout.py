"""Orchestration time of three nodes beyond the work itself, beside Ansible with `serial: 1`.

Both move three gateways of the stand-in from 2026.7.35 to 2026.9.6, one at a time, without a soak.
From each total the same work is taken out: installs and gateway starts. What stays is the price of
being orchestrated: for ours it includes verifying every file, proving, and the peers' attestations.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from scripts.benchmarks.frame import Sample
from scripts.debian import need
from scripts.minifleet.fleet import STANDIN, MiniFleet
from scripts.minifleet.packages import pack_standin
from scripts.minifleet.report import overhead
from scripts.minifleet.workspace import Workspace
from shared.command import run_command
from shared.errors import RollcallError
from shared.npm import NodeTools
from shared.ports import free_port
from shared.terminal import say

FIGURES = ("overhead_n3_vs_ansible",)
OLD, NEW = "2026.7.35", "2026.9.6"
PLAYBOOK = Path(__file__).with_name("rollout.yml")
TIMED = Path(__file__).with_name("timed.py")
LIMIT_S = 600.0


async def run_round() -> list[Sample]:
    need("ansible-playbook", "ansible-core")
    fleet = MiniFleet(Workspace(), STANDIN, standin=True, mdns=False)
    try:
        ours = await _ours(fleet)
        say(f"  ours {ours:.2f} s")
        rival = await _ansible(fleet)
        say(f"  ansible {rival:.2f} s")
    finally:
        await fleet.close()
    return [Sample("overhead_n3_vs_ansible", ours, rival, "s")]


async def _ours(fleet: MiniFleet) -> float:
    await fleet.open()
    await fleet.install(OLD)
    new = await fleet.freeze(NEW)
    view = await fleet.until_ended(await fleet.set_target(new, strategy="rolling", soak_s=0))
    seconds = overhead(view.rollout, view.nodes)
    if view.rollout is None or view.rollout.state != "succeeded" or seconds is None:
        raise RollcallError("our rollout did not succeed")
    return seconds


async def _ansible(fleet: MiniFleet) -> float:
    """The playbook's total, less what `timed.py` wrote down for installs and starts."""
    root = fleet.root / "ansible"
    root.mkdir()
    await _prepare(fleet, root)
    env = {
        **os.environ,
        "ANSIBLE_LOCAL_TEMP": str(root / "tmp"),
        "ANSIBLE_REMOTE_TEMP": str(root / "tmp"),
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_GATHERING": "explicit",
        "ANSIBLE_NOCOLOR": "1",
    }
    began = time.monotonic()
    done = await run_command(
        ["ansible-playbook", "-i", str(root / "hosts"), str(PLAYBOOK)],
        env=env,
        timeout_s=LIMIT_S,
        cwd=root,
    )
    total = time.monotonic() - began
    if done.code != 0:
        raise RollcallError(f"ansible-playbook failed: {done.stdout.decode()[-600:]}")
    work = sum(float(line) for line in (root / "timed.log").read_text().split())
    return max(0.0, total - work)


async def _prepare(fleet: MiniFleet, root: Path) -> None:
    """Three hosts with the old tree installed and its gateway up, outside the measured time."""
    for version in (OLD, NEW):
        tree = root / version
        tree.mkdir()
        tarball = fleet.packages / f"openclaw-{version}.tgz"
        if not tarball.exists():
            tarball = await pack_standin(fleet.npm, version, root)
        wanted = {"private": True, "dependencies": {"openclaw": f"file:{tarball}"}}
        (tree / "package.json").write_text(json.dumps(wanted))
        await fleet.npm.lock(tree)
    await fleet.npm.install_locked(root / OLD)
    tools: NodeTools = fleet.tools
    lines = ["[nodes]"]
    for number in range(3):
        home, port = root / f"n{number}", free_port()
        (home / ".openclaw").mkdir(parents=True)
        gateway = {"mode": "local", "port": port, "auth": {"mode": "token", "token": "t" * 32}}
        (home / ".openclaw" / "openclaw.json").write_text(json.dumps({"gateway": gateway}))
        (home / "current").symlink_to(root / OLD)
        await _start(fleet, root, home, port)
        lines.append(f"n{number} home={home} port={port}")
    lines += [
        "[nodes:vars]",
        "ansible_connection=local",
        f"ansible_python_interpreter={sys.executable}",
        f"root={root}",
        f"new={root / NEW}",
        f"node={tools.node}",
        f"npm={tools.npm_cli}",
        f"timed={TIMED}",
    ]
    (root / "hosts").write_text("\n".join(lines) + "\n")


async def _start(fleet: MiniFleet, root: Path, home: Path, port: int) -> None:
    env = {**fleet.workspace.environment(), "HOME": str(home)}
    argv = [sys.executable, str(TIMED), "start", str(root / "setup.log"), str(fleet.tools.node)]
    done = await run_command([*argv, str(home), str(port)], env=env, timeout_s=60)
    if done.code != 0:
        raise RollcallError(f"a gateway did not start: {done.last_line()}")
