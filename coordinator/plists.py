"""The coordinator's job of launchd."""

from __future__ import annotations

from pathlib import Path

from shared.plist import PREFIX, Job

LABEL = f"{PREFIX}coordinator"


def coordinator_job(launcher: Path, home: Path, listen: str, user: str) -> Job:
    """As an account of its own: the coordinator needs nothing of root's."""
    return Job(
        LABEL,
        (str(launcher), "serve", "--home", str(home), "--listen", listen),
        printed=home / "logs" / "coordinator.printed.log",
        user=user,
    )
