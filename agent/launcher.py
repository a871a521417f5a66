"""Starts the agent's active version, and goes back to the last good one when a new one does not work.

Copied to `<home>/launcher` at adoption and never upgraded. Standard library only, Python 3.9 or later. What
it reads and writes is fixed for good: the links `<home>/active` and `versions/good`, and JSON objects in
`versions/<v>/COMPLETE` (by whoever built it, last), `HEALTHY` (by the version, once it works), `EXIT` (by
one that gives up: its `reason`), `versions/<v>.failed.json` (why it is not tried again) and
`versions/starts.json` (starts of `active` since it was healthy, if ever).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

MAX_STARTS = 3
PATIENCE_S = 900
"""Then SIGALRM, which outlives exec, ends a version that hangs; a healthy one calls `signal.alarm(0)`."""
PATH = "/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
KEPT = re.compile("HOME|USER|LOGNAME|SHELL|TMPDIR|TZ|LANG|NOTIFY_SOCKET|(LC|XPC|ROLLCALL)_.*")
VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,63}")


def read(path: Path) -> dict[str, object]:
    """Empty for what is missing, torn or zero-filled."""
    try:
        return dict(json.loads(path.read_bytes()[: 1 << 16]))
    except (OSError, ValueError, TypeError):
        return {}


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(fd, getattr(fcntl, "F_FULLFSYNC"))  # noqa: B009 - macOS: fsync stops at the drive
    except (AttributeError, OSError):
        os.fsync(fd)  # closed by exec, like the lock


def write(path: Path, value: dict[str, object]) -> None:
    made = path.with_name(f".{path.name}.tmp")
    made.write_text(json.dumps(value))
    sync(made)
    made.replace(path)
    sync(path.parent)


def named(link: Path) -> str | None:
    name = link.readlink().name if link.is_symlink() else ""
    return name if VERSION.fullmatch(name) else None


def fault(versions: Path, version: str) -> str | None:
    """Why a version cannot be started at all."""
    if (versions / f"{version}.failed.json").exists():
        return "it had failed before"
    if not read(versions / version / "COMPLETE"):
        return "it was not built to its end"
    runs = os.access(versions / version / "bin" / "python", os.X_OK)
    return None if runs else "it has no python that can be started"


def spent(versions: Path, version: str) -> str | None:
    """Why a version that can be started should not be; None when it may, and then this start counts."""
    file = versions / "starts.json"
    if read(versions / version / "HEALTHY"):
        return None
    known = read(file)
    if not known and file.exists():
        return "the count of its starts is damaged"
    count = known.get("starts") if known.get("version") == version else 0
    if not isinstance(count, int) or count >= MAX_STARTS:
        return f"it was started {count} times and never reported healthy"
    write(file, {"version": version, "starts": count + 1})
    return None


def last_good(versions: Path, bad: str | None) -> str | None:
    """The version that `good` names, else one that has been healthy, else any that was built."""
    found = [path.name for path in versions.iterdir() if VERSION.fullmatch(path.name)]
    found.sort(key=lambda name: ((versions / name / "HEALTHY").exists(), name), reverse=True)
    names = [named(versions / "good") or "-", *found]
    return next((each for each in names if each != bad and not fault(versions, each)), None)


def give_up(home: Path, bad: str | None, why: str) -> str | None:
    """Remember why, move `active` back, and return the version to start; None when there is no other."""
    versions, link = home / "versions", home / ".active.launcher"
    if (good := last_good(versions, bad)) is None:
        return None
    sys.stderr.write(f"launcher: {bad} is given up, because {why}; going back to {good}\n")
    if bad is not None and not read(versions / f"{bad}.failed.json"):
        sha256 = read(versions / bad / "COMPLETE").get("sha256")
        record = {"version": bad, "sha256": sha256, "why": why, "at": time.time()}
        record["exit"] = read(versions / bad / "EXIT").get("reason")
        write(versions / f"{bad}.failed.json", record)
    link.unlink(missing_ok=True)
    link.symlink_to(f"versions/{good}")
    link.replace(home / "active")
    sync(home)
    return good


def choose(home: Path) -> str | None:
    """The version to start now; None when there is none at all."""
    versions, active = home / "versions", named(home / "active")
    try:
        why = (fault(versions, active) or spent(versions, active)) if active else "none is active"
        return (why and give_up(home, active, why)) or active
    except OSError as error:  # a disk that cannot count must not run what is not proven
        sys.stderr.write(f"launcher: {error}\n")
        return (last_good(versions, active) if versions.is_dir() else None) or active


def start(home: Path, version: str, words: list[str]) -> None:
    """Does not return. Raises OSError when this version has no python that can be started."""
    env = {key: value for key, value in os.environ.items() if KEPT.fullmatch(key)}
    env.update(PATH=PATH, ROLLCALL_LAUNCHED=version)
    argv = [str(home / "versions" / version / "bin" / "python"), "-I", "-m", "agent", *words]
    os.execve(argv[0], [*argv, "--home", str(home)], env)  # noqa: S606


def main() -> None:
    home, words = Path(__file__).absolute().parent, sys.argv[1:] or ["run"]
    if words[0] != "run":  # the watchdog: nothing is counted, and what has proven itself runs
        start(home, last_good(home / "versions", None) or "none", words)
    lock = os.open(home / "agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(f"launcher: {home} is in use by another process")
    version = choose(home)
    while version is not None:
        signal.alarm(0 if read(home / "versions" / version / "HEALTHY") else PATIENCE_S)
        try:
            start(home, version, words)
        except OSError as error:
            version = give_up(home, version, f"its python cannot be started: {error}")
    sys.exit(f"launcher: nothing to start in {home}; run: rollcall-agent adopt")


if __name__ == "__main__":
    main()
