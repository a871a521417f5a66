"""Plugins of a release, installed where OpenClaw looks for them: core first, then they in signed order.

`openclaw plugins install npm:NAME@VERSION` is the one form after which OpenClaw trusts a plugin of its
own makers and keeps it with the core (docs/decisions/0016-plugins.md). npm may then fetch from nowhere but
a registry on loopback that has what the signed lock names (P6), and what npm has laid down is compared with
the tarballs, file by file, before the gateway is started on it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.openclaw.cli import OpenClaw
from agent.openclaw.installed import check_installed
from agent.openclaw.registry import aimed_at_lock
from agent.openclaw.tarballs import read_tarball
from agent.openclaw.tree import LOCK, MANIFEST, read_in
from shared.archive import file_digests, read_json_file
from shared.errors import BadInputError, CommandError, UntrustedError
from shared.failpoint import fail_point
from shared.lock import LockedPackage, parse_lock
from shared.release import Release

QUERY_TIMEOUT_S = 120.0
CONSENT = "--accept-capabilities"
"""Who signed the release has consented. Releases of OpenClaw that do not ask lack the option."""


@dataclass(frozen=True)
class Plugin:
    """One that the release names. `id` is what OpenClaw calls it."""

    id: str
    package: LockedPackage


class PluginInstaller:
    """For one release, while its registry is open. `openclaw` downloads nothing else meanwhile."""

    def __init__(
        self, openclaw: OpenClaw, tree: Path, plugins: list[Plugin], packages: list[LockedPackage]
    ) -> None:
        self.openclaw = openclaw
        self._tree, self._plugins, self._packages = tree, plugins, packages

    async def install(self, *, timeout_s: float) -> dict[str, Any]:
        """Bring the plugins in, and check them. Can be called again after a crash.

        Returns evidence: `installed` and `kept` (stood there already). Raises CommandError or
        UntrustedError.
        """
        installed, kept = [], []
        for plugin in self._plugins:
            if await self._stands(plugin):
                kept.append(plugin.id)
                continue
            await self._install(plugin, timeout_s)
            installed.append(plugin.id)
        return {"installed": installed, "kept": kept}

    async def check(self) -> None:
        """Raises CommandError for one that is not there, UntrustedError for one that is not as signed."""
        for plugin in self._plugins:
            await self._check(plugin)

    async def _stands(self, plugin: Plugin) -> bool:
        try:
            await self._check(plugin)
        except (CommandError, UntrustedError):
            return False
        return True

    async def _install(self, plugin: Plugin, timeout_s: float) -> None:
        spec = f"npm:{plugin.package.name}@{plugin.package.version}"
        words = ["plugins", "install", spec, "--pin", "--force"]
        if await self._asks_consent():
            words.append(CONSENT)
        fail_point(f"plugin.{plugin.id}")
        output = await self.openclaw.run(*words, timeout_s=timeout_s)
        fail_point(f"plugged.{plugin.id}")
        if output.timed_out:
            raise CommandError(f"openclaw plugins install {spec} did not end in time")
        if output.code != 0:
            raise CommandError(
                f"openclaw plugins install {spec} failed ({output.code}): {output.last_line()}"
            )
        await self._check(plugin)

    async def _asks_consent(self) -> bool:
        output = await self.openclaw.run("plugins", "install", "--help", timeout_s=QUERY_TIMEOUT_S)
        return CONSENT.encode() in output.stdout

    async def _check(self, plugin: Plugin) -> None:
        """OpenClaw's own record of it, and every file. Raises CommandError when there is none."""
        _, about = await self.openclaw.run_json(
            "plugins", "inspect", plugin.id, "--json", timeout_s=QUERY_TIMEOUT_S
        )
        record = about.get("install")
        if not isinstance(record, dict):
            raise CommandError(f"OpenClaw has no record of plugin {plugin.id}")
        has = tuple(record.get(key) for key in ("source", "resolvedName", "version", "integrity"))
        package = plugin.package
        if has != ("npm", package.name, package.version, package.integrity):
            shown = ", ".join(str(each)[:80] for each in has)
            raise UntrustedError(f"plugin {plugin.id} is not the one in openclaw.lock: {shown}")
        folder = Path(str(record.get("installPath")))
        state = self.openclaw.state
        if ".." in folder.parts or not folder.is_relative_to(state):
            raise UntrustedError(f"plugin {plugin.id} was installed outside of {state}: {folder}")
        await asyncio.to_thread(self._compare, folder, plugin)

    def _compare(self, folder: Path, plugin: Plugin) -> None:
        contents = {
            (each.name, each.version): file_digests(read_tarball(self._tree, str(each.integrity)))
            for each in self._packages
        }
        modules = folder.parents[plugin.package.name.count("/")]
        check_installed(modules, contents)

    async def others(self) -> list[dict[str, str]]:
        """Plugins that the release does not name: they stay as they are. A call of OpenClaw, where there are
        signs of any: not for an outage."""
        state = self.openclaw.state
        if not self._plugins and not await asyncio.to_thread(_holds_plugins, state):
            return []
        _, value = await self.openclaw.run_json(
            "plugins", "list", "--json", timeout_s=QUERY_TIMEOUT_S
        )
        listed = value.get("plugins")
        named = {plugin.id for plugin in self._plugins}
        return [
            {key: str(each.get(key))[:80] for key in ("id", "version", "origin")}
            for each in (listed if isinstance(listed, list) else [])
            if isinstance(each, dict)
            and each.get("origin") != "bundled"
            and each.get("id") not in named
        ]


def _holds_plugins(state: Path) -> bool:
    folders = (state / "npm" / "projects", state / "extensions")
    return any(folder.is_dir() and any(folder.iterdir()) for folder in folders)


@contextlib.asynccontextmanager
async def plugins_of(
    release: Release, tree: Path, openclaw: OpenClaw
) -> AsyncIterator[PluginInstaller]:
    """Open the release's registry and aim OpenClaw's npm at it. `tree` holds lock and tarballs.

    Worth having for a release without plugins as well: OpenClaw's own `doctor --fix` downloads plugins
    that match a new core, and must not find any that nobody signed.
    """
    names = list(release.manifest.plugins)
    lock = parse_lock(await asyncio.to_thread(read_in, tree, LOCK))
    packages = lock.closure(names)
    plugins = await asyncio.to_thread(_read_plugins, tree, names, packages)
    async with aimed_at_lock(openclaw, tree, packages) as aimed:
        yield PluginInstaller(aimed, tree, plugins, packages)


def _read_plugins(tree: Path, names: list[str], packages: list[LockedPackage]) -> list[Plugin]:
    found = []
    for name in names:
        package = next(each for each in packages if each.path == f"node_modules/{name}")
        manifest = read_json_file(read_tarball(tree, str(package.integrity)), MANIFEST)
        if not isinstance(manifest.get("id"), str):
            raise BadInputError(f"{name}: {MANIFEST} has no id")
        found.append(Plugin(manifest["id"], package))
    return found
