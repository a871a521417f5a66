"""Operators with throw-away keys, and a repository that they have signed, without any network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tuf.api.metadata import Root

from coordinator.bundle import Bundle, Published
from coordinator.ceremony import add_release, begin
from coordinator.home import HomePaths, KeyRing, open_home
from coordinator.repository import Repository
from shared.canonical import sha256_hex
from shared.clock import Clock, SystemClock
from shared.fleet import FleetDocument
from shared.keys import OperatorKeys, SigningKey
from shared.release import Release, ReleaseManifest, parse_release

URL = "https://127.0.0.1:1"


@dataclass
class Operator:
    """One person's keys, unsealed."""

    name: str
    root: SigningKey = field(default_factory=SigningKey.generate)
    targets: SigningKey = field(default_factory=SigningKey.generate)

    @property
    def public(self) -> OperatorKeys:
        return OperatorKeys(name=self.name, root=self.root.public, targets=self.targets.public)

    def sign(self, bundle: Bundle, published: Root | None) -> Bundle:
        bundle.sign(self.root, self.targets, published)
        return bundle


def manifest_of(name: str, lock: bytes, now: float, **changes: object) -> ReleaseManifest:
    values: dict[str, object] = {
        "name": name,
        "openclaw": name.split("+", maxsplit=1)[0],
        "dependencies": {"openclaw": name.split("+", maxsplit=1)[0]},
        "lock_sha256": sha256_hex(lock),
        "node_engine": ">=24",
        "created": now,
        "expires": now + 3600,
    }
    return ReleaseManifest.model_validate({**values, **changes})


class SignedRepository:
    """A coordinator's repository on disk and the operators who sign for it."""

    def __init__(
        self,
        root: Path,
        operators: list[Operator] | None = None,
        threshold: int = 1,
        clock: Clock | None = None,
        has_blob: Callable[[str], bool] = lambda sha256: True,
    ) -> None:
        self.clock = clock or SystemClock()
        self.operators = operators or [Operator("operator")]
        self.paths = HomePaths(root / "coordinator")
        self.ring: KeyRing = open_home(self.paths, "test", self.clock.now())
        self.repository = Repository(self.paths.repository, self.ring, self.clock, has_blob)
        names = [each.public for each in self.operators]
        keys = self.ring.current.public(URL)
        self.publish(begin(keys, names, threshold, self.clock.now()))
        self.first_root = self.repository.read("1.root.json")

    def publish(self, bundle: Bundle, operators: list[Operator] | None = None) -> None:
        before = self.repository.root.signed if self.repository.root is not None else None
        for each in self.operators if operators is None else operators:
            each.sign(bundle, before)
        self.repository.publish(bundle.offer())

    @property
    def fleet(self) -> FleetDocument:
        return self.repository.must_fleet()

    @property
    def published(self) -> Published:
        root, targets = self.repository.root, self.repository.targets
        if root is None or targets is None:
            raise AssertionError("nothing is published")
        return Published(root, targets, self.fleet)

    def release(self, name: str, lock: bytes = b"{}", **changes: object) -> Release:
        manifest = manifest_of(name, lock, self.clock.now(), **changes)
        self.publish(add_release(self.published, manifest, {}, self.clock.now()))
        return parse_release(manifest.canonical())

    async def serve(self, path: str) -> bytes:
        return await asyncio.to_thread(self.repository.read, path)
