"""An emulated launchd for one test: made, turned, looked at, and ended with all that it started."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
CLIENT = Path(__file__).with_name("launchctl.py")
END_S = 20


class Launchd:
    """`launchctl` is the program to run; `folder` holds its log and its settings. The folder's path is
    short, because a socket lies in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.launchctl = folder / "bin" / "launchctl"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.launchctl.parent.mkdir(exist_ok=True)
        words = " ".join([sys.executable, "-I", "-S", str(CLIENT), str(self.folder)])
        self.launchctl.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        self.launchctl.chmod(0o755)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.launchd.supervisor", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"up\n"

    def end(self) -> None:
        """As a reboot does: every job ends, and what was disabled stays so."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait(END_S)

    def turn(self, **settings: Any) -> None:
        path = self.folder / "settings.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**before, **settings}))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.launchctl), *words], capture_output=True, text=True, timeout=30, check=False
        )

    def log(self) -> str:
        return (self.folder / "launchd.log").read_text()

    def calls(self) -> list[str]:
        """What `launchctl` was asked that changes anything, without its time, with its answer."""
        lines = [line.partition(" ")[2] for line in self.log().splitlines()]
        asked = [line.removeprefix("launchctl ") for line in lines if line.startswith("launchctl ")]
        return [line for line in asked if not line.startswith(("print", "list"))]


@contextlib.contextmanager
def emulated_launchd(**settings: Any) -> Iterator[Launchd]:
    folder = Path(tempfile.mkdtemp(prefix="rollcall-ld-"))
    folder.chmod(0o755)
    launchd = Launchd(folder)
    launchd.turn(**settings)
    launchd.start()
    try:
        yield launchd
    finally:
        launchd.end()
        shutil.rmtree(folder, ignore_errors=True)
