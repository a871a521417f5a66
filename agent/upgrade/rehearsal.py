"""The upgrade, tried on a copy of the state while the old gateway serves: migration, Doctor, a start.

The copy lives under OpenClaw's own contract for rehearsals (`buildUpdateRehearsalPathEnv` in its source, from
2026.9.3 on): one private root is HOME and state directory at once, channels and schedules stay off, and what
lies outside of the root is read only. Older versions know the single switches.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.config import Rehearsal
from agent.copying import copy_in
from agent.openclaw.database import Preflight, copy_database, preflight
from agent.openclaw.doctor import fix, run_doctor
from agent.openclaw.gateway import Gate
from agent.openclaw.plugins import PluginInstaller, plugins_of
from agent.openclaw.settings import (
    CONFIG,
    apply_overlays,
    last_touched_version,
    rewrite_settings,
)
from agent.openclaw.tree import config_schema
from agent.upgrade.context import Context, Deps, StepFailed, needs_fix
from agent.upgrade.inventory import take_inventory
from shared.command import end_marked
from shared.errors import CommandError, UntrustedError
from shared.ports import free_port
from shared.readiness import CheckStatus
from shared.scratch import PREFIX
from shared.untrusted import Folder
from shared.versions import OpenClawVersion

STATE, WORKSPACES = "state", "workspaces"
STATE_DIR = "OPENCLAW_STATE_DIR"
"""Names a place of its own for each rehearsal, so it also tells the processes that one has left behind."""
MAIN_FILES = (".sqlite", ".sqlite3", ".db")
LOCK_FILE = re.compile(r"\.lock(\.sqlite.*)?$")
HAS_PREFLIGHT = OpenClawVersion("2026.8.1")
POLL_S = 0.1
_OFF = (
    "OPENCLAW_SKIP_CHANNELS",
    "OPENCLAW_SKIP_PROVIDERS",
    "OPENCLAW_SKIP_CRON",
    "OPENCLAW_SKIP_GMAIL_WATCHER",
    "OPENCLAW_SKIP_CANVAS_HOST",
    "OPENCLAW_SKIP_BROWSER_CONTROL_SERVER",
    "OPENCLAW_SKIP_STARTUP_MODEL_PREWARM",
)


@dataclass(frozen=True)
class Rehearsed:
    """`ready_s` is None when no gateway was started. `databases` is what the new version's preflight says
    of each database before it is migrated; `others` are plugins that the release does not name."""

    databases: list[Preflight]
    fix_runs: int
    ready_s: float | None
    others: list[dict[str, str]]

    def evidence(self) -> dict[str, Any]:
        return {"fix_runs": self.fix_runs, "ready_s": self.ready_s, "other_plugins": self.others}


async def rehearse(context: Context, copies: list[Path]) -> Rehearsed:
    """`copies` are those of state and workspaces, in that order, made just now. Raises StepFailed for what
    would otherwise have failed in the outage."""
    deps = context.deps
    parent = deps.layout.scratch
    root = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=PREFIX, dir=parent))
    try:
        state = await asyncio.to_thread(_lay_out, deps, root, copies)
        return await _Stage(context, state).play()
    except (CommandError, UntrustedError) as error:
        raise StepFailed(f"rehearsal: {error.message}") from error
    finally:
        await asyncio.to_thread(end_marked, STATE_DIR, str(root / STATE))
        await asyncio.to_thread(shutil.rmtree, root, True)


class _Stage:
    """One rehearsal on a private copy."""

    def __init__(self, context: Context, state: Path) -> None:
        self._context, self._deps, self._state = context, context.deps, state
        openclaw = replace(context.deps.openclaw(context.tree), home=state)
        self._openclaw = replace(openclaw, extra=tuple(_quiet(state).items()))

    async def play(self) -> Rehearsed:
        deps = self._deps
        databases = await self._preflight(await self._copy_databases())
        port = await asyncio.to_thread(self._rewrite)
        release, tree = self._context.signed(), self._context.tree
        async with plugins_of(release, tree, self._openclaw) as plugins:
            runs = await self._fix(plugins) if self._must_fix(databases) else 0
            reason = await self._complete(plugins)
            if reason is not None and runs == 0 and self._other_version():
                runs = await self._fix(plugins)
                reason = await self._complete(plugins)
            others = await plugins.others()
        if reason is not None:
            raise StepFailed(f"rehearsal: Doctor does not pass: {reason}")
        ready_s = None
        if deps.config.upgrade.rehearsal is Rehearsal.BOOT:
            deps.progress("rehearsal: starting the new gateway on a spare port")
            ready_s = await self._start(port)
        return Rehearsed(databases, runs, ready_s, others)

    def _must_fix(self, databases: list[Preflight]) -> bool:
        """Where neither schema nor database changes a new version can often start as it is: then Doctor
        decides."""
        schemas = {config_schema(tree) for tree in (self._deps.layout.current, self._context.tree)}
        migrates = any(each.status == "migration-required" for each in databases)
        return self._other_version() and (len(schemas) > 1 or migrates)

    def _other_version(self) -> bool:
        return needs_fix(self._context, last_touched_version(self._state))

    async def _fix(self, plugins: PluginInstaller) -> int:
        self._deps.progress("rehearsal: migrating a copy of the state")
        aimed = plugins.openclaw
        fixer = replace(aimed, extra=(*_contract(self._state).items(), *aimed.extra))
        return await fix(fixer, timeout_s=self._deps.config.upgrade.migrate_timeout)

    async def _complete(self, plugins: PluginInstaller) -> str | None:
        """The release's plugins and overlay on the copy; then why Doctor does not pass, if it does not."""
        deps = self._deps
        deps.progress("rehearsal: plugins and overlay")
        await plugins.install(timeout_s=deps.config.upgrade.migrate_timeout)
        overlays = self._context.signed().manifest.overlays_for(deps.role)
        await asyncio.to_thread(apply_overlays, self._state, overlays, self._context.tree)
        deps.progress("rehearsal: Doctor on the copy")
        doctor = await run_doctor(self._openclaw, timeout_s=deps.config.upgrade.doctor_timeout)
        return None if doctor.status is CheckStatus.PASS else doctor.reason

    async def _copy_databases(self) -> list[str]:
        """Anew: a file that was copied while the gateway wrote to it may be torn."""
        copied = []
        for name in await asyncio.to_thread(_databases, self._state):
            copy = self._state / name
            torn = copy.rename(copy.with_name(f"{copy.name}.torn"))
            try:
                await copy_database(self._openclaw, self._deps.config.gateway.state / name, copy)
            except CommandError:
                torn.rename(copy)
                continue
            await asyncio.to_thread(_drop, torn, copy)
            copied.append(name)
        return copied

    async def _preflight(self, databases: list[str]) -> list[Preflight]:
        if OpenClawVersion(self._context.signed().manifest.openclaw) < HAS_PREFLIGHT:
            return []
        return await preflight(self._openclaw, self._state, databases)

    def _rewrite(self) -> int:
        """A port of its own, and the workspaces' copies instead of the workspaces."""
        gateway, port = self._deps.config.gateway, free_port()
        moved = {str(gateway.state): str(self._state)}
        for number, workspace in enumerate(gateway.workspaces):
            moved[str(workspace)] = str(self._state / WORKSPACES / str(number))
        rewrite_settings(self._state, {"gateway": {"port": port}}, moved)
        return port

    async def _start(self, port: int) -> float:
        """Seconds until it was ready. The process and its children are gone afterwards."""
        deps, clock = self._deps, self._deps.clock
        gateway = deps.gateway.at(port)
        limit = deps.config.gateway.ready_timeout
        began = clock.monotonic()
        running = asyncio.create_task(
            self._openclaw.run("gateway", "--port", str(port), timeout_s=limit + 60)
        )
        try:
            while True:
                reading = await gateway.readyz()
                if running.done():
                    raise StepFailed(f"rehearsal: the gateway ended: {_why(running)}")
                if reading.gate is Gate.READY:
                    break
                if clock.monotonic() - began > limit:
                    why = reading.reason or reading.gate
                    raise StepFailed(f"rehearsal: not ready within {limit:.0f} s: {why}")
                await clock.sleep(POLL_S)
            took = round(clock.monotonic() - began, 2)
            version = await gateway.running_version(self._openclaw)
            wanted = self._context.signed().manifest.openclaw
            if version != wanted:
                raise StepFailed(f"rehearsal: {version or 'an unknown version'} runs, not {wanted}")
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return took


