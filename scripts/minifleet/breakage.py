"""Releases that turn out bad on one role. The badness is in the signed release, nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from scripts.minifleet.packages import pack_plugin
from shared.npm import Npm
from shared.release import EVERY_ROLE
from shared.roster import Role


class How(StrEnum):
    DOCTOR = "doctor"
    READY = "ready"
    LEAK = "leak"


@dataclass(frozen=True)
class Breakage:
    """What goes into the release besides OpenClaw."""

    overlay: dict[str, dict[str, Any]] = field(default_factory=dict)
    artifacts: dict[str, Path] = field(default_factory=dict)


_PLUGINS = {How.READY: "hang", How.LEAK: "leak"}


async def break_release(npm: Npm, role: Role, how: How, folder: Path) -> Breakage:
    """`doctor`: an overlay with a key that the new version refuses. `ready` and `leak`: a plugin that
    every node installs and that the overlay leaves enabled on one role."""
    if how is How.DOCTOR:
        return Breakage(overlay={role.value: {"rollcallDemo": {"unknown": "to every OpenClaw"}}})
    name = _PLUGINS[how]
    package = f"@rollcall/demo-{name}"
    tarball = await pack_plugin(npm, name, folder)

    def entry(enabled: bool) -> dict[str, Any]:
        return {"plugins": {"entries": {f"demo-{name}": {"enabled": enabled}}}}

    overlay = {EVERY_ROLE: entry(False), role.value: entry(True)}
    return Breakage(overlay=overlay, artifacts={package: tarball})
