"""What `launchctl print` says of a job. Only the standard library: the watchdog reads it too.

The form is no interface (Apple says so on the same manual page), so little is taken from it: lines that
stand one tab deep, `key = value`. Deeper ones belong to arguments and environment, whose text is not ours.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_SUCH_PROCESS = 3
GENERIC = 5
IN_PROGRESS = 37
NO_DOMAIN = 112
NO_SERVICE = 113
NO_SESSION = 125


@dataclass(frozen=True)
class PrintedJob:
    state: str
    pid: int | None
    path: str
    runs: int | None
    last_exit: str

    @property
    def scheduled(self) -> bool:
        """launchd will start it by itself once its throttle is over."""
        return self.state == "spawn scheduled"


def read_job(text: str) -> PrintedJob | None:
    """None when the text is no printed job, or says two different things of its pid or state."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith("\t") or line.startswith("\t\t"):
            continue
        key, equals, value = line.strip().partition(" = ")
        if not equals or value == "{":
            continue
        if key in ("pid", "state") and found.get(key, value) != value:
            return None
        found.setdefault(key, value)
    if "state" not in found:
        return None
    return PrintedJob(
        found["state"],
        _number(found.get("pid")),
        found.get("path", ""),
        _number(found.get("runs")),
        found.get("last exit code", ""),
    )


def read_disabled(text: str) -> dict[str, bool]:
    """Labels of `print-disabled`, and whether each is off: `=> true` before macOS 13, `=> disabled`
    since."""
    found = {}
    for line in text.splitlines():
        label, arrow, value = line.strip().partition('" => ')
        if arrow and label.startswith('"'):
            found[label[1:]] = value in ("true", "disabled")
    return found


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() and int(text) > 0 else None
