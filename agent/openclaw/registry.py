"""An npm registry on loopback that has exactly the packages whose tarballs a tree keeps.

Whatever version range npm is asked for, it finds only what operators signed; and what arrives is checked
against the signed lock's hash by npm, and here. Lives for as long as one call of OpenClaw needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from agent.openclaw.cli import OpenClaw
from agent.openclaw.tarballs import read_tarball, tarball_name
from shared.archive import read_json_file
from shared.command import SYSTEM_PATH
from shared.errors import RollcallError
from shared.lock import LockedPackage
from shared.scratch import give, make_scratch

HOST = "127.0.0.1"
WAIT_AT_STOP_S = 1.0
SHIM = '#!/bin/sh\nexec "{node}" "{npm}" "$@"\n'


class LockedRegistry:
    """Async context manager; `url` is set inside. Anything but the named packages is 404."""

    def __init__(self, tree: Path, packages: list[LockedPackage]) -> None:
        self._tree, self._packages = tree, packages
        self._documents: dict[str, dict[str, Any]] = {}
        self._integrities = {tarball_name(str(each.integrity)): each.integrity for each in packages}
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> LockedRegistry:
        """Raises UntrustedError when a tarball is missing or changed."""
        application = web.Application()
        application.router.add_get("/-/{file}", self._tarball)
        application.router.add_get("/{name:.+}", self._document)
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=WAIT_AT_STOP_S, handle_signals=False
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0)
        try:
            await site.start()
            self.url = f"http://{HOST}:{self._runner.addresses[0][1]}/"
            await asyncio.to_thread(self._describe)
        except OSError as error:
            await self._runner.cleanup()
            raise RollcallError(f"cannot listen on {HOST}: {error}") from error
        except RollcallError:
            await self._runner.cleanup()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def _describe(self) -> None:
        """The registry's document of each package, made from the tarball and from nothing else."""
        for package in self._packages:
            body = read_tarball(self._tree, str(package.integrity))
            manifest = read_json_file(body)
            place = f"{self.url}-/{tarball_name(str(package.integrity))}"
            manifest["dist"] = {
                "tarball": place,
                "integrity": package.integrity,
                "shasum": hashlib.sha1(body, usedforsecurity=False).hexdigest(),
            }
            document = self._documents.setdefault(
                package.name, {"name": package.name, "dist-tags": {}, "versions": {}}
            )
            document["versions"][package.version] = manifest
            document["dist-tags"]["latest"] = package.version

    async def _document(self, request: web.Request) -> web.Response:
        document = self._documents.get(unquote(request.match_info["name"]))
        if document is None:
            return web.json_response({"error": "not in the signed lock"}, status=404)
        return web.json_response(document)

    async def _tarball(self, request: web.Request) -> web.Response:
        integrity = self._integrities.get(request.match_info["file"])
        if integrity is None:
            return web.json_response({"error": "not in the signed lock"}, status=404)
        body = await asyncio.to_thread(read_tarball, self._tree, integrity)
        return web.Response(body=body, content_type="application/octet-stream")


@contextlib.asynccontextmanager
async def aimed_at_lock(
    openclaw: OpenClaw, tree: Path, packages: list[LockedPackage]
) -> AsyncIterator[OpenClaw]:
    """An OpenClaw whose npm finds `packages`, out of the tarballs of `tree`, and nothing else."""
    scratch = await asyncio.to_thread(_make_place, openclaw)
    try:
        async with LockedRegistry(tree, packages) as registry:
            aim = _aim(openclaw, scratch, registry.url)
            yield replace(openclaw, extra=(*openclaw.extra, *aim))
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch, True)


def _make_place(openclaw: OpenClaw) -> Path:
    """A cache of our own, which holds nothing that was fetched before, and an `npm` that is the agent's
    whatever lies beside Node."""
    tools = openclaw.tools
    scratch = make_scratch(tools.scratch, tools.account, None)
    shim = scratch / "bin" / "npm"
    shim.parent.mkdir()
    shim.write_text(SHIM.format(node=tools.node, npm=tools.npm_cli))
    for path in (shim, shim.parent):
        path.chmod(0o700)
        give(path, tools.account)
    return scratch


def _aim(openclaw: OpenClaw, scratch: Path, url: str) -> list[tuple[str, str]]:
    """OPENCLAW_PATH_BOOTSTRAPPED keeps OpenClaw from putting Node's folder before ours in PATH."""
    return [
        ("PATH", f"{scratch / 'bin'}:{openclaw.tools.node.parent}:{SYSTEM_PATH}"),
        ("OPENCLAW_PATH_BOOTSTRAPPED", "1"),
        ("npm_config_registry", url),
        ("npm_config_cache", str(scratch / "cache")),
        ("npm_config_omit_lockfile_registry_resolved", "true"),
        ("npm_config_fetch_retries", "0"),
    ]
