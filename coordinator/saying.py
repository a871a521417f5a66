"""Times as every command says them: UTC with its Z, so that what two operators see in two places is the same."""

from __future__ import annotations

import time


def moment(at: float | None) -> str:
    """Such as 2026-09-06 14:03:59Z; a dash where there is none."""
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))


def day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def span(seconds: float) -> str:
    """Such as 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 60:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"
