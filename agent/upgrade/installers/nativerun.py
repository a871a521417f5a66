"""What OpenClaw's updater says of a run, understood or called a failure. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from agent.openclaw.cli import first_object
from agent.upgrade.context import StepFailed
from agent.upgrade.installers.base import Evidence
from shared.command import Output

HANDED_OVER = 75
MAX_STEPS = 64
DOCTOR = "openclaw doctor"
PHASES: Final = {
    "global update": "staged",
    "package-install": "staged",
    "Preparing update checks": "verified",
    "Checking data migrations": "verified",
    "Checking update health": "verified",
    "global install swap": "switched",
    "package-swap": "switched",
    "post-install-verify": "switched",
    DOCTOR: "migrated",
}
"""The updater's names for its steps, in the words of our phases; `other` for the rest."""


def judge_update(output: Output, version: str) -> Evidence:
    """Evidence of an update that ended well. Raises StepFailed for every other one: a skipped one exits
    with 0, a failed one can have replaced the package, and one that handed over goes on elsewhere.

    An update whose one failed step is Doctor's migration has replaced the package, and `doctor_left` says
    so: that migration can need a second run (docs/decisions/0004-doctor-fix-runs-twice.md), which the
    phase after this one makes and judges.
    """
    if output.timed_out:
        raise StepFailed(f"openclaw update did not end within {output.seconds:.0f} s")
    if output.code == HANDED_OVER:
        raise StepFailed("openclaw update handed over to a helper instead of doing the update")
    value = first_object(output.stdout)
    if value is None:
        raise StepFailed(f"openclaw update printed no JSON ({output.code}): {output.last_line()}")
    status, after = value.get("status"), _version(value.get("after"))
    failed = [each for each in _steps(value) if each.get("exitCode") not in (0, None)]
    left = after == version and [each.get("name") for each in failed] == [DOCTOR]
    if (output.code != 0 or status != "ok") and not left:
        raise StepFailed(
            f"openclaw update ended with {output.code}, {status}:"
            f" {value.get('reason') or _failed_step(value) or output.last_line()}"
        )
    if after != version:
        raise StepFailed(f"openclaw update says it installed {after}, not {version}")
    return {
        "run": value.get("runId"),
        "before": _version(value.get("before")),
        "after": after,
        "ms": value.get("durationMs"),
        "doctor_left": left,
        "steps": [_step(each) for each in _steps(value)],
    }


def unfinished_run(status: dict[str, Any], package: Path) -> str | None:
    """Of `openclaw update status --json`: why an update must not begin; None when it may."""
    run = status.get("activeRun")
    if isinstance(run, dict):
        return f"OpenClaw's own update {run.get('runId')} is still {run.get('phase')}"
    about = status.get("update")
    about = about if isinstance(about, dict) else {}
    kind = (about.get("installKind"), about.get("packageManager"))
    if kind != ("package", "npm"):
        return f"OpenClaw takes its installation for {kind[0]} of {kind[1]}, not for npm's"
    if Path(str(about.get("root"))).resolve() != package.resolve():
        return f"OpenClaw would update {about.get('root')}, not {package}"
    return None


def _steps(value: dict[str, Any]) -> list[dict[str, Any]]:
    steps = value.get("steps")
    return (
        [each for each in steps if isinstance(each, dict)][:MAX_STEPS]
        if isinstance(steps, list)
        else []
    )


def _step(step: dict[str, Any]) -> dict[str, Any]:
    name = str(step.get("name"))[:80]
    return {
        "phase": PHASES.get(name, "other"),
        "name": name,
        "ms": step.get("durationMs"),
        "exit": step.get("exitCode"),
    }


def _failed_step(value: dict[str, Any]) -> str | None:
    failed = value.get("failedStep")
    return str(failed.get("name")) if isinstance(failed, dict) else None


def _version(value: Any) -> str | None:
    version = value.get("version") if isinstance(value, dict) else None
    return version if isinstance(version, str) else None
