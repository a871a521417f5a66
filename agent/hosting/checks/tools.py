"""Node, npm, and the interpreter that runs the agent (OPENCLAW.md, 6.8 and 6.9; MACOS.md, 3 and 14)."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

from agent.hosting.finding import Finding, Subject, passed, unknown
from shared.command import Output, run_command
from shared.errors import CommandError
from shared.npm import NodeTools
from shared.readiness import CheckStatus
from shared.scratch import make_scratch

RUN_TIMEOUT_S = 60.0
MANAGERS = {
    ".nvm": "nvm",
    ".volta": "Volta",
    ".fnm": "fnm",
    "fnm_multishells": "fnm",
    ".asdf": "asdf",
    ".local/share/mise": "mise",
    "Cellar": "Homebrew",
}
"""A part of a path, and who may delete or replace what lies under it."""


async def look(subject: Subject) -> list[Finding]:
    found = [judge_interpreter(Path(sys.executable), Path(sys.base_prefix), subject.home)]
    if subject.config is None:
        return [*found, unknown("node.runs", "agent.toml cannot be used")]
    tools = subject.config.openclaw.tools(subject.layout, subject.account)
    path = await asyncio.to_thread(judge_node_path, tools.node)
    return [*found, *await _runs(subject, tools), path]


async def _runs(subject: Subject, tools: NodeTools) -> list[Finding]:
    parent = subject.layout.scratch if subject.layout.scratch.is_dir() else None
    home = await asyncio.to_thread(make_scratch, parent, tools.account, None)
    try:
        node = await _version("node.runs", tools, home, [str(tools.node), "--version"])
        words = [str(tools.node), str(tools.npm_cli), "--version"]
        return [node, await _version("npm.runs", tools, home, words)]
    finally:
        await asyncio.to_thread(shutil.rmtree, home, True)


async def _version(name: str, tools: NodeTools, home: Path, argv: list[str]) -> Finding:
    key = "openclaw.node" if name == "node.runs" else "openclaw.npm"
    remedy = f"set {key} in agent.toml to one that runs"
    try:
        output: Output = await run_command(
            argv,
            env=tools.environment(home),
            timeout_s=RUN_TIMEOUT_S,
            cwd=home,
            account=tools.account,
        )
    except CommandError as error:
        return Finding(name, CheckStatus.FAIL, argv[-2], str(error), remedy)
    if output.code != 0:
        how = "did not end" if output.timed_out else f"ended with {output.code}"
        return Finding(name, CheckStatus.FAIL, argv[-2], f"it {how}: {output.last_line()}", remedy)
    return passed(name, f"{output.stdout.decode('utf-8', 'replace').strip()[:40]}, {argv[-2]}")


def judge_node_path(node: Path) -> Finding:
    """By the named path and by what it leads to: `/opt/homebrew/bin/node` is a link into the Cellar."""
    for path in (node, node.resolve()):
        owner = owner_of(path)
        if owner is not None:
            return Finding(
                "node.path",
                CheckStatus.WARN,
                str(path),
                f"{owner} replaces or removes it when it updates: the gateway then does not start, and"
                " macOS forgets what it was allowed",
                "one fixed Node of its own, such as the official package's /usr/local/bin/node",
            )
    return passed("node.path", str(node))


def judge_interpreter(executable: Path, prefix: Path, home: Path) -> Finding:
    """`prefix` is where the Python under a virtual environment lies: that is what must not go away."""
    owner = owner_of(prefix) or ("Homebrew" if "homebrew" in str(prefix).lower() else None)
    if owner is not None:
        return Finding(
            "python.private",
            CheckStatus.WARN,
            str(prefix),
            f"{owner} deletes this Python when it upgrades it, and the agent with it",
            "install the agent with a private Python, such as uv's or one of python.org's",
        )
    return passed("python.private", f"{executable}, of {prefix}")


def owner_of(path: Path) -> str | None:
    text = f"{path}/"
    return next((name for part, name in MANAGERS.items() if f"/{part}/" in text), None)
