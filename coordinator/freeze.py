"""Freezing a release: resolve once, sign, and every node installs the same bytes ever after."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.archive import check_archive, read_json_file
from shared.canonical import sha256_hex
from shared.errors import BadInputError
from shared.lock import parse_lock
from shared.npm import Npm
from shared.release import (
    CORE,
    MAX_ARTIFACT_BYTES,
    AgentBuild,
    Artifact,
    Migration,
    ReleaseManifest,
    SchemaVersions,
    WheelFile,
)
from shared.versions import OpenClawVersion
from shared.wheel import check_dependencies, read_agent_wheel

ARTIFACTS = "artifacts"


@dataclass(frozen=True)
class Request:
    """What an operator asks for. `artifacts` maps a package name to a tarball no registry has."""

    version: str
    name: str | None = None
    plugins: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, Path] = field(default_factory=dict)
    overlay: dict[str, dict[str, Any]] = field(default_factory=dict)
    migrations: list[Migration] = field(default_factory=list)
    agent_wheel: Path | None = None
    agent_wheels: Path | None = None
    """A folder with the wheels of the agent's dependencies, to travel with the release."""
    days: float = 90


@dataclass(frozen=True)
class Frozen:
    """A manifest to sign, and the files it names, by SHA-256."""

    manifest: ReleaseManifest
    files: dict[str, bytes]


async def freeze(request: Request, npm: Npm, now: float, progress: Callable[[str], None]) -> Frozen:
    """Resolve the lock of a release in a scratch project.

    Raises BadInputError when core or a plugin stands twice, CommandError when npm cannot resolve.
    """
    OpenClawVersion(request.version)
    wheels = await asyncio.to_thread(_agent_files, request)
    with tempfile.TemporaryDirectory(prefix="rollcall-freeze-") as scratch:
        project = Path(scratch)
        tarballs = _copy_artifacts(request, project)
        about = await _about(request, npm)
        dependencies = _dependencies(request)
        draft = ReleaseManifest(
            name=request.name or request.version,
            openclaw=request.version,
            plugins=_plugin_versions(request),
            dependencies=dependencies,
            lock_sha256="0" * 64,
            artifacts=[
                Artifact(file=n, sha256=sha256_hex(b), size=len(b)) for n, b in tarballs.items()
            ],
            allow_scripts=[CORE],
            node_engine=about.engine,
            schema_versions=about.schema,
            agent=_agent_build(request.agent_wheel, wheels),
            overlay=request.overlay,
            migrations=request.migrations,
            created=now,
            expires=now + request.days * 86400,
        )
        (project / "package.json").write_text(json.dumps(draft.package_json()))
        progress(f"resolving openclaw@{request.version} with npm")
        await npm.lock(project)
        await _check_peers(npm, project)
        lock = (project / "package-lock.json").read_bytes()
    _check_lock(lock, draft)
    manifest = draft.model_copy(update={"lock_sha256": sha256_hex(lock)})
    files = {manifest.lock_sha256: lock}
    files.update({sha256_hex(body): body for body in tarballs.values()})
    files.update({sha256_hex(body): body for body in wheels.values()})
    return Frozen(manifest, files)


async def _check_peers(npm: Npm, project: Path) -> None:
    """npm refuses most of what does not fit while it resolves; this finds what it let through."""
    if problem := await npm.lock_problems(project):
        raise BadInputError(
            f"core and plugins do not fit together: {problem}",
            remedy="choose versions of the plugins that are made for this OpenClaw",
        )


def _check_lock(raw: bytes, draft: ReleaseManifest) -> None:
    lock = parse_lock(raw)
    names = [CORE, *draft.plugins]
    if twice := lock.duplicates_of(names):
        raise BadInputError(f"the resolved tree has {twice[0]} more than once")
    wanted = {CORE: draft.openclaw, **draft.plugins}
    for name in names:
        if lock.version_of(name) != wanted[name]:
            raise BadInputError(
                f"npm resolved {name} to {lock.version_of(name)}, not {wanted[name]}"
            )


def _copy_artifacts(request: Request, project: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    (project / ARTIFACTS).mkdir()
    for path in request.artifacts.values():
        if not path.is_file():
            raise BadInputError(f"{path} is not a file")
        if path.stat().st_size > MAX_ARTIFACT_BYTES:
            raise BadInputError(f"{path} is larger than {MAX_ARTIFACT_BYTES >> 20} MiB")
        check_archive(path)
        shutil.copyfile(path, project / ARTIFACTS / path.name)
        found[path.name] = path.read_bytes()
    return found


def _agent_files(request: Request) -> dict[str, bytes]:
    """The agent's wheel and those of its dependencies, by file name. Raises BadInputError for a wheel that
    is not the agent's, carries no lock, or does not fit to the dependencies beside it."""
    wheel, folder = request.agent_wheel, request.agent_wheels
    if wheel is None:
        if folder is not None:
            raise BadInputError("--agent-wheels goes with --agent-wheel")
        return {}
    found = {wheel.name: _read_wheel(wheel)}
    agent = read_agent_wheel(wheel.name, found[wheel.name])
    if folder is not None:
        beside = {path.name: _read_wheel(path) for path in sorted(folder.glob("*.whl"))}
        beside.pop(wheel.name, None)
        check_dependencies(agent, beside)
        found |= beside
    return found


def _read_wheel(path: Path) -> bytes:
    if not path.is_file():
        raise BadInputError(f"{path} does not exist")
    if path.stat().st_size > MAX_ARTIFACT_BYTES:
        raise BadInputError(f"{path} is larger than {MAX_ARTIFACT_BYTES >> 20} MiB")
    return path.read_bytes()


def _agent_build(wheel: Path | None, files: dict[str, bytes]) -> AgentBuild | None:
    if wheel is None:
        return None
    about = {
        name: WheelFile(file=name, sha256=sha256_hex(body), size=len(body))
        for name, body in files.items()
    }
    own = about.pop(wheel.name)
    agent = read_agent_wheel(wheel.name, files[wheel.name])
    return AgentBuild(
        version=agent.version,
        protocol=agent.protocol,
        file=own.file,
        sha256=own.sha256,
        size=own.size,
        wheels=list(about.values()),
    )


def _dependencies(request: Request) -> dict[str, str]:
    wanted = {CORE: request.version, **request.plugins}
    for name, path in request.artifacts.items():
        wanted[name] = f"file:{ARTIFACTS}/{path.name}"
    return wanted


def _plugin_versions(request: Request) -> dict[str, str]:
    packed = {
        name: str(read_json_file(path).get("version"))
        for name, path in request.artifacts.items()
        if name != CORE
    }
    return {**request.plugins, **packed}


@dataclass(frozen=True)
class _About:
    engine: str
    schema: SchemaVersions


async def _about(request: Request, npm: Npm) -> _About:
    """Node engine and schema versions: both readable before anything is installed."""
    if CORE in request.artifacts:
        package = read_json_file(request.artifacts[CORE])
        engines, own = package.get("engines", {}), package.get(CORE, {})
        engine, schema = engines.get("node", "*"), own.get("schemaVersions")
    else:
        seen = await npm.view(CORE, request.version, "openclaw.schemaVersions", "engines.node")
        engine, schema = seen.get("engines.node", "*"), seen.get("openclaw.schemaVersions")
    return _About(str(engine), SchemaVersions.from_value(schema or {}))
