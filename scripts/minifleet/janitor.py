"""Waits until its parent is gone, however it went; then cleans up what the parent had made."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from scripts.minifleet.workspace import PREFIX, sweep


def main() -> None:
    root = Path(sys.argv[1])
    if not root.name.startswith(PREFIX):
        sys.exit(f"{root} is not a workspace")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    if root.exists():
        sweep(root)


main()
