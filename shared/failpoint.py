"""Named places at which a test can have this process killed, to see whether the next one goes on from there.

Off unless the environment names a folder. Each place that is reached is noted in its file `reached`; those
that its file `armed` names kill the process, each once.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

VARIABLE: Final = "ROLLCALL_FAIL_POINTS"
REACHED, ARMED = "reached", "armed"

_folder: Final = os.environ.get(VARIABLE)


def fail_point(name: str) -> None:
    """Stands directly before or after a side effect."""
    if _folder is not None:
        _reach(Path(_folder), name)


def _reach(folder: Path, name: str) -> None:
    """`name#2` is the second time that `name` is reached since somebody emptied the list."""
    with (folder / REACHED).open("a+") as file:
        file.seek(0)
        times = file.read().split().count(name) + 1
        file.write(f"{name}\n")
    armed = folder / ARMED
    try:
        wanted = armed.read_text().split()
    except FileNotFoundError:
        return
    if f"{name}#{times}" in wanted:
        wanted.remove(f"{name}#{times}")
        armed.write_text("\n".join(wanted))
        os.kill(os.getpid(), signal.SIGKILL)
