"""staged: the signed lock's tree, built beside the others while the old gateway serves.

The store may be shared by agents on one host: a lock file makes one of them build, and the others
find the finished tree. Whatever was left half-built is thrown away, never completed (fault 14).
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import IO, ClassVar

from agent.openclaw.handover import hand_over, lend
from agent.openclaw.tree import LOCK, read_seal, seal_tree
from agent.upgrade.context import Context
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from shared.account import Account
from shared.archive import check_archive
from shared.durable import hold_lock, sync_directory
from shared.errors import ConflictError
from shared.lock import Lock, parse_lock
from shared.release import Release

TURN_EVERY_S = 0.5
COUNT_EVERY_S = 5.0
MODULES = "node_modules"


class Stage:
    phase: ClassVar = Phase.STAGED

    async def done(self, context: Context) -> Evidence | None:
        seal = await asyncio.to_thread(read_seal, context.tree)
        return None if seal is None else {"tree_sha256": seal.tree_sha256, "built_here": False}

    async def act(self, context: Context) -> Evidence:
        store = context.deps.layout.releases
        turn = await self._wait_for_turn(context, store / f".{context.record.target.release}.lock")
        try:
            found = await self.done(context)
            return found or await self._build(context, store)
        finally:
            turn.close()

    async def _wait_for_turn(self, context: Context, path: Path) -> IO[bytes]:
        while True:
            try:
                return hold_lock(path, what="this release's tree")
            except ConflictError:
                context.deps.progress("waiting for another agent to finish staging")
                await context.deps.clock.sleep(TURN_EVERY_S)

    async def _build(self, context: Context, store: Path) -> Evidence:
        release = context.signed()
        prefix = f".{release.id}.partial-"
        await asyncio.to_thread(_sweep, store, prefix)
        partial = store / f"{prefix}{secrets.token_hex(4)}"
        try:
            await self._fill(context, release, partial)
            seal = await asyncio.to_thread(_seal, partial, context.tree, release)
        finally:
            await asyncio.to_thread(shutil.rmtree, partial, True)
        return {"tree_sha256": seal, "built_here": True}

    async def _fill(self, context: Context, release: Release, partial: Path) -> None:
        deps, progress = context.deps, context.deps.progress
        progress("fetching the lock")
        files = {LOCK: await deps.releases.lock(release)}
        files["package-lock.json"] = files[LOCK]
        files["package.json"] = json.dumps(release.manifest.package_json(), indent=2).encode()
        for artifact in release.manifest.artifacts:
            progress(f"fetching {artifact.file}")
            body = await deps.releases.artifact(release, artifact.sha256)
            await asyncio.to_thread(check_archive, body)
            files[f"artifacts/{artifact.file}"] = body
        await asyncio.to_thread(_write_project, partial, files, deps.tools.account)
        await self._install(context, partial, parse_lock(files[LOCK]))
        if release.manifest.allow_scripts:
            progress("running the install scripts that the release lists")
            await deps.npm.run_scripts(partial, list(release.manifest.allow_scripts))
        # The first call of a fresh package writes into it; let it, before the tree is sealed.
        await deps.openclaw(partial).version()
        if deps.tools.account is not None:
            progress("taking the tree over")
            home, modules = str(deps.layout.home), partial / MODULES
            await asyncio.to_thread(hand_over, modules, deps.tools.account, home)
        progress("hashing the tree")

    async def _install(self, context: Context, partial: Path, lock: Lock) -> None:
        """npm prints no progress that can be read; the packages that have arrived can be counted."""
        deps, total = context.deps, len(lock.packages)

        async def count() -> None:
            while True:
                there = await asyncio.to_thread(_arrived, partial, lock)
                deps.progress(f"npm ci: {there} of {total} packages")
                await deps.clock.sleep(COUNT_EVERY_S)

        counting = asyncio.create_task(count())
        try:
            await deps.npm.install_locked(partial)
        finally:
            counting.cancel()


def _arrived(partial: Path, lock: Lock) -> int:
    return sum((partial / package.path / "package.json").exists() for package in lock.packages)


def _write_project(partial: Path, files: dict[str, bytes], account: Account | None) -> None:
    """The project stays ours, and only node_modules is npm's: nobody puts a .npmrc beside package.json,
    and the lock stays the one that was signed. Modes are set, for the agent's umask lets nobody read.
    """
    for name, body in files.items():
        path = partial / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        path.chmod(0o644)
        path.parent.chmod(0o755)
    if account is not None:
        lend(partial / MODULES, account)


def _seal(partial: Path, tree: Path, release: Release) -> str:
    seal = seal_tree(partial, release.id, list(release.manifest.plugins))
    os.sync()
    shutil.rmtree(tree, ignore_errors=True)  # without its seal it was never a whole tree
    partial.rename(tree)
    sync_directory(tree.parent)
    return seal.tree_sha256


def _sweep(store: Path, prefix: str) -> None:
    """Leftovers of an agent that was killed while it built; we hold the lock, so nobody is building."""
    for path in store.glob(f"{prefix}*"):
        shutil.rmtree(path, ignore_errors=True)
