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
from typing import Any, ClassVar

ROOT = Path(__file__).resolve().parents[3]
CLIENT = Path(__file__).with_name("launchctl.py")
END_S = 20


class Emulated:
    """A service manager: `program` is what to run, `folder` holds its log and its settings. The folder's path
    is short, because a socket lies in it."""

    module: ClassVar[str]
    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "bin" / self.name
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.program.parent.mkdir(exist_ok=True)
        words = " ".join([sys.executable, "-I", "-S", str(CLIENT), str(self.folder)])
        self.program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        self.program.chmod(0o755)
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module, str(self.folder)],
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
            [str(self.program), *words], capture_output=True, text=True, timeout=30, check=False
        )

    def log(self) -> str:
        path = self.folder / "launchd.log"
        return path.read_text() if path.exists() else ""

    def calls(self) -> list[str]:
        """What was asked that changes anything, without its time, with its answer."""
        lines = [line.partition(" ")[2] for line in self.log().splitlines()]
        asked = [line.partition(" ")[2] for line in lines if line.startswith(f"{self.name} ")]
        return [line for line in asked if not line.startswith(("print", "list", "show"))]


class Launchd(Emulated):
    module = "tests.support.launchd.supervisor"
    name = "launchctl"

    @property
    def launchctl(self) -> Path:
        return self.program


class Systemd(Emulated):
    module = "tests.support.systemd.manager"
    name = "systemctl"

    @property
    def systemctl(self) -> Path:
        return self.program

    @property
    def units(self) -> Path:
        return self.folder / "units"


@contextlib.contextmanager
def emulated_launchd(base: Path | None = None, **settings: Any) -> Iterator[Launchd]:
    with _folder(base) as folder:
        launchd = Launchd(folder)
        with _running(launchd, settings):
            yield launchd


@contextlib.contextmanager
def emulated_systemd(**settings: Any) -> Iterator[Systemd]:
    with _folder(None) as folder:
        systemd = Systemd(folder)
        systemd.units.mkdir()
        with _running(systemd, settings):
            yield systemd


@contextlib.contextmanager
def _folder(base: Path | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="rollcall-ld-", dir=base))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _running(manager: Emulated, settings: dict[str, Any]) -> Iterator[None]:
    manager.turn(**settings)
    manager.start()
    try:
        yield
    finally:
        manager.end()
