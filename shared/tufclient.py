"""The reading side of the fleet's TUF repository: python-tuf's client over a cache that is durable.

python-tuf replaces its files without fsync. Here each refresh works in a copy of the cache, and the
copy is synced and then takes its place by one rename of a link: after a power cut there is the old set
or the new one, never half of either. Blocking; daemons call it in a thread.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.api.metadata import Metadata, Root, Targets

from shared.canonical import sha256_hex
from shared.durable import (
    full_sync,
    private_directory,
    switch_link,
    sync_directory,
    wait_for_lock,
    write_durable,
)
from shared.errors import (
    ExpiredError,
    NotFoundError,
    RollcallError,
    UnavailableError,
    UntrustedError,
)
from shared.fleet import FleetDocument
from shared.lean import stands_in
from shared.metadata import (
    FLEET,
    TargetEntry,
    entries,
    is_capability,
    is_release,
    read_root,
    read_snapshot,
    read_targets,
    read_timestamp,
)

with stands_in("tuf.ngclient.urllib3_fetcher", "Urllib3Fetcher"):
    # Its own HTTP client, 1 MiB of it, is for whoever brings none.
    from tuf.ngclient import FetcherInterface, Updater

Fetch = Callable[[str], bytes]
"""Path below `/tuf/` to bytes. Raises NotFoundError for a file that is not there, and any other
RollcallError when nobody answered."""

_BASE = "tuf:///"
MAX_TARGET_BYTES = 4 << 20


@dataclass(frozen=True)
class TrustView:
    """What verified metadata says. `expires` is when the first of the four roles does, in seconds."""

    root_version: int
    targets_version: int
    snapshot_version: int
    expires: float
    targets: dict[str, TargetEntry]

    def release(self, release: str) -> TargetEntry:
        """Raises UntrustedError when no operator signed this release, or it was withdrawn."""
        for entry in self.targets.values():
            if entry.sha256 == release and is_release(entry.path):
                return entry
        raise UntrustedError(
            f"release {release[:12]} is not among those that the fleet's operators signed",
            remedy="sign and publish it, or choose another: rollcall release list",
        )

    def capability(self, capability: str) -> TargetEntry:
        """Raises UntrustedError when no operator signed this capability, or it was withdrawn."""
        for entry in self.targets.values():
            if entry.sha256 == capability and is_capability(entry.path):
                return entry
        raise UntrustedError(
            f"capability {capability[:12]} is not among those that the fleet's operators signed",
            remedy="sign it, or choose another: rollcall capability list",
        )

    def check_fresh(self, now: float) -> None:
        """Raises ExpiredError once any role has expired: nothing new is installed then."""
        if now >= self.expires:
            raise ExpiredError(
                "the fleet's release metadata has expired",
                remedy="start the coordinator, or sign anew: rollcall keys renew",
            )


class TufClient:
    """`folder` holds `anchor.json`, `current -> <generation>`, and `files/<sha256>` of targets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._current = folder / "current"
        self._files = folder / "files"

    @classmethod
    def create(cls, folder: Path, root: bytes) -> TufClient:
        """Begin with a root whose hash somebody trusted has told us."""
        read_root(root)
        private_directory(folder)
        private_directory(folder / "files")
        write_durable(folder / "anchor.json", root)
        return cls(folder)

    @property
    def anchor(self) -> bytes:
        try:
            return (self._folder / "anchor.json").read_bytes()
        except FileNotFoundError:
            raise UntrustedError(
                f"{self._folder} has no trusted root", remedy="join the fleet again"
            ) from None

    def refresh(self, fetch: Fetch) -> tuple[TrustView, FleetDocument]:
        """Bring the cache up to date and return what it says now.

        What was verified is kept even when a later step fails, so that no older metadata is accepted
        afterwards. One process at a time: two commands of an operator share a cache. Raises
        ExpiredError, UntrustedError, or UnavailableError when nobody answered.
        """
        with wait_for_lock(self._folder / "lock"):
            self._update(fetch)
            view = self.view()
        if view is None:
            raise UntrustedError("the release metadata does not hold together")
        return view, self._fleet_document(view, fetch)

    def _update(self, fetch: Fetch) -> None:
        staging = self._stage()
        fetcher = _Fetcher(fetch)
        try:
            updater = Updater(str(staging), _BASE, fetcher=fetcher, bootstrap=self.anchor)
            updater.refresh()
        except ExpiredMetadataError as error:
            raise ExpiredError(
                f"the fleet's release metadata has expired: {error}",
                remedy="start the coordinator, or sign anew: rollcall keys renew",
            ) from error
        except DownloadError as error:
            raise fetcher.failure or UnavailableError(str(error)) from error
        except (RepositoryError, ValueError) as error:
            raise UntrustedError(f"release metadata refused: {error}") from error
        finally:
            self._switch(staging)

    def _fleet_document(self, view: TrustView, fetch: Fetch) -> FleetDocument:
        entry = view.targets.get(FLEET)
        if entry is None:
            raise UntrustedError("the targets name no fleet document")
        return FleetDocument.from_bytes(self.target(entry, fetch))

    def view(self) -> TrustView | None:
        """What the cache says, its signatures checked again; None before the first refresh."""
        try:
            root = read_root((self._current / "root.json").read_bytes()).signed
            targets = read_targets((self._current / "targets.json").read_bytes())
            snapshot = read_snapshot((self._current / "snapshot.json").read_bytes()).signed
            timestamp = read_timestamp((self._current / "timestamp.json").read_bytes()).signed
            root.verify_delegate(Targets.type, targets.signed_bytes, targets.signatures)
            listed = entries(targets.signed)
        except (OSError, RollcallError, RepositoryError):
            return None
        roles = (root, targets.signed, snapshot, timestamp)
        return TrustView(
            root_version=root.version,
            targets_version=targets.signed.version,
            snapshot_version=snapshot.version,
            expires=min(role.expires.timestamp() for role in roles),
            targets=listed,
        )

    def root(self) -> Metadata[Root]:
        """The newest root this cache trusts."""
        with contextlib.suppress(OSError):
            return read_root((self._current / "root.json").read_bytes())
        return read_root(self.anchor)

    def targets(self) -> Metadata[Targets]:
        return read_targets((self._current / "targets.json").read_bytes())

    def target(self, entry: TargetEntry, fetch: Fetch) -> bytes:
        """A target's bytes, from the cache or fetched. Raises UntrustedError when they are others."""
        kept = self.kept(entry.sha256)
        if kept is not None:
            return kept
        if entry.length > MAX_TARGET_BYTES:
            raise UntrustedError(f"target {entry.path} of {entry.length} bytes is too large")
        raw = fetch(f"targets/{entry.sha256}.{entry.path}")
        if len(raw) != entry.length or sha256_hex(raw) != entry.sha256:
            raise UntrustedError(f"target {entry.path} is not what was signed")
        private_directory(self._files)
        write_durable(self._files / entry.sha256, raw)
        return raw

    def kept(self, sha256: str) -> bytes | None:
        """A target that was verified here before, whatever the metadata says of it today."""
        try:
            raw = (self._files / sha256).read_bytes()
        except FileNotFoundError:
            return None
        return raw if sha256_hex(raw) == sha256 else None

    def serve(self, path: str) -> bytes:
        """The repository as this cache can pass it on. `path` has the form of `SERVED`.

        Raises NotFoundError.
        """
        name = path.removeprefix("targets/")
        if name != path:
            return self._found(self.kept(name.split(".", 1)[0]), path)
        if name == "timestamp.json":
            return self._found(_read(self._current / name), path)
        version, role, _ = name.split(".")
        if role == Root.type:
            return self._found(_read(self._current / "root_history" / name), path)
        raw = self._found(_read(self._current / f"{role}.json"), path)
        right = Metadata.from_bytes(raw).signed.version == int(version)
        return self._found(raw if right else None, path)

    def _found(self, raw: bytes | None, path: str) -> bytes:
        if raw is None:
            raise NotFoundError(f"there is no {path} here")
        return raw

    def _stage(self) -> Path:
        for leftover in self._folder.glob("generation-*"):
            if leftover != self._current.resolve():
                shutil.rmtree(leftover, ignore_errors=True)
        staging = self._folder / f"generation-{secrets.token_hex(4)}"
        if self._current.exists():
            shutil.copytree(self._current, staging, symlinks=True)
        else:
            private_directory(staging)
        return staging

    def _switch(self, staging: Path) -> None:
        if _content(staging) == _content(self._current):
            shutil.rmtree(staging, ignore_errors=True)
            return
        for path in staging.rglob("*"):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    full_sync(file.fileno())
        sync_directory(staging / "root_history")
        sync_directory(staging)
        before = self._current.resolve()
        switch_link(self._current, Path(staging.name))
        if before != self._current:
            shutil.rmtree(before, ignore_errors=True)


class _Fetcher(FetcherInterface):
    """Hands python-tuf's paths to `fetch`, and keeps the reason of a failure, which python-tuf loses."""

    def __init__(self, fetch: Fetch) -> None:
        self._get = fetch
        self.failure: RollcallError | None = None

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            return iter([self._get(url.removeprefix(_BASE))])
        except NotFoundError as error:
            raise DownloadHTTPError(str(error), 404) from error
        except RollcallError as error:
            self.failure = error
            raise DownloadError(str(error)) from error


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder.resolve())): path.read_bytes()
        for path in folder.resolve().rglob("*")
        if path.is_file()
    }
