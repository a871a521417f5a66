"""The default: a tree of its own for every release, from the signed lock, and a link that is switched.

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
from typing import IO

from agent.layout import Layout
from agent.openclaw.cli import OpenClaw
from agent.openclaw.handover import hand_over, lend
from agent.openclaw.tarballs import fetch_tarballs
from agent.openclaw.tree import LOCK, read_in, read_seal, seal_tree, verify_tree
from agent.upgrade.bookmark import Bookmark
from agent.upgrade.context import Context, Deps, StepFailed
from agent.upgrade.installers.base import Evidence
from shared.account import Account
from shared.archive import check_archive
from shared.durable import hold_lock, remove_link, switch_link, sync_directory
from shared.errors import ConflictError
from shared.lock import Lock, parse_lock
from shared.npm import NodeTools
from shared.release import CORE, Release

TURN_EVERY_S = 0.5
COUNT_EVERY_S = 5.0
MODULES = "node_modules"


class StagedInstaller:
    """Implements Installer."""

    rehearses = True

    def __init__(self, layout: Layout, tools: NodeTools, gateway_home: Path) -> None:
        self._layout, self._tools, self._gateway_home = layout, tools, gateway_home

    def openclaw(self, tree: Path) -> OpenClaw:
        return OpenClaw(self._tools, tree, self._gateway_home)

    async def drift(self, tree: Path) -> str | None:
        return None  # readiness reads the tree itself

    async def staged(self, context: Context) -> Evidence | None:
        seal = await asyncio.to_thread(read_seal, context.tree)
        return None if seal is None else {"tree_sha256": seal.tree_sha256, "built_here": False}

    async def stage(self, context: Context) -> Evidence:
        store = self._layout.releases
        turn = await _wait_for_turn(context, store / f".{context.record.target.release}.lock")
        try:
            found = await self.staged(context)
            return found or await self._build(context, store)
        finally:
            turn.close()

    async def _build(self, context: Context, store: Path) -> Evidence:
        release = context.signed()
        prefix = f".{release.id}.partial-"
        await asyncio.to_thread(sweep, store, prefix)
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
        files = await project_files(context, release)
        await asyncio.to_thread(_write_project, partial, files, deps.tools.account)
        lock = parse_lock(files[LOCK])
        await self._install(context, partial, lock)
        if release.manifest.plugins:
            progress("fetching the plugins' tarballs")
            await fetch_tarballs(deps.npm, lock, list(release.manifest.plugins), partial)
        if release.manifest.allow_scripts:
            progress("running the install scripts that the release lists")
            await deps.npm.run_scripts(partial, list(release.manifest.allow_scripts))
        # The first call of a fresh package writes into it; let it, before the tree is sealed.
        await self.openclaw(partial).version()
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

    async def verify(self, context: Context) -> Evidence:
        """Every file of the staged tree against its seal, every package against the lock."""
        release, deps, tree = context.signed(), context.deps, context.tree
        deps.progress("checking every file against the lock")
        seal = await asyncio.to_thread(verify_tree, tree, release.id, release.manifest.lock_sha256)
        lock = parse_lock(await asyncio.to_thread(read_in, tree, LOCK))
        check_single(lock, release)
        problem, listing = await deps.npm.list_problems(tree)
        if problem:
            raise StepFailed(f"npm ls: {problem}")
        deps.listings.keep(seal.tree_sha256, listing)
        version = await self.openclaw(tree).version()
        if version != release.manifest.openclaw:
            raise StepFailed(
                f"the staged OpenClaw says {version}; the release says {release.manifest.openclaw}"
            )
        return {"tree_sha256": seal.tree_sha256, "files": seal.files, "version": version}

    async def switched(self, context: Context) -> Evidence | None:
        here = await asyncio.to_thread(is_current, context)
        return {"tree": context.tree.name} if here else None

    async def switch(self, context: Context) -> Evidence:
        await asyncio.to_thread(switch_link, self._layout.current, context.tree)
        return {"tree": context.tree.name}

    async def can_put_back(self, deps: Deps, bookmark: Bookmark) -> None:
        check_previous(deps, bookmark)

    async def put_back(self, deps: Deps, bookmark: Bookmark) -> None:
        await link_back(deps, bookmark)


async def project_files(context: Context, release: Release) -> dict[str, bytes]:
    """By name: lock, package.json and artifacts of a release, checked as far as they can be unopened."""
    deps = context.deps
    files = {LOCK: await deps.releases.lock(release)}
    files["package-lock.json"] = files[LOCK]
    files["package.json"] = json.dumps(release.manifest.package_json(), indent=2).encode()
    for artifact in release.manifest.artifacts:
        deps.progress(f"fetching {artifact.file}")
        body = await deps.releases.artifact(release, artifact.sha256)
        await asyncio.to_thread(check_archive, body)
        files[f"artifacts/{artifact.file}"] = body
    return files


def check_single(lock: Lock, release: Release) -> None:
    """Two cores, or two of a plugin, are the split of which nobody knows who runs. Raises StepFailed."""
    if twice := lock.duplicates_of([CORE, *release.manifest.plugins]):
        raise StepFailed(f"{twice[0]} stands more than once in the tree")


def is_current(context: Context) -> bool:
    current = context.deps.layout.current
    return current.is_symlink() and current.resolve() == context.tree.resolve()


def check_previous(deps: Deps, bookmark: Bookmark) -> None:
    previous = None if bookmark.previous is None else deps.tree(bookmark.previous)
    if previous is not None and not previous.is_dir():
        raise StepFailed(f"the previous tree {previous} is gone")


async def link_back(deps: Deps, bookmark: Bookmark) -> None:
    current = deps.layout.current
    if bookmark.previous is None:
        await asyncio.to_thread(remove_link, current)
    else:
        await asyncio.to_thread(switch_link, current, deps.tree(bookmark.previous))


async def _wait_for_turn(context: Context, path: Path) -> IO[bytes]:
    while True:
        try:
            return hold_lock(path, what="this release's tree")
        except ConflictError:
            context.deps.progress("waiting for another agent to finish staging")
            await context.deps.clock.sleep(TURN_EVERY_S)


def _arrived(partial: Path, lock: Lock) -> int:
    return sum((partial / package.path / "package.json").exists() for package in lock.packages)


def _write_project(partial: Path, files: dict[str, bytes], account: Account | None) -> None:
    """The project stays ours, and only node_modules is npm's: nobody puts a .npmrc beside package.json,
    and the lock stays the one that was signed. Modes are set, for the agent's umask lets nobody read.
    """
    write_files(partial, files)
    if account is not None:
        lend(partial / MODULES, account)


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, body in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        path.chmod(0o644)
        path.parent.chmod(0o755)


def _seal(partial: Path, tree: Path, release: Release) -> str:
    seal = seal_tree(partial, release.id, list(release.manifest.plugins))
    os.sync()
    shutil.rmtree(tree, ignore_errors=True)  # without its seal it was never a whole tree
    partial.rename(tree)
    sync_directory(tree.parent)
    return seal.tree_sha256


def sweep(store: Path, prefix: str) -> None:
    """Leftovers of an agent that was killed while it built; we hold the lock, so nobody is building."""
    for path in store.glob(f"{prefix}*"):
        shutil.rmtree(path, ignore_errors=True)
