"""A bundle: TUF metadata and files that operators sign, away from the coordinator.

It is a folder that can travel on a stick: `root.json` and `targets.json` as drafted and as far
as they are signed, `files/` with target files, `blobs/` with locks and artifacts. Nothing in it is
secret, and nothing in it counts before enough operators have signed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from coordinator.repository import Offer
from shared.canonical import canonical_json, parse_json, sha256_hex
from shared.capability import CapabilityManifest, parse_capability
from shared.durable import private_directory, write_durable
from shared.errors import BadInputError, UntrustedError
from shared.fleet import FleetDocument
from shared.keys import SigningKey
from shared.metadata import (
    MAX_ROOT_BYTES,
    MAX_TARGETS_BYTES,
    check_shape,
    is_capability,
    is_release,
    missing_for_root,
    missing_for_targets,
    name_of_key,
    new_targets,
    read_root,
    read_targets,
    sign,
    signers,
    to_bytes,
)
from shared.release import MAX_ARTIFACT_BYTES, ReleaseManifest, files_of, parse_release

MAX_FILE_BYTES = 4 << 20
WITHDRAWN = "withdrawn.json"
M = TypeVar("M")
S = TypeVar("S", Root, Targets)
_PLAIN = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,96}")


@dataclass(frozen=True)
class Published:
    """What is in force."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    fleet: FleetDocument