def _why(running: asyncio.Task[Any]) -> str:
    error = running.exception()
    return str(error) if error is not None else str(running.result().last_line())


def _lay_out(deps: Deps, root: Path, copies: list[Path]) -> Path:
    """`<root>/state` with the workspaces below it; whom the files belong to stays."""
    account = deps.tools.account
    home = str(deps.layout.home)
    with Folder.own(root) as folder:
        copy_in(copies[0], folder, STATE, home)
    state = root / STATE
    _unlock(state)
    workspaces = state / WORKSPACES
    if len(copies) > 1:
        workspaces.mkdir(mode=0o700, exist_ok=True)
        with Folder.own(workspaces) as folder:
            for number, copy in enumerate(copies[1:]):
                copy_in(copy, folder, str(number), home)
    if account is not None:
        root.chmod(0o711)
        if len(copies) > 1:
            os.chown(workspaces, account.uid, account.gid)
    return state


def _unlock(state: Path) -> None:
    """Locks that came along say that the gateway which serves owns this copy as well: OpenClaw keeps them in
    the state directory, from 2026.8 on as databases beside the files."""
    with Folder.own(state) as folder:
        found = [path for path, stamp in take_inventory(folder).items() if not stamp.is_folder]
    for path in found:
        if LOCK_FILE.search(path):
            (state / path).unlink()


