"""The archive as bytes: the same content is the same bytes, and what is read is bounded.

`<rollout>/manifest.json` is an envelope that the coordinator's roster key has signed; it names every other member with
its SHA-256.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from shared.archive import Limits, check_archive
from shared.canonical import sha256_hex
from shared.envelope import EVIDENCE, seal
from shared.errors import BadInputError, ConflictError
from shared.keys import SigningKey
from shared.wire import Sha256, Wire

FORMAT = 1
MANIFEST = "manifest.json"
ROOTS, TARGETS, FLEETS, RELEASES = "trust/root", "trust/targets", "trust/fleet", "releases"
"""Folders of what proves the rest."""
MAX_MEMBERS = 2000
MAX_UNPACKED = 256 << 20
MAX_PACKED = 30 << 20
"""Below what the CLI takes as an answer."""
MODE = 0o644


class Member(Wire):
    name: Annotated[str, Field(max_length=200)]
    sha256: Sha256
    size: int


class Manifest(Wire):
    format: int = FORMAT
    fleet: Sha256
    rollout: str
    members: Annotated[list[Member], Field(max_length=MAX_MEMBERS)]


def pack(rollout: str, fleet: str, members: Mapping[str, bytes], key: SigningKey) -> bytes:
    """Raises ConflictError for more than an archive may hold. Blocking."""
    named = [
        Member(name=name, sha256=sha256_hex(members[name]), size=len(members[name]))
        for name in sorted(members)
    ]
    manifest = Manifest(fleet=fleet, rollout=rollout, members=named)
    whole = {MANIFEST: seal(manifest.canonical(), EVIDENCE, key), **members}
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(whole):
            info = tarfile.TarInfo(f"{rollout}/{name}")
            info.size, info.mode = len(whole[name]), MODE
            archive.addfile(info, io.BytesIO(whole[name]))
    if len(raw.getbuffer()) > MAX_UNPACKED:
        raise ConflictError(f"the evidence is more than {MAX_UNPACKED >> 20} MiB")
    packed = gzip.compress(raw.getvalue(), mtime=0)
    if len(packed) > MAX_PACKED:
        raise ConflictError(f"the evidence is more than {MAX_PACKED >> 20} MiB, packed")
    return packed


def unpack(raw: bytes) -> tuple[str, dict[str, bytes]]:
    """The top folder's name and the members in it. Raises BadInputError. Blocking."""
    check_archive(raw, Limits(MAX_MEMBERS + 1, MAX_UNPACKED))
    members: dict[str, bytes] = {}
    top = ""
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:gz") as archive:
        for entry in archive:
            file = archive.extractfile(entry) if entry.isfile() else None
            top, _, name = entry.name.partition("/")
            if file is not None:
                members[name] = file.read()
    if MANIFEST not in members:
        raise BadInputError(f"the archive has no {MANIFEST}: it is no evidence of Rollcall's")
    return top, members
