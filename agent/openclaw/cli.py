"""OpenClaw's command line in one staged tree, with the environment of the gateway it serves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.command import Output, run_command
from shared.errors import CommandError
from shared.npm import NodeTools


def entry_point(tree: Path) -> Path:
    """npm's own link to the package's bin, whatever file that is."""
    return tree / "node_modules" / ".bin" / "openclaw"


@dataclass(frozen=True)
class OpenClaw:
    """Runs `openclaw …` of one tree on one gateway's home. All calls have a deadline (law 10)."""

    tools: NodeTools
    tree: Path
    home: Path
    program: tuple[str, ...] = ()
    """What runs it, where that is not Node on the tree's own entry point."""
    extra: tuple[tuple[str, str], ...] = ()
    """Names and values that go into its environment besides."""

    @property
    def state(self) -> Path:
        """Its state directory: another than usual where the environment says so, as in a rehearsal."""
        return Path(dict(self.extra).get("OPENCLAW_STATE_DIR", self.home / ".openclaw"))

    def argv(self, *words: str) -> list[str]:
        return [*(self.program or (str(self.tools.node), str(entry_point(self.tree)))), *words]

    def environment(self) -> dict[str, str]:
        own = {**self.tools.environment(self.home), "OPENCLAW_NO_AUTO_UPDATE": "1"}
        return {**own, **dict(self.extra)}

    async def run(self, *words: str, timeout_s: float) -> Output:
        return await run_command(
            self.argv(*words),
            env=self.environment(),
            timeout_s=timeout_s,
            cwd=self.home,
            account=self.tools.account,
        )

    async def run_json(self, *words: str, timeout_s: float) -> tuple[Output, dict[str, Any]]:
        """Run and parse stdout. Raises CommandError when it is late, fails, or prints no object."""
        output = await self.run(*words, timeout_s=timeout_s)
        what = f"openclaw {' '.join(words[:3])}"
        if output.timed_out:
            raise CommandError(f"{what} did not end within {timeout_s:.0f} s")
        value = first_object(output.stdout)
        if value is None:
            raise CommandError(f"{what} printed no JSON ({output.code}): {output.last_line()}")
        return output, value

    async def version(self) -> str:
        """What the staged package says of itself; proves nothing about a running gateway."""
        output = await self.run("--version", timeout_s=60)
        words = output.stdout.decode("utf-8", "replace").split()
        if output.code != 0 or not words:
            raise CommandError(f"openclaw --version failed: {output.last_line()}")
        return words[1] if words[0] == "OpenClaw" and len(words) > 1 else words[0]


def first_object(raw: bytes, *, tries: int = 50) -> dict[str, Any] | None:
    """The first JSON object in what a command printed; plugins may print noise before it."""
    text = raw.decode("utf-8", "replace")
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start >= 0 and tries:
        try:
            value, _ = decoder.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError):
            start = text.find("{", start + 1)
            tries -= 1
            continue
        return value if isinstance(value, dict) else None
    return None
