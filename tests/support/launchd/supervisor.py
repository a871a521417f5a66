"""The emulated launchd: one process for each folder, which starts, watches and ends jobs for real.

    python -m tests.support.launchd.supervisor FOLDER

It answers `launchctl.py` on FOLDER/supervisor.sock, writes FOLDER/launchd.log, keeps disabled labels in
FOLDER/overrides.json, and ends with all it started when its standard input is closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import socket
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import psutil

from tests.support.launchd import printing
from tests.support.launchd.jobs import BadPlistError, Job, Settings, load_plist

TICK_S = 0.02
PR_SET_CHILD_SUBREAPER = 36
MESSAGES = {
    1: "Operation not permitted",
    3: "No such process",
    5: "Input/output error",
    36: "Operation now in progress",
    37: "Operation already in progress",
    125: "Domain does not support specified action",
}
HINT = "Try re-running the command as root for richer errors.\n"
MUTATING = ("bootstrap", "bootout", "kickstart", "kill")


class Refused(Exception):  # noqa: N818 - an answer, not a fault of this program
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


def failed(verb: str, code: int) -> Refused:
    return Refused(code, f"{verb} failed: {code}: {MESSAGES[code]}\n" + (HINT if code == 5 else ""))


class Manager(Protocol):
    """Who answers on the socket and acts when time has passed."""

    def answer(self, request: dict[str, Any]) -> dict[str, Any]: ...
    def tick(self) -> None: ...


def reap_orphans(ours: set[int]) -> None:
    """What jobs left behind is a child of ours, as it would be of launchd."""
    with contextlib.suppress(ChildProcessError):
        for _ in range(64):
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid in ours:
                return
            os.waitpid(ended.si_pid, os.WNOHANG)


class Supervisor:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs: dict[tuple[str, str], Job] = {}
        self._settings = Settings()
        self._read_settings()
        self._refused = 0

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        self._read_settings()
        words = request["words"]
        try:
            out, code, err = self._run(words, request["uid"], request["session"]), 0, ""
        except Refused as refused:
            out, code, err = "", refused.code, refused.text
        if words and words[0] == "bootout" and code == 0 and self._settings.bootout_code:
            code = self._settings.bootout_code
            err = f"Boot-out failed: {code}: {MESSAGES[code]}\n"
        self._log(f"launchctl {' '.join(words)} -> {code}")
        return {"code": code, "out": out, "err": err}

    def tick(self) -> None:
        now = time.monotonic()
        reap_orphans({job.process.pid for job in self._jobs.values() if job.process is not None})
        for key, job in list(self._jobs.items()):
            job.tick(now)
            if job.gone:
                del self._jobs[key]
                self._log(f"{job.label}: removed from {job.domain}")

    def _run(self, words: list[str], uid: int, session: str | None) -> str:
        verbs = {
            "print": self._print,
            "bootstrap": self._bootstrap,
            "bootout": self._bootout,
            "kickstart": self._kickstart,
            "enable": lambda words, uid: self._override(words, uid, False),
            "disable": lambda words, uid: self._override(words, uid, True),
            "print-disabled": self._print_disabled,
            "list": self._list,
            "unload": self._unload,
            "load": self._load,
        }
        if not words or words[0] not in verbs:
            raise Refused(64, f"Unrecognized subcommand: {words[0] if words else ''}\n")
        self._check_session(words, session)
        return verbs[words[0]](words[1:], uid)

    def _check_session(self, words: list[str], session: str | None) -> None:
        target = next((word for word in words[1:] if word.startswith("gui/")), None)
        if target is None or not self._settings.needs_asuser or words[0] not in MUTATING:
            return
        if session != target.split("/")[1]:
            raise failed(words[0].capitalize(), 125)

    def _print(self, words: list[str], uid: int) -> str:
        domain, label = split(words[-1])
        if not label:
            self._check_domain("Print", domain, missing=112)
            mine = [job for job in self._jobs.values() if job.domain == domain]
            return printing.domain(domain, mine)
        self._check_domain("Print", domain, missing=112)
        return printing.job(self._find(domain, label), self._settings)

    def _bootstrap(self, words: list[str], uid: int) -> str:
        domain = words[0]
        self._check_domain("Bootstrap", domain)
        if domain == "system" and uid != 0:
            raise failed("Bootstrap", 1)
        for name in words[1:]:
            self._take(domain, Path(name))
        return ""

    def _take(self, domain: str, path: Path) -> None:
        settings = self._settings
        owner = 0 if domain == "system" else int(domain.partition("/")[2])
        try:
            plist = load_plist(path, owner)
        except (BadPlistError, OSError) as error:
            self._log(f"bootstrap refused: {error}")
            raise failed("Bootstrap", 5) from None
        key = (domain, plist["Label"])
        if self._overrides(domain).get(plist["Label"]):
            raise failed("Bootstrap", 5)
        if key in self._jobs:
            busy = self._jobs[key].removing
            raise failed("Bootstrap", settings.busy_code if busy else settings.loaded_code)
        if self._refused < settings.refused_bootstraps:
            self._refused += 1
            raise failed("Bootstrap", 5)
        job = Job(domain, path, plist, settings, self._log)
        self._jobs[key] = job
        job.load(time.monotonic())

    def _bootout(self, words: list[str], uid: int) -> str:
        domain, label = split(words[0])
        if len(words) > 1:
            label = Path(words[1]).name.removesuffix(".plist")
        job = self._jobs.get((domain, label))
        if job is None:
            raise failed("Boot-out", 3)
        if job.removing:
            raise failed("Boot-out", 36)
        job.remove(time.monotonic())
        return ""

    def _kickstart(self, words: list[str], uid: int) -> str:
        domain, label = split(words[-1])
        job = self._find(domain, label)
        if job.removing:
            raise failed("Kickstart", 37)
        job.kickstart(time.monotonic(), "-k" in words)
        if "-p" in words and job.process is not None:
            return f"service spawned with pid: {job.process.pid}\n"
        return ""

    def _override(self, words: list[str], uid: int, off: bool) -> str:
        domain, label = split(words[0])
        overrides = self._overrides(domain)
        overrides[label] = off
        everything = {**self._all_overrides(), domain: overrides}
        (self._folder / "overrides.json").write_text(json.dumps(everything))
        return ""

    def _print_disabled(self, words: list[str], uid: int) -> str:
        return printing.disabled(self._overrides(words[0]))

    def _list(self, words: list[str], uid: int) -> str:
        domain = "system" if uid == 0 and 0 not in self._settings.sessions else f"gui/{uid}"
        if not words:
            return printing.table([job for job in self._jobs.values() if job.domain == domain])
        job = self._jobs.get((domain, words[0]))
        if job is None:
            raise Refused(113, f'Could not find service "{words[0]}" in domain for port\n')
        return printing.entry(job)

    def _load(self, words: list[str], uid: int) -> str:
        return self._bootstrap([self._legacy_domain(words[-1], uid), words[-1]], uid)

    def _unload(self, words: list[str], uid: int) -> str:
        """The old verb tells of a failure and exits with 0."""
        with contextlib.suppress(Refused):
            self._bootout([self._legacy_domain(words[-1], uid), words[-1]], uid)
        return ""

    @staticmethod
    def _legacy_domain(path: str, uid: int) -> str:
        return "system" if "/LaunchDaemons/" in path else f"gui/{uid}"

    def _find(self, domain: str, label: str) -> Job:
        job = self._jobs.get((domain, label))
        hidden = job is not None and job.lingers and not self._settings.shown_while_lingering
        if job is None or hidden:
            raise Refused(113, printing.no_service(domain, label))
        return job

    def _check_domain(self, verb: str, domain: str, missing: int = 125) -> None:
        kind, _, uid = domain.partition("/")
        if kind == "gui" and (not uid.isdigit() or int(uid) not in self._settings.sessions):
            if missing == 112:
                raise Refused(
                    112, f"Bad request.\nCould not find domain for {printing.spoken(domain)}\n"
                )
            raise failed(verb, missing)

    def _all_overrides(self) -> dict[str, dict[str, bool]]:
        try:
            value: dict[str, dict[str, bool]] = json.loads(
                (self._folder / "overrides.json").read_text()
            )
        except FileNotFoundError:
            return {}
        return value

    def _overrides(self, domain: str) -> dict[str, bool]:
        return self._all_overrides().get(domain, {})

    def _read_settings(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            value = json.loads((self._folder / "settings.json").read_text())
            self._settings.__dict__.update(value)

    def _log(self, text: str) -> None:
        with (self._folder / "launchd.log").open("a") as file:
            file.write(f"{time.time():.3f} {text}\n")


def split(target: str) -> tuple[str, str]:
    """`gui/501/a.b` to its domain and label; the label is empty for a domain alone."""
    parts = target.split("/")
    depth = 1 if parts[0] == "system" else 2
    return "/".join(parts[:depth]), "/".join(parts[depth:])


def serve(folder: Path, supervisor: Manager) -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with socket.socket(socket.AF_UNIX) as door, selectors.DefaultSelector() as selector:
        door.bind(str(folder / "supervisor.sock"))
        (folder / "supervisor.sock").chmod(0o777)
        door.listen(64)
        selector.register(door, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        sys.stdout.write("up\n")
        sys.stdout.flush()
        while True:
            ready = {key.fileobj for key, _ in selector.select(TICK_S)}
            if sys.stdin in ready:
                return
            if door in ready:
                answer_one(door, supervisor)
            supervisor.tick()


def answer_one(door: socket.socket, supervisor: Manager) -> None:
    line, _ = door.accept()
    with line, contextlib.suppress(OSError, ValueError):
        line.settimeout(5)
        with line.makefile("rb") as file:
            request = json.loads(file.readline())
        supervisor.tick()
        line.sendall(json.dumps(supervisor.answer(request)).encode())


def end_everything() -> None:
    """Orphans of jobs are children of ours: nothing that was started here is left."""
    for _ in range(3):
        family = psutil.Process().children(recursive=True)
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(family, timeout=2)


def live(folder: Path, manager: Manager) -> None:
    try:
        serve(folder, manager)
    finally:
        end_everything()
        (folder / "supervisor.sock").unlink(missing_ok=True)


if __name__ == "__main__":
    live(Path(sys.argv[1]), Supervisor(Path(sys.argv[1])))
