"""The logs of one gateway, wherever it and its keeper write them, read into `Forms`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from agent.config import AgentConfig, InstallerKind, ServiceKind
from agent.layout import Layout
from agent.readiness.logs.follow import Follower
from agent.readiness.logs.forms import Forms, LogReport
from agent.readiness.logs.lines import error_in, readable
from agent.readiness.logs.masking import example_of
from shared.account import Account
from shared.clock import Clock
from shared.errors import UntrustedError
from shared.release import CORE

SAVE_EVERY_S = 60.0
FILE = "log-forms.json"
TEMPORARY = Path("/tmp")  # noqa: S108 - where OpenClaw logs; read as files are that others may have planted
MAX_BATCHES, MAX_ERRORS = 32, 300
"""At one reading of one log: 4 MiB, and what it takes to mask so many messages."""
_ROLLING = re.compile(r"openclaw-\d{4}-\d\d-\d\d\.log")


class GatewayLogs:
    """`read` is called from one thread at a time; what it found is durable within a minute."""

    def __init__(
        self, forms: Forms, followers: list[Follower], current: Path, clock: Clock
    ) -> None:
        self._forms, self._followers, self._current = forms, followers, current
        self._clock = clock
        self._begun, self._changed = False, False
        self._saved_at = clock.monotonic()
        self._report = LogReport()

    @classmethod
    def of(cls, config: AgentConfig, layout: Layout, clock: Clock) -> GatewayLogs:
        user, agent_uid = config.gateway.user, os.geteuid()
        uid = agent_uid if user is None else Account.find(user).uid
        rolling = Follower(Rolling(TEMPORARY, uid), frozenset({uid}))
        known = frozenset({agent_uid, uid, 0})
        plain = [Follower(_Fixed(path), known) for path in plain_logs(config, layout)]
        return cls(Forms(layout.home / FILE), [rolling, *plain], layout.current, clock)

    def read(self) -> LogReport:
        """Blocking. Raises OSError."""
        if not self._begun:
            self._forms.load()
            for follower in self._followers:
                follower.begin(self._forms.places)
            self._begun = True
        tree = self._current.resolve()
        now = self._clock.now()
        switched = self._forms.runs(tree.name, now)
        code = f"{(tree / 'node_modules' / CORE).resolve()}/"
        for follower in self._followers:
            self._changed |= self._read_one(follower, code, now) > 0
        self._save(at_once=switched)
        self._report = self._forms.report().model_copy(
            update={
                "files": [str(each.path) for each in self._followers if each.path is not None],
                "refused": [each.refused for each in self._followers if each.refused],
                "skipped": sum(each.skipped for each in self._followers),
            }
        )
        return self._report

    def report(self) -> LogReport:
        """As of the last reading."""
        return self._report

    def tails(self, max_bytes: int) -> list[Tail]:
        """The end of each log that is there, without secrets, a line each. Blocking."""
        code = f"{(self._current.resolve() / 'node_modules' / CORE).resolve()}/"
        found = [_tail(each, code, max_bytes) for each in self._followers]
        return [tail for tail in found if tail is not None]

    def _read_one(self, follower: Follower, code: str, now: float) -> int:
        """How many errors there were."""
        found = 0
        for _ in range(MAX_BATCHES):
            lines = follower.read()
            for line in lines:
                message = error_in(line, lambda path: path.startswith(code))
                if message is not None:
                    self._forms.note(message, now)
                    found += 1
            if not lines or found >= MAX_ERRORS:
                break
        return found

    def _save(self, *, at_once: bool) -> None:
        """Positions go with what was found up to them: after a crash both are of one moment."""
        due = self._clock.monotonic() - self._saved_at >= SAVE_EVERY_S
        if not at_once and not (self._changed and due):
            return
        places = [(each.path, each.place) for each in self._followers]
        self._forms.save(
            {str(path): place for path, place in places if path is not None and place is not None}
        )
        self._changed, self._saved_at = False, self._clock.monotonic()


@dataclass(frozen=True)
class Tail:
    path: str
    lines: list[str]
    why: str = ""
    """Why there are none, where the file may not be read."""


def _tail(follower: Follower, code: str, max_bytes: int) -> Tail | None:
    path = str(follower.path or "")
    try:
        found = follower.tail(max_bytes)
    except FileNotFoundError:
        return None
    except (UntrustedError, OSError) as error:
        return Tail(path, [], str(error))
    lines = [example_of(readable(line, lambda path: path.startswith(code))) for line in found]
    return Tail(path, [line for line in lines if line]) if path else None


class Rolling:
    """OpenClaw's log of the day: the newest one in `openclaw` below the temporary folder, or in `openclaw-<uid>`
    where the first belongs to somebody else; that is how OpenClaw chooses."""

    def __init__(self, temporary: Path, uid: int) -> None:
        self._folders = (temporary / "openclaw", temporary / f"openclaw-{uid}")
        self._uid = uid

    def __call__(self) -> Path | None:
        for folder in self._folders:
            try:
                if folder.stat().st_uid != self._uid:
                    continue
                with os.scandir(folder) as found:
                    names = [each.name for each in found if _ROLLING.fullmatch(each.name)]
            except OSError:
                continue
            if names:
                return folder / max(names)
        return None


class _Fixed:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> Path:
        return self._path


def plain_logs(config: AgentConfig, layout: Layout) -> list[Path]:
    """Where the gateway's own output goes, by its keeper, and what agent.toml names besides."""
    found: list[Path] = []
    if config.openclaw.installer is not InstallerKind.COMPOSE:
        found.append(layout.logs / "gateway.log")
    if config.service.kind is ServiceKind.LAUNCHD:
        found.append(layout.home / "gateway-logs" / "gateway.log")
        if config.service.job_label().startswith("ai.openclaw."):
            found.append(config.gateway.home / "Library" / "Logs" / "openclaw" / "gateway.log")
    return [*found, *config.probes.log_files]
