"""Where OpenClaw takes plugins and skills up, driven by its own commands. The bytes come from the shelf alone."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from agent.capabilities.shelf import Shelf
from agent.openclaw.cli import OpenClaw
from agent.openclaw.plugins import Plugin, PluginInstaller
from agent.openclaw.registry import aimed_at_lock
from agent.openclaw.settings import apply_overlays, read_settings
from agent.openclaw.tree import MANIFEST
from shared.archive import digest_as_npm, file_digests, read_json_file
from shared.capability import Capability
from shared.errors import BadInputError, CommandError, ConflictError, UntrustedError
from shared.failpoint import fail_point
from shared.scratch import give, make_scratch
from shared.untrusted import Folder

QUERY_TIMEOUT_S = 120.0
INSTALL_TIMEOUT_S = 300.0
SKILLS = "skills"
NOTES = ".openclaw"
"""Where OpenClaw writes down inside of a skill where that came from."""
MAX_SKILL_FILE = 64 << 20
MAX_DEPTH = 32


class Site(Protocol):
    """One kind's place. `check_free` is asked before the first change; `stands` says why what is there is not what
    was signed, and is empty when it is. All but `check_free` can be called again after a crash."""

    needs_outage: bool

    async def check_free(self, openclaw: OpenClaw, capability: Capability) -> None: ...
    async def stands(self, openclaw: OpenClaw, capability: Capability) -> str: ...
    async def install(self, openclaw: OpenClaw, capability: Capability) -> None: ...
    async def remove(self, openclaw: OpenClaw, name: str) -> None: ...


class PluginSite:
    """`openclaw plugins install npm:NAME@VERSION` against a registry that has the bundle's tarballs and nothing else
    (docs/decisions/0016-plugins.md). The gateway is stopped meanwhile: a running one restarts itself when it sees the
    change, without letting its work finish."""

    needs_outage = True

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def check_free(self, openclaw: OpenClaw, capability: Capability) -> None:
        """Raises ConflictError where another plugin stands under the id, bundled or installed by anybody."""
        name = capability.manifest.id
        if await self._about(openclaw, name) is not None:
            raise ConflictError(
                f"OpenClaw has a plugin {name} already, which Rollcall did not install",
                remedy="choose another id, or uninstall that plugin on the node",
            )

    async def stands(self, openclaw: OpenClaw, capability: Capability) -> str:
        plugin, packages = await asyncio.to_thread(self._read, capability)
        installer = PluginInstaller(openclaw, self._shelf.tree(capability), [plugin], packages)
        try:
            await installer.check()
        except (CommandError, UntrustedError) as error:
            return error.message
        return ""

    async def install(self, openclaw: OpenClaw, capability: Capability) -> None:
        plugin, packages = await asyncio.to_thread(self._read, capability)
        tree = self._shelf.tree(capability)
        async with aimed_at_lock(openclaw, tree, packages) as aimed:
            installer = PluginInstaller(aimed, tree, [plugin], packages)
            await installer.install(timeout_s=INSTALL_TIMEOUT_S)
        overlay = capability.manifest.overlay()
        if overlay:
            await asyncio.to_thread(apply_overlays, openclaw.state, [overlay], openclaw.tree)
            fail_point("capability.configured")

    async def remove(self, openclaw: OpenClaw, name: str) -> None:
        """OpenClaw 2026.9.6 leaves an entry that switches it off, and would leave it off at the next install."""
        if await self._about(openclaw, name) is not None:
            words = ("plugins", "uninstall", name, "--force")
            output = await openclaw.run(*words, timeout_s=INSTALL_TIMEOUT_S)
            fail_point("capability.uninstalled")
            if await self._about(openclaw, name) is not None:
                said = output.last_line()
                raise CommandError(f"openclaw plugins uninstall {name} left it: {said}")
        await asyncio.to_thread(put_entry_back, openclaw, name, None)

    def _read(self, capability: Capability) -> tuple[Plugin, list[Any]]:
        packages = self._shelf.packages(capability)
        about = read_json_file(self._shelf.bodies(capability)[0], MANIFEST)
        if about.get("id") != capability.manifest.id:
            raise UntrustedError(
                f"{capability.label} names plugin {capability.manifest.id}, its tarball {about.get('id')}"
            )
        return Plugin(capability.manifest.id, packages[0]), packages

    async def _about(self, openclaw: OpenClaw, name: str) -> dict[str, Any] | None:
        """What OpenClaw says of a plugin; None when it knows none of that id."""
        output = await openclaw.run("plugins", "list", "--json", timeout_s=QUERY_TIMEOUT_S)
        value = _object(output.stdout)
        listed = value.get("plugins")
        if not isinstance(listed, list):
            raise CommandError(f"openclaw plugins list: {output.last_line()}")
        return next(
            (each for each in listed if isinstance(each, dict) and each.get("id") == name), None
        )


class SkillSite:
    """`openclaw skills install FOLDER --global --as NAME`. The gateway goes on: each new session looks anew."""

    needs_outage = False

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def check_free(self, openclaw: OpenClaw, capability: Capability) -> None:
        """Raises ConflictError where another skill is called so, a bundled one or an agent's own."""
        name = capability.manifest.id
        about = await self._about(openclaw, name)
        if about is not None or (openclaw.state / SKILLS / name).exists():
            source = "on disk" if about is None else str(about.get("source"))[:60]
            raise ConflictError(
                f"OpenClaw has a skill {name} already ({source}), which Rollcall did not install",
                remedy="choose another id, or remove that skill on the node",
            )

    async def stands(self, openclaw: OpenClaw, capability: Capability) -> str:
        name, body = capability.manifest.id, (await self._bodies(capability))[0]
        try:
            found = await asyncio.to_thread(_digests, openclaw.state / SKILLS / name)
        except FileNotFoundError:
            return f"skill {name} is not there"
        except UntrustedError as error:
            return error.message
        if found != await asyncio.to_thread(file_digests, body):
            return f"skill {name} has other files than were signed"
        about = await self._about(openclaw, name)
        place = None if about is None else str(about.get("baseDir", ""))
        if place is None or Path(place) != openclaw.state / SKILLS / name:
            return f"OpenClaw takes skill {name} from elsewhere: {place}"
        return ""

    async def install(self, openclaw: OpenClaw, capability: Capability) -> None:
        name, body = capability.manifest.id, (await self._bodies(capability))[0]
        folder = await asyncio.to_thread(_unpack, openclaw, name, body)
        try:
            place = str(folder / name)
            words = (SKILLS, "install", place, "--global", "--as", name, "--force")
            fail_point("capability.laying")
            output = await openclaw.run(*words, timeout_s=INSTALL_TIMEOUT_S)
            fail_point("capability.laid")
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)
        if output.code != 0:
            raise CommandError(
                f"openclaw skills install {name} failed ({output.code}): {output.last_line()}"
            )

    async def remove(self, openclaw: OpenClaw, name: str) -> None:
        """OpenClaw has no command for it: a managed skill is its folder."""
        await asyncio.to_thread(_remove_folder, openclaw.state / SKILLS, name)

    async def _bodies(self, capability: Capability) -> list[bytes]:
        return await asyncio.to_thread(self._shelf.bodies, capability)

    async def _about(self, openclaw: OpenClaw, name: str) -> dict[str, Any] | None:
        words = (SKILLS, "info", name, "--json")
        output = await openclaw.run(*words, timeout_s=QUERY_TIMEOUT_S)
        value = _object(output.stdout)
        if "error" in value:
            return None
        if value.get("name") is None:
            raise CommandError(f"openclaw skills info {name}: {output.last_line()}")
        return value


