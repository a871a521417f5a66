"""systemd's unit files for a node's jobs (systemd.unit(5), systemd.service(5), systemd.exec(5))."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shared.command import SYSTEM_PATH
from shared.errors import ConfigError

UNIT_MODE = 0o644
FILES = 8192
RESTART_S = 5


@dataclass(frozen=True)
class Unit:
    """One service that is kept alive. `KillMode=mixed`: SIGTERM to the main process, and to what is left of
    its group SIGKILL when it is gone or its time is over."""

    description: str
    arguments: tuple[str, ...]
    printed: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = Path("/")
    exit_timeout_s: int = 30
    user: str | None = None
    whole_group: bool = True
    """Whether what it leaves behind is ended with it: not so for an agent whose gateway outlives it."""

    def render(self) -> bytes:
        """Raises ConfigError for text that would begin another line."""
        env = {"PATH": SYSTEM_PATH, **self.env}
        lines = [
            "[Unit]",
            f"Description={_plain(self.description)}",
            "After=network-online.target",
            "Wants=network-online.target",
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            "Type=exec",
            "ExecStart=" + " ".join(_word(word) for word in self.arguments),
            *(f"Environment={_quoted(f'{name}={value}')}" for name, value in env.items()),
            f"WorkingDirectory={_plain(str(self.cwd))}",
            *([] if self.user is None else [f"User={_plain(self.user)}"]),
            "Restart=always",
            f"RestartSec={RESTART_S}",
            f"TimeoutStopSec={self.exit_timeout_s}",
            f"KillMode={'mixed' if self.whole_group else 'process'}",
            f"LimitNOFILE={FILES}",
            "UMask=0077",
            f"StandardOutput=append:{_plain(str(self.printed))}",
            f"StandardError=append:{_plain(str(self.printed))}",
            "",
            "[Install]",
            "WantedBy=multi-user.target",
        ]
        return ("\n".join(lines) + "\n").encode()


def _word(text: str) -> str:
    """In a command line `$` begins a variable too."""
    return _quoted(text).replace("$", "$$")


def _quoted(text: str) -> str:
    escaped = _plain(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _plain(text: str) -> str:
    """`%` begins a specifier everywhere."""
    if any(not character.isprintable() for character in text):
        raise ConfigError(f"{text!r} cannot stand in a unit file")
    return text.replace("%", "%%")
