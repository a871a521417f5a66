"""Hatch's build hook: a wheel carries the scripts of the admin page, and those that are not there are fetched first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FETCHED = Path("coordinator", "page", "static", "fetched")
NAMES = ("htmx.min.js", "hx-sse.min.js")


class PageScripts(BuildHookInterface[Any]):
    """An editable install is of a checkout, which fetches them when it needs them. Without npm there is a wheel all
    the same: agents draw no page, and it works without scripts."""

    def initialize(self, version: str, _: dict[str, Any]) -> None:
        root = Path(self.root)
        if version == "editable" or all((root / FETCHED / name).exists() for name in NAMES):
            return
        done = subprocess.run([sys.executable, "-m", "scripts.pagescripts"], cwd=root, check=False)
        if done.returncode:
            self.app.display_warning(
                "this wheel's admin page has no scripts: `python -m scripts.pagescripts`, then build it again"
            )
