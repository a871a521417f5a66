"""The folder that stands for a release where the packages lie in npm's global tree: lock, tarballs of
everything in it, the hash of every file, seal, and a link to where npm keeps packages."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import secrets
import shutil
import sys
from pathlib import Path

from agent.openclaw.tarballs import fetch_tarballs, read_tarball
from agent.openclaw.tree import LOCK, PLUGINS, read_in, read_seal, seal_tree
from agent.upgrade.context import Context, StepFailed
from agent.upgrade.installers.nativepackage import write_contents
from agent.upgrade.installers.staged import MODULES, project_files, sweep, write_files
from shared.archive import read_json_file
from shared.canonical import sha256_hex
from shared.durable import sync_directory
from shared.lock import Lock, LockedPackage, parse_lock
from shared.release import CORE

_CPU = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


async def make_record(context: Context, modules: Path) -> None:
    """Below the store, whole or not at all."""
    deps, release = context.deps, context.signed()
    store = deps.layout.releases
    prefix = f".{release.id}.partial-"
    await asyncio.to_thread(sweep, store, prefix)
    partial = store / f"{prefix}{secrets.token_hex(4)}"
    try:
        files = await project_files(context, release)
        await asyncio.to_thread(write_files, partial, files)
        lock = parse_lock(files[LOCK])
        names = [CORE, *release.manifest.plugins]
        deps.progress("fetching the tarballs of the lock")
        await fetch_tarballs(deps.npm, fitting(lock), names, partial)
        deps.progress("noting every file of the lock")
        packages = fitting(lock).closure([CORE])
        await asyncio.to_thread(write_contents, partial, packages)
        await asyncio.to_thread(_describe, partial, lock, list(release.manifest.plugins))
        await asyncio.to_thread(_finish, partial, context, modules)
    finally:
        await asyncio.to_thread(shutil.rmtree, partial, True)


async def packages_of(context: Context) -> list[LockedPackage]:
    """What npm may be given. Raises StepFailed when the record is not of this release."""
    release = context.signed()
    seal = await asyncio.to_thread(read_seal, context.tree)
    raw = await asyncio.to_thread(read_in, context.tree, LOCK)
    if seal is None or seal.release != release.id:
        raise StepFailed(f"{context.tree} is not a complete record of this release")
    if sha256_hex(raw) != release.manifest.lock_sha256:
        raise StepFailed(f"{context.tree / LOCK} is not the lock that was signed")
    return fitting(parse_lock(raw)).closure([CORE, *release.manifest.plugins])


def fitting(lock: Lock) -> Lock:
    """Without what npm would not install on this machine."""
    cpu = _CPU.get(platform.machine().lower(), platform.machine().lower())
    fits = [
        each for each in lock.packages if _allows(each.os, sys.platform) and _allows(each.cpu, cpu)
    ]
    return Lock(packages=fits)


def _allows(words: list[str], this: str) -> bool:
    """npm's rule: a list of names, or of names with `!` for those it is not for."""
    if not words:
        return True
    return f"!{this}" not in words and (
        this in words or all(each.startswith("!") for each in words)
    )


def _describe(partial: Path, lock: Lock, plugins: list[str]) -> None:
    """What each plugin's own package says, for readiness."""
    tops = {each.path: each for each in lock.packages}
    for name in plugins:
        body = read_tarball(partial, str(tops[f"node_modules/{name}"].integrity))
        about = json.dumps(read_json_file(body)).encode()
        write_files(partial, {f"{PLUGINS}/{name}/package.json": about})


def _finish(partial: Path, context: Context, modules: Path) -> None:
    """The seal covers what is ours; the link leads to what npm keeps, which every update changes."""
    release, tree = context.signed(), context.tree
    seal_tree(partial, release.id, list(release.manifest.plugins))
    (partial / MODULES).symlink_to(modules)
    os.sync()
    shutil.rmtree(tree, ignore_errors=True)
    partial.rename(tree)
    sync_directory(tree.parent)