def _object(raw: bytes) -> dict[str, Any]:
    text = raw.decode("utf-8", "replace")
    start = text.find("{")
    try:
        value, _ = json.JSONDecoder().raw_decode(text, max(start, 0))
    except (json.JSONDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def entry_of(state: Path, name: str) -> dict[str, Any] | None:
    """A plugin's entry in openclaw.json, to be put back. Blocking."""
    entry = read_settings(state).get("plugins", {}).get("entries", {}).get(name)
    return entry if isinstance(entry, dict) else None


def put_entry_back(openclaw: OpenClaw, name: str, entry: dict[str, Any] | None) -> None:
    """As it was: gone where there was none. Blocking."""
    overlays: list[dict[str, Any]] = [{"plugins": {"entries": {name: None}}}]
    if entry is not None:
        overlays.append({"plugins": {"entries": {name: entry}}})
    elif entry_of(openclaw.state, name) is None:
        return
    apply_overlays(openclaw.state, overlays, openclaw.tree)


def _unpack(openclaw: OpenClaw, name: str, body: bytes) -> Path:
    """Into a scratch folder that OpenClaw's account can read. `body` was checked when it was put on the shelf."""
    account = openclaw.tools.account
    scratch = make_scratch(openclaw.tools.scratch, account, None)
    for path, content in _members(body):
        target = scratch / name / path
        for folder in reversed([each for each in target.parents if each.is_relative_to(scratch)]):
            if not folder.exists():
                folder.mkdir(mode=0o700)
                give(folder, account)
        target.write_bytes(content)
        give(target, account)
    return scratch


def _members(body: bytes) -> Iterator[tuple[PurePosixPath, bytes]]:
    try:
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None:
                    yield PurePosixPath(*PurePosixPath(member.name).parts[1:]), file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BadInputError(f"the bundle cannot be unpacked: {error}") from error


def _digests(place: Path) -> dict[str, str]:
    """SHA-256 of each file of an installed skill by its path, without OpenClaw's own notes."""
    with Folder.guarded(place) as folder:
        return dict(_walk(folder, "", MAX_DEPTH))


def _walk(folder: Folder, place: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth == 0:
        raise UntrustedError(f"{folder.path} lies too deep")
    for name in sorted(folder.names()):
        path = f"{place}{name}"
        if path == NOTES:
            continue
        if (folder.path / name).is_dir():
            with folder.folder(name) as inside:
                yield from _walk(inside, f"{path}/", depth - 1)
        else:
            body = folder.read(name, max_bytes=MAX_SKILL_FILE)
            yield path, digest_as_npm(io.BytesIO(body))


def _remove_folder(place: Path, name: str) -> None:
    if not place.exists():
        return
    with Folder.guarded(place) as folder:
        folder.remove_folder(name)
        folder.sync()
