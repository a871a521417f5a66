"""The emulated systemd: unit files in FOLDER/units, answers as `systemctl` gives them, real processes.

    python -m tests.support.systemd.manager FOLDER

A unit file counts from the next daemon-reload on. Jobs are those of the emulated launchd, in systemd's terms.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.launchd.jobs import Job, Settings
from tests.support.launchd.supervisor import Refused, live, reap_orphans

ENVIRONMENT = "Environment"


class UnitManager:
    def __init__(self, folder: Path) -> None:
        self._folder, self._units = folder, folder / "units"
        self._settings = Settings()
        self._known: dict[str, dict[str, Any]] = {}
        self._jobs: dict[str, Job] = {}
        self._again: set[str] = set()
        self._last: dict[str, int] = {}
        self._reload()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        settings = self._folder / "settings.json"
        self._settings.__dict__.update(json.loads(settings.read_text()))
        words: list[str] = request["words"]
        try:
            out, code, err = self._run(words), 0, ""
        except Refused as refused:
            out, code, err = "", refused.code, refused.text
        self._log(f"systemctl {' '.join(words)} -> {code}")
        return {"code": code, "out": out, "err": err}

    def tick(self) -> None:
        now = time.monotonic()
        reap_orphans({job.process.pid for job in self._jobs.values() if job.process is not None})
        for name, job in list(self._jobs.items()):
            job.tick(now)
            if job.last_exit is not None:
                self._last[name] = job.last_exit
            if job.gone:
                del self._jobs[name]
                if name in self._again:
                    self._again.discard(name)
                    self._start(name)

    def _run(self, words: list[str]) -> str:
        verb, names = words[0], [word for word in words[1:] if not word.startswith("-")]
        if verb == "daemon-reload":
            self._reload()
            return ""
        (name,) = names
        if verb == "show":
            wanted = next(word for word in words if word.startswith("--property=")).partition("=")[
                2
            ]
            shown = self._shown(name)
            return "".join(f"{key}={shown[key]}\n" for key in wanted.split(",") if key in shown)
        if verb == "is-active":
            state = self._shown(name)["ActiveState"]
            if state != "active":
                raise Refused(3, f"{state}\n")
            return f"{state}\n"
        self._change(verb, name)
        return ""

    def _change(self, verb: str, name: str) -> None:
        if name not in self._known and verb not in ("mask", "unmask"):
            raise Refused(5, f"Failed to {verb} {name}: Unit {name} not found.\n")
        if verb in ("enable", "disable", "mask", "unmask"):
            self._mark(verb, name)
        elif verb in ("start", "restart") and (self._units / f"{name}.masked").exists():
            raise Refused(1, f"Failed to {verb} {name}: Unit {name} is masked.\n")
        elif verb == "start" and name not in self._jobs:
            self._start(name)
        elif verb == "restart":
            self._restart(name)
        elif verb == "stop":
            self._again.discard(name)
            if name in self._jobs:
                self._jobs[name].remove(time.monotonic())

    def _mark(self, verb: str, name: str) -> None:
        link = self._units / "multi-user.target.wants" / name
        mask = self._units / f"{name}.masked"
        if verb == "enable":
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(self._units / name)
        elif verb == "disable":
            link.unlink(missing_ok=True)
        elif verb == "mask":
            mask.touch()
        else:
            mask.unlink(missing_ok=True)

    def _restart(self, name: str) -> None:
        if name in self._jobs:
            self._again.add(name)
            self._jobs[name].remove(time.monotonic())
        else:
            self._start(name)

    def _start(self, name: str) -> None:
        job = Job("system", self._units / name, self._known[name], self._settings, self._log)
        self._jobs[name] = job
        job.spawn(time.monotonic())

    def _shown(self, name: str) -> dict[str, str]:
        job = self._jobs.get(name)
        masked = (self._units / f"{name}.masked").exists()
        enabled = (self._units / "multi-user.target.wants" / name).is_symlink()
        known = name in self._known
        active, sub = "inactive", "dead"
        if job is not None:
            active, sub = "active", "running"
            if job.removing:
                active, sub = "deactivating", "stop-sigterm"
            elif job.process is None:
                active, sub = "activating", "auto-restart"
        return {
            "LoadState": "masked" if masked else "loaded" if known else "not-found",
            "ActiveState": active,
            "SubState": sub,
            "MainPID": str(job.process.pid if job is not None and job.process is not None else 0),
            "Result": "success" if self._last.get(name, 0) == 0 else "exit-code",
            "ExecMainStatus": str(self._last.get(name, 0)),
            "NRestarts": str(job.runs - 1 if job is not None else 0),
            "UnitFileState": ("enabled" if enabled else "disabled") if known else "",
        }

    def _reload(self) -> None:
        self._known = {path.name: read_unit(path) for path in self._units.glob("*.service")}

    def _log(self, text: str) -> None:
        with (self._folder / "launchd.log").open("a") as file:
            file.write(f"{time.time():.3f} {text}\n")


def read_unit(path: Path) -> dict[str, Any]:
    """The lines of [Service], in the words of a property list."""
    found: dict[str, str] = {}
    environment: dict[str, str] = {}
    for line in path.read_text().splitlines():
        key, equals, value = line.partition("=")
        if not equals:
            continue
        if key == ENVIRONMENT:
            name, _, text = unquoted(value)[0].partition("=")
            environment[name] = text
        else:
            found[key] = value
    return {
        "Label": path.name,
        "ProgramArguments": [word.replace("$$", "$") for word in unquoted(found["ExecStart"])],
        "EnvironmentVariables": environment,
        "WorkingDirectory": found["WorkingDirectory"].replace("%%", "%"),
        "KeepAlive": found.get("Restart") == "always",
        "ThrottleInterval": float(found.get("RestartSec", "0.1")),
        "ExitTimeOut": float(found.get("TimeoutStopSec", "90")),
        "Umask": int(found.get("UMask", "0022"), 8),
        "StandardOutPath": found["StandardOutput"].removeprefix("append:").replace("%%", "%"),
        "StandardErrorPath": found["StandardError"].removeprefix("append:").replace("%%", "%"),
        **({"UserName": found["User"]} if "User" in found else {}),
    }


def unquoted(text: str) -> list[str]:
    return [word.replace("%%", "%") for word in shlex.split(text)]


if __name__ == "__main__":
    live(Path(sys.argv[1]), UnitManager(Path(sys.argv[1])))
