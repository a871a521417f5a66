"""git tag and docker compose (seed 003): `git fetch --tags`, checkout of the release's tag, `up -d`.

Which commit a tag means is settled once, when it is staged, and recorded; the commit is what is checked
out, then and after a rollback. What is in an image, git does not say: here operators sign a version and
not bytes (docs/decisions/0015-installers.md).
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

from agent.config import ComposeConfig
from agent.layout import Layout
from agent.openclaw.cli import OpenClaw
from agent.openclaw.tree import SEAL, read_in, read_seal, seal_tree
from agent.service.compose import Compose, ComposedOpenClaw, Image
from agent.upgrade.bookmark import Bookmark
from agent.upgrade.context import Context, Deps, StepFailed
from agent.upgrade.installers.base import Evidence
from agent.upgrade.installers.staged import is_current, link_back, project_files, write_files
from shared.canonical import parse_json
from shared.command import SYSTEM_PATH, Output, run_command
from shared.durable import switch_link, write_durable
from shared.errors import BadInputError, CommandError
from shared.failpoint import fail_point
from shared.npm import NodeTools
from shared.release import CORE

GIT_TIMEOUT_S = 120.0
BEFORE = "commit-before"
"""In the bookmark's folder: what was checked out before the switch."""
IMAGE = "image-before"
COMMIT = "commit"
"""In a release's folder: what its tag meant when it was staged."""
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_PACKAGE = f"node_modules/{CORE}/package.json"
_PLAIN = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "protocol.ext.allow=never"),
)
"""Nothing in the checkout's own configuration may run a program."""


