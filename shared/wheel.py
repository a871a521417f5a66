"""The agent's wheel, read without installing it: its version, and the lock of its dependencies that it
carries, so that its own hash fixes every byte of an environment made from it."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from email.parser import BytesParser

from shared.canonical import sha256_hex
from shared.errors import BadInputError
from shared.protocol import FILE, FIRST, ProtocolRange

LOCK = "agent/requirements.lock"
MAX_MEMBER_BYTES = 2 << 20
_NAME = re.compile(
    r"(rollcall)-([0-9][A-Za-z0-9.+_]*)-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+\.whl"
)
_PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)\s*(?:;\s*(.*?))?\s*\\?")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Requirement:
    """One pin of the lock. `marker` says where it applies; empty for everywhere."""

    name: str
    version: str
    marker: str
    sha256: frozenset[str]


@dataclass(frozen=True)
class AgentWheel:
    version: str
    lock: bytes
    requirements: tuple[Requirement, ...]
    protocol: ProtocolRange
    """What this agent speaks."""


def read_agent_wheel(file: str, raw: bytes) -> AgentWheel:
    """Raises BadInputError for a wheel of something else, one whose name and content differ in the version,
    and one without a lock in which everything is pinned by hashes."""
    named = _NAME.fullmatch(file)
    if named is None:
        raise BadInputError(f"{file} is not the name of a wheel of rollcall")
    version = named[2].replace("_", "+")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            about = _member(archive, f"rollcall-{named[2]}.dist-info/METADATA")
            lock = _member(archive, LOCK)
            spoken = _member(archive, FILE)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise BadInputError(f"{file} is not a wheel: {error}") from error
    if about is None:
        raise BadInputError(f"{file} holds no metadata of rollcall {version}")
    said = BytesParser().parsebytes(about, headersonly=True)["Version"]
    if said != version:
        raise BadInputError(f"{file} holds version {said}")
    if lock is None:
        raise BadInputError(
            f"{file} carries no lock of its dependencies ({LOCK})",
            remedy="build it from a checkout: python -m hatchling build -t wheel",
        )
    protocol = FIRST if spoken is None else ProtocolRange.from_bytes(spoken)
    return AgentWheel(version, lock, parse_lock(lock), protocol)


def _member(archive: zipfile.ZipFile, name: str) -> bytes | None:
    try:
        with archive.open(name) as member:
            raw = member.read(MAX_MEMBER_BYTES + 1)
    except KeyError:
        return None
    if len(raw) > MAX_MEMBER_BYTES:
        raise BadInputError(f"{name} in the wheel has more than {MAX_MEMBER_BYTES} bytes")
    return raw


def parse_lock(raw: bytes) -> tuple[Requirement, ...]:
    """Pins with hashes and nothing else: no options, addresses, or other files."""
    found = []
    for block in re.split(r"\n(?=\S)", raw.decode("utf-8", "replace").strip()):
        first, *more = block.split("\n")
        if first.startswith("#") and not more:
            continue
        pin, hashes = _PINNED.fullmatch(first), frozenset(_HASH.findall("\n".join(more)))
        plain = all(_HASH.fullmatch(line.strip(" \\")) for line in more)
        if pin is None or not hashes or not plain:
            raise BadInputError(f"{LOCK}: {first[:80]!r} is not a pin with its hashes")
        found.append(Requirement(normal_name(pin[1]), pin[2], pin[3] or "", hashes))
    if not found:
        raise BadInputError(f"{LOCK} pins nothing")
    return tuple(found)


def normal_name(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check_dependencies(wheel: AgentWheel, files: Mapping[str, bytes]) -> None:
    """Raises BadInputError unless each of these wheels is one that the lock pins, and each pin that
    applies everywhere has one: a node that takes them asks no index for the rest."""
    pinned = {sha256: each.name for each in wheel.requirements for sha256 in each.sha256}
    covered = set()
    for file, raw in files.items():
        name = pinned.get(sha256_hex(raw))
        if name is None:
            raise BadInputError(f"{file} is not what the agent's lock pins")
        covered.add(name)
    for each in wheel.requirements:
        if not each.marker and each.name not in covered:
            raise BadInputError(
                f"no wheel of {each.name} is among the agent's dependencies",
                remedy="fetch them for every platform of the fleet: pip download --require-hashes",
            )