def _databases(state: Path) -> list[str]:
    with Folder.own(state) as folder:
        found = take_inventory(folder)
    return sorted(path for path in found if path.endswith(MAIN_FILES))


def _drop(torn: Path, copy: Path) -> None:
    """The first copy, and its logs: a whole copy has none."""
    torn.unlink()
    for end in ("-wal", "-shm", "-journal"):
        copy.with_name(f"{copy.name}{end}").unlink(missing_ok=True)


def _quiet(root: Path) -> dict[str, str]:
    """For the start: nothing goes out, nothing is scheduled."""
    return {
        **dict.fromkeys(_OFF, "1"),
        "OPENCLAW_HOME": str(root),
        STATE_DIR: str(root),
        "OPENCLAW_CONFIG_PATH": str(root / CONFIG),
    }


def _contract(root: Path) -> dict[str, str]:
    """For what migrates: the whole contract, or 2026.9.3 and later do not keep it."""
    place = str(root)
    return {
        **_quiet(root),
        "USERPROFILE": place,
        "TMPDIR": place,
        "TMP": place,
        "TEMP": place,
        "XDG_CONFIG_HOME": str(root / "config"),
        "XDG_CACHE_HOME": str(root / "cache"),
        "XDG_DATA_HOME": str(root / "data"),
        "XDG_STATE_HOME": str(root / "state"),
        "OPENCLAW_WORKSPACE_DIR": str(root / "workspace"),
        "NODE_DISABLE_COMPILE_CACHE": "1",
        "OPENCLAW_UPDATE_IN_PROGRESS": "0",
        "OPENCLAW_SERVICE_REPAIR_POLICY": "external",
        "OPENCLAW_UPDATE_PARENT_ALLOWS_GATEWAY_SERVICE_REPAIR": "0",
        "OPENCLAW_UPDATE_PARENT_ALLOWS_GATEWAY_ACTIVATION": "0",
    }
