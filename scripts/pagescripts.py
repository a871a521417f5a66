"""Fetches the scripts of the admin page, once: `.venv/bin/python -m scripts.pagescripts`

htmx and its extension for streams come out of htmx's npm package, by a lock with hashes, into a folder that git leaves
out and the wheel takes in. Without them the page works as it does without JavaScript. axe-core, which the page's tests
ask for accessibility, comes along and stays in `build/page`.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

from shared.errors import RollcallError
from shared.npm import Npm, find_tools
from shared.terminal import say

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "scripts" / "locks" / "page"
PROJECT = ROOT / "build" / "page"
STATIC = ROOT / "coordinator" / "page" / "static" / "fetched"
TAKEN = ("htmx.org/dist/htmx.min.js", "htmx.org/dist/ext/hx-sse.min.js")
AXE = PROJECT / "node_modules" / "axe-core" / "axe.min.js"


async def fetch() -> None:
    """Does nothing when all is there as the lock has it. Raises RollcallError when npm cannot fetch it."""
    if await asyncio.to_thread(_is_there):
        return
    say("fetching the page's scripts with npm (once)")
    await asyncio.to_thread(_prepare)
    await Npm(find_tools()).install_locked(PROJECT)
    await asyncio.to_thread(_take)


def _is_there() -> bool:
    lock = PROJECT / "package-lock.json"
    same = lock.exists() and lock.read_bytes() == (LOCK / "package-lock.json").read_bytes()
    taken = all((STATIC / Path(each).name).exists() for each in TAKEN)
    return same and taken and AXE.exists()


def _prepare() -> None:
    PROJECT.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(LOCK / name, PROJECT / name)


def _take() -> None:
    STATIC.mkdir(exist_ok=True)
    for each in TAKEN:
        shutil.copyfile(PROJECT / "node_modules" / each, STATIC / Path(each).name)


def main() -> None:
    try:
        asyncio.run(fetch())
    except RollcallError as error:
        say(f"the page's scripts: {error}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
