"""Verification of a whole tree against its lock and seal, beside merely reading it.

The tree is the real OpenClaw's, staged once as the agent does it. Every side runs once unmeasured, so
that all read from the page cache; then the order turns with each round. Ours is `verify_tree` as the
`verified` phase calls it, in a process of its own. Beside it stand:

- `tree_vs_read`: the same walk in Python, one thread, `open` and `read` of every file, nothing looked at
  or hashed. Both count from the first directory to the last byte, not the interpreter's start.
- `tree_vs_raw_read`: the same with bare descriptors, the least that Python can do.
- `tree_vs_cat`: `find` and `cat`, which are C, into /dev/null, with their start.
- `tree_vs_npm_ls`: `npm ls --all`, which looks at every package.json and at no other file.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from agent.openclaw.tree import LOCK, seal_tree
from scripts.benchmarks.frame import Options, Sample
from scripts.minifleet.workspace import Workspace
from shared.command import run_command
from shared.errors import RollcallError
from shared.npm import NodeTools, Npm, find_tools
from shared.terminal import say

VERSION = "2026.9.6"
RELEASE = "b" * 64
ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 300.0
RIVALS = {
    "tree_vs_read": "read",
    "tree_vs_raw_read": "raw",
    "tree_vs_cat": "cat",
    "tree_vs_npm_ls": "npm ls",
}


@dataclass(frozen=True)
class Sides:
    """Each method is one run of one side; seconds."""

    workspace: Workspace
    tools: NodeTools
    tree: Path
    lock_sha256: str

    def all(self) -> dict[str, Callable[[], Awaitable[float]]]:
        return {
            "ours": self.ours,
            "read": lambda: self.read("file"),
            "raw": lambda: self.read("raw"),
            "cat": self.cat,
            "npm ls": self.npm_ls,
        }

    async def ours(self) -> float:
        module = "scripts.benchmarks.verifying"
        return await self._said("-m", module, str(self.tree), RELEASE, self.lock_sha256)

    async def read(self, how: str) -> float:
        floor = Path(__file__).with_name("reading.py")
        return await self._said("-I", "-S", str(floor), str(self.tree), how)

    async def cat(self) -> float:
        return await asyncio.to_thread(self._cat)

    async def npm_ls(self) -> float:
        argv = [str(self.tools.node), str(self.tools.npm_cli), "ls", "--all"]
        env = self.tools.environment(self.workspace.scratch)
        done = await run_command(argv, env=env, timeout_s=LIMIT_S, cwd=self.tree)
        if done.code != 0:
            raise RollcallError(f"npm ls --all failed: {done.last_line()}")
        return done.seconds

    async def _said(self, *words: str) -> float:
        argv = [sys.executable, *words]
        env = self.workspace.environment()
        done = await run_command(argv, env=env, timeout_s=LIMIT_S, cwd=ROOT)
        if done.code != 0:
            raise RollcallError(f"{words[-3]} failed: {done.last_line()}")
        return float(done.stdout)

    def _cat(self) -> float:
        began = time.perf_counter()
        with subprocess.Popen(
            ["find", str(self.tree), "-type", "f", "-print0"], stdout=subprocess.PIPE
        ) as find:
            subprocess.run(
                ["xargs", "-0", "cat"], stdin=find.stdout, stdout=subprocess.DEVNULL, check=True
            )
        return time.perf_counter() - began


async def run(options: Options) -> list[Sample]:
    workspace = Workspace()
    try:
        say(f"installing OpenClaw {VERSION}")
        sides = await _prepare(workspace)
        turns = sides.all()
        for side in turns.values():
            await side()
        samples: list[Sample] = []
        for number in range(1, options.rounds + 1):
            names = list(turns) if number % 2 else list(reversed(turns))
            took = {name: await turns[name]() for name in names}
            shown = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in took.items())
            say(f"round {number} of {options.rounds}: {shown}")
            samples += [
                Sample(figure, took["ours"], took[rival], "s") for figure, rival in RIVALS.items()
            ]
        return samples
    finally:
        await asyncio.to_thread(workspace.remove)


async def _prepare(workspace: Workspace) -> Sides:
    tools = replace(find_tools(), cache=Path.home() / ".npm")
    npm, tree = Npm(tools), workspace.root / "tree"
    tree.mkdir()
    wanted = {"private": True, "dependencies": {"openclaw": VERSION}}
    (tree / "package.json").write_text(json.dumps(wanted))
    await npm.lock(tree)
    await npm.install_locked(tree)
    await npm.run_scripts(tree, ["openclaw"])
    shutil.copyfile(tree / "package-lock.json", tree / LOCK)
    seal = await asyncio.to_thread(seal_tree, tree, RELEASE, [])
    say(f"{seal.files} files, {seal.bytes >> 20} MiB")
    return Sides(workspace, tools, tree, hashlib.sha256((tree / LOCK).read_bytes()).hexdigest())
