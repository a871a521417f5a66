"""`openclaw update` on OpenClaw's global npm installation, for those who want its own updater to do it.

Its npm finds the signed lock's packages on loopback and nothing else, and what it has laid down is compared
with their tarballs. Its own way back does not work (OPENCLAW.md, law 3): the bookmark holds the whole
package, copied while the old gateway serves, and a rollback puts that copy in place.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from agent.config import NativeConfig
from agent.layout import Layout
from agent.openclaw.cli import OpenClaw
from agent.openclaw.registry import aimed_at_lock
from agent.openclaw.tree import LOCK, core_version, read_in, read_seal
from agent.upgrade.bookmark import Bookmark
from agent.upgrade.context import Context, Deps, StepFailed
from agent.upgrade.installers.base import Evidence
from agent.upgrade.installers.nativepackage import (
    PackageCopy,
    check_contents,
    find_leftovers,
    read_contents,
    remove_leftovers,
)
from agent.upgrade.installers.nativerecord import make_record, packages_of
from agent.upgrade.installers.nativerun import judge_update, unfinished_run
from agent.upgrade.installers.staged import check_single, is_current, link_back
from shared.canonical import canonical_json, parse_json
from shared.command import end_marked
from shared.durable import switch_link, write_durable
from shared.failpoint import fail_point
from shared.lock import parse_lock
from shared.npm import NodeTools
from shared.release import CORE

BEGUN, DONE = "native-begun", "native-done.json"
"""In the bookmark's folder: that OpenClaw's updater was started, and how it ended well."""
MARK = "ROLLCALL_UPDATE"
"""In the environment of the updater, so that helpers which it hands over to are found as well."""
STATUS_TIMEOUT_S = 120.0


class NativeInstaller:
    """Implements Installer."""

    rehearses = False

    def __init__(
        self, config: NativeConfig, layout: Layout, tools: NodeTools, gateway_home: Path
    ) -> None:
        self._config, self._layout, self._tools = config, layout, tools
        self._gateway_home = gateway_home
        self._modules = config.prefix / "lib" / "node_modules"
        self._package = self._modules / CORE

    def openclaw(self, tree: Path) -> OpenClaw:
        """Whatever tree is asked for: there is one installation."""
        program = (str(self._tools.node), str(self._package / "openclaw.mjs"))
        prefix = (("npm_config_prefix", str(self._config.prefix)),)
        return OpenClaw(self._tools, tree, self._gateway_home, program, prefix)

    async def drift(self, tree: Path) -> str | None:
        """Versions of everything that is installed, against the lock."""
        lock = parse_lock(await asyncio.to_thread(read_in, tree, LOCK))
        wanted = {(each.name, each.version) for each in lock.packages}
        return await asyncio.to_thread(check_contents, self._package, None, wanted)

    async def staged(self, context: Context) -> Evidence | None:
        seal = await asyncio.to_thread(read_seal, context.tree)
        copy = await asyncio.to_thread(self._copy(context.deps, context.record.upgrade).read)
        if seal is None or copy is None:
            return None
        return {"tree_sha256": seal.tree_sha256, "package_sha256": copy.sha256}

    async def stage(self, context: Context) -> Evidence:
        if not await asyncio.to_thread((self._package / "package.json").is_file):
            raise StepFailed(
                f"{self._package} holds no OpenClaw",
                remedy='install it there once with npm install -g, or use installer = "staged"',
            )
        if await asyncio.to_thread(read_seal, context.tree) is None:
            await make_record(context, self._modules)
        context.deps.progress("copying the installed package")
        copy = self._copy(context.deps, context.record.upgrade)
        if await asyncio.to_thread(copy.read) is None:
            await asyncio.to_thread(copy.make)
        found = await self.staged(context)
        if found is None:
            raise StepFailed("the copy of the installed package is gone again")
        return found

    def _copy(self, deps: Deps, upgrade: str) -> PackageCopy:
        return PackageCopy(
            deps.bookmarks.folder(upgrade), self._config.prefix, str(self._layout.home)
        )

    async def verify(self, context: Context) -> Evidence:
        """The record against what was signed, and that OpenClaw's updater is free and knows this
        installation. Refuses to begin on the leftovers of an update that somebody else has not ended."""
        release = context.signed()
        packages = await packages_of(context)
        check_single(parse_lock(await asyncio.to_thread(read_in, context.tree, LOCK)), release)
        if left := await asyncio.to_thread(find_leftovers, self._modules):
            raise StepFailed(
                f"{left[0]} is left of an update that did not end",
                remedy="openclaw update status; openclaw update repair",
            )
        _, status = await self.openclaw(context.tree).run_json(
            "update", "status", "--json", timeout_s=STATUS_TIMEOUT_S
        )
        if reason := unfinished_run(status, self._package):
            raise StepFailed(reason, remedy="openclaw update status; openclaw update repair")
        return {"packages": len(packages), "lock_sha256": release.manifest.lock_sha256}

    async def switched(self, context: Context) -> Evidence | None:
        result = self._place(context, DONE)
        if not await asyncio.to_thread(is_current, context):
            return None
        if not await asyncio.to_thread(result.exists):
            return None
        return dict(parse_json(await asyncio.to_thread(result.read_bytes)))

    async def switch(self, context: Context) -> Evidence:
        """An updater that was cut short has left nobody knows what: the rollback puts the copies back."""
        done = self._place(context, DONE)
        if not await asyncio.to_thread(done.exists):
            if await asyncio.to_thread(self._place(context, BEGUN).exists):
                raise StepFailed("OpenClaw's own update was cut short")
            evidence = await self._update(context)
            await asyncio.to_thread(write_durable, done, canonical_json(evidence))
        await asyncio.to_thread(switch_link, self._layout.current, context.tree)
        return dict(parse_json(await asyncio.to_thread(done.read_bytes)))

    def _place(self, context: Context, name: str) -> Path:
        return context.deps.bookmarks.folder(context.record.upgrade) / name

    async def _update(self, context: Context) -> Evidence:
        release = context.signed()
        version = release.manifest.openclaw
        await asyncio.to_thread(write_durable, self._place(context, BEGUN), b"")
        evidence: Evidence = {"update": None}
        if await asyncio.to_thread(core_version, context.tree) != version:
            evidence["update"] = await self._run(context, version)
        contents = await asyncio.to_thread(read_contents, context.tree)
        lock = parse_lock(await asyncio.to_thread(read_in, context.tree, LOCK))
        wanted = {(each.name, each.version) for each in lock.packages}
        context.deps.progress("checking every file of the installed package")
        if reason := await asyncio.to_thread(check_contents, self._package, contents, wanted):
            raise StepFailed(reason)
        if left := await asyncio.to_thread(find_leftovers, self._modules):
            raise StepFailed(f"OpenClaw's updater has left {left[0]}, so it has not ended")
        return evidence

    async def _run(self, context: Context, version: str) -> Evidence:
        """Whatever it has started ends with it, if it does not end well: a helper of its own must not
        write under the rollback."""
        mark = secrets.token_hex(16)
        words = ("update", "--tag", version, "--json", "--yes", "--no-restart")
        packages = await packages_of(context)
        context.deps.progress(f"openclaw {' '.join(words)}")
        openclaw = self.openclaw(context.tree)
        fail_point("native.update")
        try:
            async with aimed_at_lock(openclaw, context.tree, packages) as aimed:
                marked = OpenClaw(
                    aimed.tools, aimed.tree, aimed.home, aimed.program, (*aimed.extra, (MARK, mark))
                )
                output = await marked.run(*words, timeout_s=self._config.update_timeout)
        finally:
            await asyncio.to_thread(end_marked, MARK, mark)
        fail_point("native.updated")
        return judge_update(output, version)

    async def can_put_back(self, deps: Deps, bookmark: Bookmark) -> None:
        if await asyncio.to_thread(self._copy(deps, bookmark.upgrade).read) is None:
            raise StepFailed("the copy of the package that ran before is gone")

    async def put_back(self, deps: Deps, bookmark: Bookmark) -> None:
        copy = self._copy(deps, bookmark.upgrade)
        await asyncio.to_thread(copy.put_back)
        await asyncio.to_thread(remove_leftovers, self._modules)
        await link_back(deps, bookmark)
