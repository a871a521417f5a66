"""Decides, and does nothing: whether an upgrade could be undone, from what is known before its outage.

The coordinator asks when it plans, the agent again when it has staged and rehearsed.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.report import Standing, WayBack

ROOM = 1.1
"""Free space over the size of what is copied: files grow while they are looked at."""
STOP_S = 2.0
COPIED_A_S = 100 << 20
"""Bytes in a second, where no copy was made yet: a slow disk."""


@dataclass(frozen=True)
class Facts:
    """Bytes and seconds. `blocked` are the databases that the new version's own preflight cannot judge or
    would not take, each with its status; `ready_s` is what the previous release took to get ready last."""

    previous: str | None
    previous_whole: bool
    schema_before: str
    schema_after: str
    blocked: tuple[str, ...]
    state_bytes: int
    free_bytes: int
    same_disk: bool
    """The copy is where the state is: in need it is moved back, which takes no room."""
    snapshot_s: float | None
    ready_s: float | None


def judge_way_back(facts: Facts) -> WayBack:
    """Raises nothing: an answer of no has its reasons."""
    against = list(_against(facts))
    restores = facts.schema_before != facts.schema_after
    about = (
        f"schema {facts.schema_before} becomes {facts.schema_after}: a rollback puts the copy back, and sets"
        " aside what is written after the switch"
        if restores
        else "the schema stays; a rollback puts the copy back all the same"
    )
    copied = facts.snapshot_s
    return WayBack(
        possible=not against,
        reasons=against or [about],
        restores_state=restores,
        snapshot_bytes=facts.state_bytes,
        free_bytes=facts.free_bytes,
        snapshot_s=round(facts.state_bytes / COPIED_A_S if copied is None else copied, 1),
        rollback_s=None if facts.ready_s is None else round(STOP_S + facts.ready_s, 1),
    )


def foresee(standing: Standing, schema_after: str) -> WayBack:
    """Before anything was staged or tried: from what a node says of itself."""
    return judge_way_back(
        Facts(
            previous=standing.release,
            previous_whole=standing.whole,
            schema_before=standing.schema_versions,
            schema_after=schema_after,
            blocked=(),
            state_bytes=standing.state_bytes,
            free_bytes=standing.free_bytes,
            same_disk=standing.same_disk,
            snapshot_s=None,
            ready_s=None,
        )
    )


def _against(facts: Facts) -> list[str]:
    found = []
    if facts.previous is not None and not facts.previous_whole:
        found.append(
            f"the tree of the release that runs now, {facts.previous[:12]}, is not complete"
        )
    needed = int(facts.state_bytes * ROOM)
    if facts.free_bytes < needed and not facts.same_disk:
        found.append(
            f"putting the copy back needs {needed >> 20} MiB beside the state;"
            f" {facts.free_bytes >> 20} MiB are free"
        )
    found += [f"the new version's preflight says {each}" for each in facts.blocked]
    return found