@dataclass(frozen=True)
class Bundle:
    root: Metadata[Root] | None = None
    targets: Metadata[Targets] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    withdrawn: tuple[str, ...] = ()
    """Paths that these targets take out."""

    def save(self, folder: Path) -> None:
        private_directory(folder)
        if self.root is not None:
            write_durable(folder / "root.json", to_bytes(self.root))
        if self.targets is not None:
            write_durable(folder / "targets.json", to_bytes(self.targets))
        if self.withdrawn:
            write_durable(folder / WITHDRAWN, canonical_json(list(self.withdrawn)))
        for name, content in (("files", self.files), ("blobs", self.blobs)):
            private_directory(folder / name)
            for path, raw in content.items():
                write_durable(folder / name / path, raw)

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Raises BadInputError for a folder that is no bundle, or whose files are not what its targets
        and releases name."""
        if not (folder / "root.json").exists() and not (folder / "targets.json").exists():
            raise BadInputError(
                f"{folder} is not a bundle", remedy="name a folder that `create` or `init` wrote"
            )
        root, targets = folder / "root.json", folder / "targets.json"
        bundle = cls(
            _load(root, read_root, MAX_ROOT_BYTES) if root.exists() else None,
            _load(targets, read_targets, MAX_TARGETS_BYTES) if targets.exists() else None,
            _load_folder(folder / "files", MAX_FILE_BYTES),
            _load_folder(folder / "blobs", MAX_ARTIFACT_BYTES),
            _load_withdrawn(folder / WITHDRAWN),
        )
        bundle.check()
        return bundle

    def check(self) -> None:
        if self.root is not None:
            check_shape(self.root.signed)
        if self.targets is not None and self.targets.signed.delegations is not None:
            raise UntrustedError("targets with delegations are not used here")
        listed = {} if self.targets is None else self.targets.signed.targets
        for path, raw in self.files.items():
            if path not in listed or listed[path].hashes.get("sha256") != sha256_hex(raw):
                raise BadInputError(f"files/{path} is not what targets.json names")
        for name, raw in self.blobs.items():
            if sha256_hex(raw) != name:
                raise BadInputError(f"blobs/{name} is not what its name says")

    def manifests(self) -> list[ReleaseManifest]:
        return [parse_release(raw).manifest for path, raw in self.files.items() if is_release(path)]

    def capabilities(self) -> list[CapabilityManifest]:
        found = (raw for path, raw in self.files.items() if is_capability(path))
        return [parse_capability(raw).manifest for raw in found]

    def signing_root(self, published: Root | None) -> Root:
        """The root whose keys count for these targets. Raises UntrustedError when there is none."""
        if self.root is not None:
            return self.root.signed
        if published is None:
            raise UntrustedError(
                "no trusted root is at hand",
                remedy="trust the fleet's root first: rollcall keys trust",
            )
        return published

    def check_follows(self, published: Published | None) -> None:
        """A signer compares with what is in force; what was seen before that says too little.

        Raises UntrustedError when this is not the next step after it, or when the bundle lacks a file of
        what it changes: nobody signs what he cannot read.
        """
        seen = (0, 0)
        if published is not None:
            seen = (published.root.signed.version, published.targets.signed.version)
        for what, metadata, last in (
            ("root", self.root, seen[0]),
            ("targets", self.targets, seen[1]),
        ):
            if metadata is not None and metadata.signed.version != last + 1:
                raise UntrustedError(
                    f"this is {what} {metadata.signed.version}, and {what} {last} is the last that "
                    f"this operator has seen",
                    remedy="look at what is in force first: rollcall keys show; if others have "
                    "published in between, the bundle has to be made anew",
                )
        self._check_readable({} if published is None else published.targets.signed.targets)

    def _check_readable(self, before: Mapping[str, TargetFile]) -> None:
        listed = {} if self.targets is None else self.targets.signed.targets
        for path, file in listed.items():
            known = before.get(path)
            if (known is None or known.hashes != file.hashes) and path not in self.files:
                raise BadInputError(f"the bundle lacks files/{path}, which it changes")
        for manifest in self.manifests():
            for sha256 in files_of(manifest):
                if sha256 not in self.blobs:
                    raise BadInputError(
                        f"the bundle lacks blobs/{sha256[:16]}… of release {manifest.name}"
                    )
        for capability in self.capabilities():
            for artifact in capability.artifacts:
                if artifact.sha256 not in self.blobs:
                    raise BadInputError(
                        f"the bundle lacks blobs/{artifact.sha256[:16]}… of {capability.label}"
                    )

    def check_signatures(self, published: Root | None) -> None:
        """Raises UntrustedError when a signature in it does not fit: it was changed after that."""
        root = self.signing_root(published)
        for trusted in [root, *([published] if published is not None else [])]:
            if self.root is not None:
                _check_signatures(self.root, trusted, "root")
        if self.targets is not None:
            _check_signatures(self.targets, root, "targets")

    def missing(self, published: Root | None) -> int:
        """How many more signatures it takes; 0 when it can be published."""
        wanting = 0 if self.root is None else missing_for_root(self.root, published)
        if self.targets is not None:
            root = self.signing_root(published)
            wanting = max(wanting, missing_for_targets(self.targets, root))
        return wanting

    def signed_by(self, published: Root | None) -> list[str]:
        root = self.signing_root(published)
        names: set[str] = set()
        if self.targets is not None:
            names.update(signers(self.targets, root, "targets"))
        if self.root is not None:
            names.update(signers(self.root, root, "root"))
        return sorted(names)

    def sign(self, root_key: SigningKey, targets_key: SigningKey, published: Root | None) -> None:
        """Add this operator's signatures wherever its keys are asked for.

        Raises UntrustedError when they are asked for nowhere.
        """
        trusted = [self.signing_root(published)] + ([published] if published is not None else [])
        signed = False
        if self.root is not None and any(_holds(each, "root", root_key) for each in trusted):
            sign(self.root, [root_key])
            signed = True
        if self.targets is not None and _holds(trusted[0], "targets", targets_key):
            sign(self.targets, [targets_key])
            signed = True
        if not signed:
            raise UntrustedError(
                "this operator's keys are not among those that may sign it",
                remedy="see who may with: rollcall keys show",
            )

    def offer(self) -> Offer:
        return Offer(
            roots=[] if self.root is None else [to_bytes(self.root).decode()],
            targets=None if self.targets is None else to_bytes(self.targets).decode(),
            files={path: raw.decode() for path, raw in self.files.items()},
        )

    def rebased(self, targets: Targets) -> Bundle:
        """The same change on top of newer targets; its signatures are gone then.

        Raises BadInputError for a bundle with a root: that one is drafted anew.
        """
        if self.targets is None or self.root is not None:
            raise BadInputError(
                "only a release or a withdrawal can be rebased",
                remedy="draft a root anew: rollcall keys rotate",
            )
        expires = self.targets.signed.expires.timestamp()
        drafted = new_targets(self.files.items(), expires, base=targets, without=self.withdrawn)
        return replace(self, targets=drafted)


def _holds(root: Root, role: str, key: SigningKey) -> bool:
    return key.public.keyid in root.roles[role].keyids


def _read(path: Path, limit: int) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise BadInputError(f"{path} is not a plain file")
    if path.stat().st_size > limit:
        raise BadInputError(f"{path} is larger than {limit} bytes")
    return path.read_bytes()


def _check_signatures(metadata: Metadata[S], trusted: Root, role: str) -> None:
    good = signers(metadata, trusted, role)
    for keyid in metadata.signatures:
        name = name_of_key(trusted, keyid)
        if keyid in trusted.roles[role].keyids and name not in good:
            raise UntrustedError(
                f"{name}'s signature does not fit: {role}.json was changed after {name} signed",
                remedy="ask for the bundle again",
            )


def _load(path: Path, read: Callable[[bytes], M], limit: int) -> M:
    try:
        return read(_read(path, limit))
    except BadInputError as error:
        raise BadInputError(f"{path}: {error.message}") from error


def _load_withdrawn(path: Path) -> tuple[str, ...]:
    if not path.exists():
        return ()
    value = parse_json(_read(path, MAX_FILE_BYTES))
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise BadInputError(f"{path} is not a list of paths")
    return tuple(value)


def _load_folder(folder: Path, limit: int) -> dict[str, bytes]:
    if not folder.is_dir():
        return {}
    found = {}
    for path in sorted(folder.iterdir()):
        if _PLAIN.fullmatch(path.name) is None:
            raise BadInputError(f"{path} has a name that no bundle uses")
        found[path.name] = _read(path, limit)
    return found
