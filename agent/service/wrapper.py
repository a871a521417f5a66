"""The program that OpenClaw's own LaunchAgent runs: a file that never changes and leads through `current`.

`gateway install` otherwise writes the versioned path into the plist (OPENCLAW.md, law 6 and section 4).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from agent.openclaw.cli import entry_point

WRAPPER_MODE = 0o755


def wrapper_script(node: Path, current: Path, env: Mapping[str, str]) -> bytes:
    """`sh`, because launchd executes it and OpenClaw hands it words; nothing in it is expanded. What the
    environment is set to here is set last, after OpenClaw's own file of it."""
    lines = [
        "#!/bin/sh",
        "# Written by rollcall-agent install. OpenClaw's LaunchAgent starts it; it never changes.",
        *(f"export {name}={shlex.quote(value)}" for name, value in sorted(env.items())),
        f'exec {shlex.quote(str(node))} {shlex.quote(str(entry_point(current)))} "$@"',
    ]
    return ("\n".join(lines) + "\n").encode()
