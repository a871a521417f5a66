"""TUF metadata (The Update Framework 1.0) as Rollcall uses it: four roles, no delegations.

Root and targets are signed offline by operators, snapshot and timestamp online by the coordinator.
Targets are `fleet.json`, which names the fleet's TLS authorities and roster keys, one `<name>.release.json`
for each release and one `<name>-<version>.capability.json` for each capability; the id of either is the
SHA-256 of that file.
"""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Iterable
from typing import TypeVar

from securesystemslib.signer import Key, SSlibKey
from tuf.api.metadata import (
    Metadata,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from shared.canonical import parse_json, sha256_hex
from shared.errors import BadInputError, UntrustedError
from shared.keys import OperatorKeys, PublicKey, SigningKey
from shared.wire import Sha256, Wire

FLEET = "fleet.json"
RELEASE_SUFFIX = ".release.json"
CAPABILITY_SUFFIX = ".capability.json"
NAME_FIELD = "x-rollcall-name"
MAX_ROOT_BYTES = 512_000
MAX_TARGETS_BYTES = 5_000_000
MAX_SNAPSHOT_BYTES = 16_384
SERVED = re.compile(
    r"(?:[1-9][0-9]{0,8}\.(?:root|targets|snapshot)|timestamp)\.json"
    r"|targets/[0-9a-f]{64}\.(?:fleet\.json|[0-9A-Za-z][0-9A-Za-z.+-]{0,63}\.(?:release|capability)\.json)"
)
"""Every path below `/tuf/` that there is; nothing else is looked for on a disk."""

T = TypeVar("T", Root, Targets, Snapshot, Timestamp)


class TargetEntry(Wire):
    """One target as targets.json lists it."""

    path: str
    sha256: Sha256
    length: int


def release_path(name: str) -> str:
    return f"{name}{RELEASE_SUFFIX}"


def name_of(path: str) -> str:
    return path.removesuffix(RELEASE_SUFFIX)


def is_release(path: str) -> bool:
    return path.endswith(RELEASE_SUFFIX)


def capability_path(name: str, version: str) -> str:
    return f"{name}-{version}{CAPABILITY_SUFFIX}"


def is_capability(path: str) -> bool:
    return path.endswith(CAPABILITY_SUFFIX)


def to_bytes(metadata: Metadata[T]) -> bytes:
    return metadata.to_bytes(JSONSerializer(compact=True))


def read_root(raw: bytes) -> Metadata[Root]:
    return _read(raw, Root, MAX_ROOT_BYTES)


def fingerprint(root: Metadata[Root]) -> str:
    """SHA-256 of what is signed, the same whoever has signed it so far: what people read to each other,
    and what a join token carries."""
    return sha256_hex(root.signed_bytes)


def read_targets(raw: bytes) -> Metadata[Targets]:
    return _read(raw, Targets, MAX_TARGETS_BYTES)


def read_snapshot(raw: bytes) -> Metadata[Snapshot]:
    return _read(raw, Snapshot, MAX_SNAPSHOT_BYTES)


def read_timestamp(raw: bytes) -> Metadata[Timestamp]:
    return _read(raw, Timestamp, MAX_SNAPSHOT_BYTES)


def _read(raw: bytes, kind: type[T], max_bytes: int) -> Metadata[T]:
    """Shape only; whether its signatures count is another question. Raises BadInputError."""
    parse_json(raw, max_bytes=max_bytes)
    try:
        metadata: Metadata[T] = Metadata.from_bytes(raw)
    except (DeserializationError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"this is not TUF metadata: {error}") from error
    if not isinstance(metadata.signed, kind):
        raise BadInputError(f"this is {metadata.signed.type} metadata, not {kind.type}")
    return metadata


def entries(targets: Targets) -> dict[str, TargetEntry]:
    return {
        path: TargetEntry.from_value(
            {"path": path, "sha256": file.hashes.get("sha256"), "length": file.length}
        )
        for path, file in targets.targets.items()
    }


def new_root(
    operators: Iterable[OperatorKeys],
    threshold: int,
    online: PublicKey,
    *,
    expires: float,
    version: int = 1,
) -> Metadata[Root]:
    """`threshold` operators sign roots and targets, `online` alone signs snapshot and timestamp.

    Raises BadInputError when a role could never be signed.
    """
    keys = list(operators)
    if not 1 <= threshold <= len({each.root.keyid for each in keys}):
        raise BadInputError(f"{threshold} of {len(keys)} operators can never sign")
    root = Root(version=version, expires=moment(expires), consistent_snapshot=True)
    root.roles = {
        "root": Role([], threshold),
        "targets": Role([], threshold),
        "snapshot": Role([], 1),
        "timestamp": Role([], 1),
    }
    for each in keys:
        root.add_key(_named(each.root, each.name), "root")
        root.add_key(_named(each.targets, each.name), "targets")
    for role in ("snapshot", "timestamp"):
        root.add_key(online.for_verifying(), role)
    return Metadata(root)


def _named(key: PublicKey, name: str) -> SSlibKey:
    """A key that says whose it is, for people; nothing is decided by the name."""
    made = key.for_verifying()
    made.unrecognized_fields[NAME_FIELD] = name
    return made


def operators_of(root: Root) -> list[OperatorKeys]:
    """The operators a root names, by name, with their pair of keys."""
    found: dict[str, dict[str, PublicKey]] = {}
    for role in ("root", "targets"):
        for keyid in root.roles[role].keyids:
            key = root.keys[keyid]
            name = name_of_key(root, keyid)
            found.setdefault(name, {})[role] = _public(key)
    return [
        OperatorKeys(name=name, root=keys["root"], targets=keys["targets"])
        for name, keys in sorted(found.items())
        if len(keys) == 2
    ]


def online_key(root: Root) -> PublicKey:
    return _public(root.keys[root.roles["timestamp"].keyids[0]])


def _public(key: Key) -> PublicKey:
    if key.keytype != "ed25519":
        raise BadInputError(f"a key of type {key.keytype}; only ed25519 is used here")
    raw = bytes.fromhex(str(key.keyval["public"]))
    return PublicKey(ed25519=base64.b64encode(raw).decode())


def name_of_key(root: Root, keyid: str) -> str:
    """Whose key it is, by the root that names it; the key's own beginning when none does."""
    key = root.keys.get(keyid)
    return keyid[:8] if key is None else str(key.unrecognized_fields.get(NAME_FIELD, keyid[:8]))


def signers(metadata: Metadata[T], root: Root, role: str) -> list[str]:
    """Names of the operators whose signature on this metadata holds."""
    result = root.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    return sorted(name_of_key(root, keyid) for keyid in result.signed)


def new_targets(
    files: Iterable[tuple[str, bytes]],
    expires: float,
    *,
    base: Targets | None = None,
    without: Iterable[str] = (),
) -> Metadata[Targets]:
    """The next targets after `base`, with these files added or replaced and those paths gone."""
    gone = set(without)
    kept = {p: f for p, f in base.targets.items() if p not in gone} if base is not None else {}
    added = {path: TargetFile.from_data(path, raw, ["sha256"]) for path, raw in files}
    version = 1 if base is None else base.version + 1
    return Metadata(Targets(version=version, expires=moment(expires), targets={**kept, **added}))


def sign(metadata: Metadata[T], keys: Iterable[SigningKey]) -> None:
    """Add these signatures to those that are there."""
    for key in keys:
        metadata.sign(key.signer, append=True)


def missing_for_root(metadata: Metadata[Root], before: Root | None) -> int:
    """How many more signatures a root needs, by its own keys and by those of the root before."""
    try:
        result = metadata.signed.get_root_verification_result(
            before, metadata.signed_bytes, metadata.signatures
        )
    except ValueError as error:
        raise UntrustedError(
            f"root version {metadata.signed.version} does not follow "
            f"version {0 if before is None else before.version}",
            remedy="fetch what was published in between: rollcall keys show",
        ) from error
    return int(max(result.first.missing, result.second.missing))


def missing_for_targets(metadata: Metadata[Targets], root: Root) -> int:
    result = root.get_verification_result("targets", metadata.signed_bytes, metadata.signatures)
    return int(result.missing)


def check_root(metadata: Metadata[Root], before: Root | None) -> None:
    """Raises UntrustedError unless this root follows `before` and both key sets have signed it."""
    check_shape(metadata.signed)
    expected = 1 if before is None else before.version + 1
    if metadata.signed.version != expected:
        raise UntrustedError(f"root version {metadata.signed.version}; {expected} is next")
    if missing := missing_for_root(metadata, before):
        raise UntrustedError(
            f"root version {expected} lacks {missing} signature{'s' * (missing > 1)}",
            remedy="have another operator sign it: rollcall keys sign BUNDLE",
        )


def check_shape(root: Root) -> None:
    """Raises UntrustedError for a root that says something which nobody is shown: each operator has one
    root and one targets key under one threshold, and one online key signs the rest."""
    operators = operators_of(root)
    roles = root.roles
    online = {*roles["snapshot"].keyids, *roles["timestamp"].keyids}
    offline = {each.root.keyid for each in operators} | {each.targets.keyid for each in operators}
    wrong = {
        "the keys of an operator do not come in pairs": any(
            len(roles[role].keyids) != len(operators) for role in ("root", "targets")
        ),
        "root and targets have other thresholds": (
            roles["root"].threshold != roles["targets"].threshold
        ),
        "there is not exactly one online key": len(online) != 1,
        "an operator's key is the online key": bool(online & offline),
        "a key serves two operators": len(offline) != 2 * len(operators),
        "snapshots are not consistent": not root.consistent_snapshot,
    }
    for what, holds in wrong.items():
        if holds:
            raise UntrustedError(f"root version {root.version}: {what}")


def check_targets(metadata: Metadata[Targets], root: Root) -> None:
    """Raises UntrustedError unless the root's targets keys have signed it to their threshold."""
    if missing := missing_for_targets(metadata, root):
        raise UntrustedError(
            f"targets version {metadata.signed.version} lacks {missing} "
            f"signature{'s' * (missing > 1)} of the keys that root names",
            remedy="have another operator sign it: rollcall release sign BUNDLE",
        )
    if metadata.signed.delegations is not None:
        raise UntrustedError("targets with delegations are not used here")


def moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
