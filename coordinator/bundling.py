"""Makes a capability's bundle out of a folder or a tarball: what operators sign, and every node takes as it is."""

from __future__ import annotations

import asyncio
import gzip
import io
import re
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.archive import Limits, check_archive, file_digests, read_json_file
from shared.canonical import sha256_hex
from shared.capability import CapabilityKind, CapabilityManifest, Smoke
from shared.errors import BadInputError
from shared.npm import Npm
from shared.release import MAX_ARTIFACT_BYTES, Artifact

SKILL, PLUGIN = "SKILL.md", "openclaw.plugin.json"
LEFT_OUT = frozenset({".git", ".DS_Store", "node_modules", ".openclaw"})
LIMITS = Limits(entries=5_000, unpacked=256 << 20)
DAY_S = 86400.0
_NAME_LINE = re.compile(r"^name:[ \t]*[\"']?([a-z0-9][a-z0-9_-]{0,62})[\"']?[ \t]*$", re.MULTILINE)
DEFAULT_SMOKE = {
    CapabilityKind.PLUGIN: [Smoke.LISTED, Smoke.LOADED, Smoke.READY],
    CapabilityKind.SKILL: [Smoke.LISTED, Smoke.READY],
}


@dataclass(frozen=True)
class BundleRequest:
    """`source` is a folder or a tarball; `needs` are tarballs of packages that a plugin depends on."""

    source: Path
    owner: str
    name: str | None = None
    version: str | None = None
    openclaw: str = "*"
    config: dict[str, Any] = field(default_factory=dict)
    smoke: list[Smoke] = field(default_factory=list)
    needs: list[Path] = field(default_factory=list)
    days: float = 90


@dataclass(frozen=True)
class MadeBundle:
    """A manifest to sign, and the files it names, by SHA-256."""

    manifest: CapabilityManifest
    files: dict[str, bytes]


async def make_bundle(request: BundleRequest, npm: Npm, now: float) -> MadeBundle:
    """Raises BadInputError for what is neither a plugin nor a skill, or is incomplete."""
    body = await _body(request.source, npm)
    about = await asyncio.to_thread(_look_into, body, request)
    needed = [await asyncio.to_thread(_read, path) for path in request.needs]
    return _made(request, about, [body, *needed], now)


@dataclass(frozen=True)
class _About:
    kind: CapabilityKind
    id: str
    package: str | None
    version: str | None


def _look_into(body: bytes, request: BundleRequest) -> _About:
    check_archive(body, LIMITS)
    names = file_digests(body)
    if PLUGIN in names:
        return _plugin(body)
    if SKILL in names:
        return _skill(body, request)
    raise BadInputError(
        f"{request.source} holds neither {PLUGIN} nor {SKILL}",
        remedy="name the folder of a plugin or of a skill, or a tarball of one",
    )


def _made(request: BundleRequest, about: _About, bodies: list[bytes], now: float) -> MadeBundle:
    name, version = request.name or about.id, request.version or about.version
    if version is None:
        raise BadInputError(
            "a skill says no version of itself", remedy="name one: --as-version 1.0.0"
        )
    artifacts = [
        Artifact(file=_file_name(name, version, place), sha256=sha256_hex(body), size=len(body))
        for place, body in enumerate(bodies)
    ]
    manifest = CapabilityManifest.from_value(
        {
            "name": name,
            "version": version,
            "kind": about.kind,
            "id": about.id,
            "package": about.package,
            "artifacts": [each.model_dump() for each in artifacts],
            "openclaw": request.openclaw,
            "config": request.config,
            "owner": request.owner,
            "smoke": request.smoke or DEFAULT_SMOKE[about.kind],
            "created": now,
            "expires": now + request.days * DAY_S,
        }
    )
    return MadeBundle(manifest, {sha256_hex(body): body for body in bodies})


def _file_name(name: str, version: str, place: int) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", f"{name}-{version}")
    return f"{plain}.tgz" if place == 0 else f"{plain}.needs-{place}.tgz"


async def _body(source: Path, npm: Npm) -> bytes:
    if source.is_file():
        return await asyncio.to_thread(_read, source)
    if not source.is_dir():
        raise BadInputError(f"{source} does not exist")
    if (source / PLUGIN).is_file():
        with tempfile.TemporaryDirectory(prefix="rollcall-bundle-") as folder:
            packed = await npm.pack(source.absolute(), Path(folder))
            return await asyncio.to_thread(_read, packed)
    return await asyncio.to_thread(_pack_folder, source)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise BadInputError(f"{path} is not a file")
    if path.stat().st_size > MAX_ARTIFACT_BYTES:
        raise BadInputError(f"{path} is larger than {MAX_ARTIFACT_BYTES >> 20} MiB")
    return path.read_bytes()


def _pack_folder(source: Path) -> bytes:
    """The same bytes for the same files: no times, no owners, in the order of their names."""
    raw = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted(source.rglob("*")):
            inside = path.relative_to(source)
            if LEFT_OUT & set(inside.parts) or path.is_dir():
                continue
            if path.is_symlink() or not path.is_file():
                raise BadInputError(f"{path} is not a plain file", remedy="put a copy there")
            content = _read(path)
            entry = tarfile.TarInfo(f"package/{inside.as_posix()}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return raw.getvalue()


def _plugin(body: bytes) -> _About:
    package, plugin = read_json_file(body), read_json_file(body, PLUGIN)
    version = package.get("version")
    return _About(
        CapabilityKind.PLUGIN,
        str(plugin.get("id")),
        str(package.get("name")),
        str(version) if version else None,
    )


def _skill(body: bytes, request: BundleRequest) -> _About:
    """Its name is the one in the front matter of SKILL.md; it says no version."""
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as archive:
        text = next(
            file.read(1 << 20).decode("utf-8", "replace")
            for member in archive
            if member.isfile() and member.name.split("/", 1)[-1] == SKILL
            if (file := archive.extractfile(member)) is not None
        )
    parts = text.split("---", 2)
    match = _NAME_LINE.search(parts[1]) if len(parts) == 3 else None
    if match is None:
        raise BadInputError(
            f"{request.source}: {SKILL} has no name in its front matter",
            remedy="write one between two lines of ---, such as: name: my-skill",
        )
    return _About(CapabilityKind.SKILL, match[1], None, None)