class ComposeInstaller:
    """Implements Installer."""

    rehearses = False

    def __init__(
        self, config: ComposeConfig, layout: Layout, tools: NodeTools, gateway_home: Path
    ) -> None:
        self._config, self._layout, self._tools = config, layout, tools
        self._gateway_home = gateway_home
        self.compose = Compose(config, gateway_home, str(layout.home))

    def openclaw(self, tree: Path) -> OpenClaw:
        return ComposedOpenClaw(self._tools, tree, self._gateway_home, compose=self.compose)

    async def drift(self, tree: Path) -> str | None:
        head, wanted = await self._head(), await asyncio.to_thread(_read_commit, tree / COMMIT)
        if head != wanted:
            return f"{self._config.checkout} is at {head[:12]}, the release at {wanted[:12]}"
        return None

    async def staged(self, context: Context) -> Evidence | None:
        """The copy of what is checked out now belongs to the upgrade, not to the release."""
        seal = await asyncio.to_thread(read_seal, context.tree)
        before = self._before(context)
        if seal is None or not await asyncio.to_thread(before.exists):
            return None
        commit = await asyncio.to_thread(_read_commit, context.tree / COMMIT)
        return {"commit": commit, "before": await asyncio.to_thread(_read_commit, before)}

    def _before(self, context: Context) -> Path:
        return context.deps.bookmarks.folder(context.record.upgrade) / BEFORE

    async def stage(self, context: Context) -> Evidence:
        release, progress = context.signed(), context.deps.progress
        if release.manifest.plugins:
            raise StepFailed(
                f"release {release.label} has plugins, which belong into the image here",
                remedy="freeze a release without --plugin for nodes that run docker compose",
            )
        progress("fetching tags")
        await self._git(
            "fetch", "--tags", "--", self._config.remote, timeout_s=self._config.fetch_timeout
        )
        if await asyncio.to_thread(read_seal, context.tree) is None:
            commit = await self._resolve(self._config.tag.format(version=release.manifest.openclaw))
            files = {COMMIT: commit.encode(), _PACKAGE: await self._package_json(commit)}
            files.update(await project_files(context, release))
            await asyncio.to_thread(_make_record, context.tree, release.id, files)
        head = (await self._head()).encode()
        await asyncio.to_thread(write_durable, self._before(context), head)
        found = await self.staged(context)
        if found is None:
            raise StepFailed(f"{context.tree} is gone again")
        return found

    async def _resolve(self, tag: str) -> str:
        """A tag to its commit. Raises StepFailed for a name that git does not allow, and for no tag."""
        reference = f"refs/tags/{tag}"
        if (await self._run("check-ref-format", reference)).code != 0:
            raise StepFailed(f"{tag!r} is no name of a tag", remedy="see openclaw.compose.tag")
        found = await self._run(
            "rev-parse", "--verify", "--end-of-options", f"{reference}^{{commit}}"
        )
        commit = found.stdout.decode("ascii", "replace").strip()
        if found.code != 0 or not _COMMIT.fullmatch(commit):
            raise StepFailed(f"{self._config.remote} has no tag {tag}")
        return commit

    async def _package_json(self, commit: str) -> bytes:
        shown = await self._git(
            "show", "--no-textconv", "--end-of-options", f"{commit}:package.json"
        )
        return shown.stdout

    async def _head(self) -> str:
        found = await self._git("rev-parse", "--verify", "--end-of-options", "HEAD^{commit}")
        return found.stdout.decode("ascii", "replace").strip()

    async def verify(self, context: Context) -> Evidence:
        """The commit says the version that operators signed, nothing in the work tree is in its way, and
        compose can read its files at that commit's side."""
        version = context.signed().manifest.openclaw
        raw = await asyncio.to_thread(read_in, context.tree, _PACKAGE)
        about = parse_json(raw, max_bytes=1 << 20, max_depth=64)
        found = about.get("version") if isinstance(about, dict) else None
        commit = await asyncio.to_thread(_read_commit, context.tree / COMMIT)
        if found != version:
            raise StepFailed(f"commit {commit[:12]} is OpenClaw {found}, not {version}")
        dirty = await self._git("status", "--porcelain", "--untracked-files=no")
        if dirty.stdout.strip():
            raise StepFailed(
                f"{self._config.checkout} was changed by hand: {dirty.last_line()}",
                remedy="commit it elsewhere, or: git -C … checkout -- .",
            )
        await self.compose.run("config", "--quiet", timeout_s=GIT_TIMEOUT_S)
        return {"commit": commit, "version": version}

    async def switched(self, context: Context) -> Evidence | None:
        if not await asyncio.to_thread(is_current, context):
            return None
        commit = await asyncio.to_thread(_read_commit, context.tree / COMMIT)
        return {"commit": commit} if await self._head() == commit else None

    async def switch(self, context: Context) -> Evidence:
        """The images are made ready here, so that Doctor and the start after it find them."""
        commit = await asyncio.to_thread(_read_commit, context.tree / COMMIT)
        await self._note_image(context)
        context.deps.progress(f"checking out {commit[:12]}")
        await self._checkout(commit)
        context.deps.progress("preparing containers")
        await self._make_images()
        await asyncio.to_thread(switch_link, self._layout.current, context.tree)
        return {"commit": commit}

    async def _checkout(self, commit: str) -> None:
        """Again after a crash: what an unfinished one left is overwritten, its lock taken away."""
        fail_point("compose.checkout")
        (await asyncio.to_thread(_git_lock, self._config.checkout)).unlink(missing_ok=True)
        await self._git("checkout", "--detach", "--force", commit, "--")
        fail_point("compose.checked-out")

    async def _make_images(self) -> None:
        config = self._config
        words = {"pull": ("pull", config.gateway), "build": ("build", config.gateway)}
        if config.images in words:
            await self.compose.run(*words[config.images], timeout_s=config.up_timeout)

    async def _note_image(self, context: Context) -> None:
        """What the old container was made of: a new image may take its name from it."""
        path = context.deps.bookmarks.folder(context.record.upgrade) / IMAGE
        image = await self.compose.image()
        if image is not None and not await asyncio.to_thread(path.exists):
            await asyncio.to_thread(write_durable, path, image.canonical())

    async def _name_image(self, deps: Deps, bookmark: Bookmark) -> None:
        path = deps.bookmarks.folder(bookmark.upgrade) / IMAGE
        if await asyncio.to_thread(path.exists):
            image = Image.from_bytes(await asyncio.to_thread(path.read_bytes))
            await self.compose.name_image(image)

    async def can_put_back(self, deps: Deps, bookmark: Bookmark) -> None:
        before = deps.bookmarks.folder(bookmark.upgrade) / BEFORE
        commit = await asyncio.to_thread(_read_commit, before)
        if (await self._run("cat-file", "-e", f"{commit}^{{commit}}")).code != 0:
            raise StepFailed(f"{self._config.checkout} has no commit {commit[:12]} any more")

    async def put_back(self, deps: Deps, bookmark: Bookmark) -> None:
        """`up -d` of the start that follows makes the old container out of the old images."""
        before = deps.bookmarks.folder(bookmark.upgrade) / BEFORE
        await self._checkout(await asyncio.to_thread(_read_commit, before))
        await self._name_image(deps, bookmark)
        await link_back(deps, bookmark)

    async def _git(self, *words: str, timeout_s: float = GIT_TIMEOUT_S) -> Output:
        output = await self._run(*words, timeout_s=timeout_s)
        if output.code != 0:
            how = "did not end in time" if output.timed_out else f"failed ({output.code})"
            raise CommandError(f"git {words[0]} {how}: {output.last_line()}")
        return output

    async def _run(self, *words: str, timeout_s: float = GIT_TIMEOUT_S) -> Output:
        config = self._config
        env = {
            **self.compose.environment(),
            "PATH": f"{config.git.parent}:{SYSTEM_PATH}",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_ASKPASS": "/bin/false",
        }
        argv = [str(config.git), "-C", str(config.checkout), *_PLAIN, *words]
        return await run_command(argv, env=env, timeout_s=timeout_s)


def _read_commit(path: Path) -> str:
    """Raises StepFailed when the file is gone or holds anything but a commit."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StepFailed(f"{path} cannot be read: {error}") from error
    if not _COMMIT.fullmatch(text):
        raise StepFailed(f"{path} names no commit")
    return text


def _make_record(tree: Path, release: str, files: dict[str, bytes]) -> None:
    """Lock, commit and the commit's package.json. Without its seal it is not there."""
    try:
        json.loads(files[_PACKAGE])
    except ValueError as error:
        raise BadInputError(f"package.json of the commit is not JSON: {error}") from error
    (tree / SEAL).unlink(missing_ok=True)
    write_files(tree, files)
    seal_tree(tree, release, [])


def _git_lock(checkout: Path) -> Path:
    """Of an earlier checkout that was killed; the agent is the only one that works in this work tree."""
    return checkout / ".git" / "index.lock"
