"""What operators signed, as this node has verified it by TUF: whoever hands it over, coordinator or
peer, only signatures count. Two keys move a node: an order names a release, and the metadata lists it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import structlog
from tuf.api.metadata import Root

from agent.coordinator import Coordinator
from shared.backoff import Backoff
from shared.capability import Capability, check_installable, parse_capability
from shared.clock import Clock, wait_at_most
from shared.errors import (
    ExpiredError,
    NotFoundError,
    RollcallError,
    UnavailableError,
    UntrustedError,
)
from shared.fleet import FleetDocument
from shared.metadata import TargetEntry
from shared.release import (
    MAX_ARTIFACT_BYTES,
    MAX_LOCK_BYTES,
    Release,
    check_unexpired,
    parse_release,
)
from shared.tufclient import TrustView, TufClient

T = TypeVar("T")
log = structlog.get_logger()

REFRESH_S = 3600.0
ASK_AGAIN_S = 30.0
AT_LEAST_S = 0.5
"""Between two refreshes, however often somebody says that there is news."""
FETCH_TIMEOUT_S = 90.0
BLOB_TIMEOUT_S = 600.0
AWAY_S = 300.0
"""How long an upgrade that has begun waits for the coordinator to hand out a file."""

Source = Callable[[str], Awaitable[bytes]]
"""Path below `/tuf/` to bytes; raises RollcallError."""


class Releases:
    """Implements ReleaseSource. `peers` names sources to try when the coordinator does not answer;
    `on_fleet` is given a fleet document that operators signed, known or new."""

    def __init__(
        self,
        client: TufClient,
        coordinator: Coordinator,
        peers: Callable[[], list[Source]],
        clock: Clock,
        on_fleet: Callable[[FleetDocument], Awaitable[object]],
    ) -> None:
        self._client, self._coordinator, self._peers = client, coordinator, peers
        self._clock, self._on_fleet = clock, on_fleet
        self._view: TrustView | None = None
        self._busy = asyncio.Lock()
        self._news = asyncio.Event()
        self._heard = 0
        self._refused = ""
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tuf")
        """Its own: a fetch that waits for a peer must not keep the journal waiting."""

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _do(self, work: Callable[..., T], *arguments: Any) -> T:
        """In a thread, to its end: a caller that is cancelled must not leave it alone with the cache."""
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._threads, partial(work, *arguments))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait({running})
            raise

    @property
    def alerts(self) -> list[str]:
        """Why nothing new would be installed now; nothing else depends on it (fault 25)."""
        reason = self._refused
        if not reason and self._view is not None:
            try:
                self._view.check_fresh(self._clock.now())
            except ExpiredError as error:
                reason = str(error)
        return [f"no release is installed: {reason}"] if reason else []

    async def root(self) -> Root:
        """Who may sign, by the newest root that this node has verified."""
        return (await self._do(self._client.root)).signed

    async def load(self) -> None:
        self._view = await self._do(self._client.view)

    def heard(self, number: int) -> None:
        """The coordinator's count of what operators published; a new one is worth a refresh."""
        if number != self._heard:
            self._heard = number
            self._news.set()

    def lost(self) -> None:
        """The coordinator does not answer any more: perhaps under other keys, which metadata tells."""
        self._news.set()

    async def run(self) -> None:
        """Refresh at news and every hour, so that expiry is noticed before an order comes."""
        while True:
            self._news.clear()
            try:
                await self.refresh()
                pause = REFRESH_S
            except (RollcallError, OSError) as error:
                log.warning("release metadata not refreshed", reason=str(error))
                pause = ASK_AGAIN_S
            await self._clock.sleep(AT_LEAST_S)
            await wait_at_most(self._news, pause)

    async def refresh(self, first: Source | None = None) -> TrustView:
        """The newest metadata that any source has. Raises what the most telling one said."""
        sources = [self._coordinator.tuf, self._coordinator.tuf_unverified, *self._peers()]
        if first is not None:
            sources.insert(0, first)
        async with self._busy:
            view, document = await self._refresh_from(sources)
            self._view = view
        await self._on_fleet(document)
        return view

    async def _refresh_from(self, sources: list[Source]) -> tuple[TrustView, FleetDocument]:
        reason: RollcallError | None = None
        for source in sources:
            try:
                found = await self._do(self._client.refresh, _blocking(source))
            except UnavailableError as error:
                reason = reason or error
            except RollcallError as error:
                reason = error if reason is None or isinstance(reason, UnavailableError) else reason
            else:
                self._refused = ""
                return found
        reason = reason or UnavailableError("nobody to ask for release metadata")
        if isinstance(reason, ExpiredError | UntrustedError):
            self._refused = str(reason)
        raise reason

    async def authorise(self, release: str) -> Release:
        """The release of a new order, if operators sign for it today.

        Raises UntrustedError or ExpiredError with the reason why it is refused.
        """
        found = await self._manifest(await self._fresh_view(), release, None)
        check_unexpired(found, self._clock.now())
        return found

    async def _fresh_view(self) -> TrustView:
        """Raises ExpiredError for metadata by which nothing new is installed."""
        try:
            view = await self.refresh()
        except UnavailableError:
            if self._view is None:
                raise
            view = self._view
        view.check_fresh(self._clock.now())
        return view

    async def authorise_capability(self, capability: str) -> bytes:
        """The manifest of a capability, if operators sign for it today. Raises like `authorise`."""
        entry = (await self._fresh_view()).capability(capability)
        raw = await self._target(entry, None)
        check_installable(parse_capability(raw), self._clock.now())
        return raw

    async def capability_file(self, capability: Capability, sha256: str) -> bytes:
        if sha256 not in {artifact.sha256 for artifact in capability.manifest.artifacts}:
            raise UntrustedError(f"capability {capability.label} has no artifact {sha256[:12]}")
        return await self._blob(sha256, MAX_ARTIFACT_BYTES)

    async def release(self, release: str) -> Release:
        """A release that was authorised here before; asks nobody, so that what is in flight goes on."""
        raw = await self._do(self._client.kept, release)
        if raw is None:
            raise UntrustedError(f"release {release[:12]} was never authorised on this node")
        return parse_release(raw)

    async def kept(self, release: str | None) -> Release | None:
        raw = None if release is None else await self._do(self._client.kept, release)
        return None if raw is None else parse_release(raw)

    async def signed(self, release: str, source: Source) -> Release:
        """A release that a peer runs, for judging its claim. Expiry does not matter there; that operators
        signed it does. `source` is that peer, asked when nobody else knows of it."""
        if self._view is not None:
            try:
                return await self._manifest(self._view, release, source)
            except UntrustedError:
                pass  # newer than what this node has heard
        return await self._manifest(await self.refresh(source), release, source)

    async def _manifest(self, view: TrustView, release: str, source: Source | None) -> Release:
        return parse_release(await self._target(view.release(release), source))

    async def _target(self, entry: TargetEntry, source: Source | None) -> bytes:
        """`source` is asked first."""
        reason: RollcallError | None = None
        for each in (source, self._coordinator.tuf, *self._peers()):
            if each is None:
                continue
            try:
                return await self._do(self._client.target, entry, _blocking(each))
            except RollcallError as error:
                reason = reason or error
        raise reason or UnavailableError(f"nobody has {entry.path}")

    async def serve(self, path: str) -> bytes:
        """What this node can pass on of the repository. Raises NotFoundError.

        Asks for no lock: two nodes that refresh from each other would wait for each other. A refresh
        may take a file away under our eyes; the second look finds its successor.
        """
        try:
            return await asyncio.to_thread(self._client.serve, path)
        except NotFoundError:
            return await asyncio.to_thread(self._client.serve, path)

    async def lock(self, release: Release) -> bytes:
        return await self._awaited(release.manifest.lock_sha256, MAX_LOCK_BYTES)

    async def artifact(self, release: Release, sha256: str) -> bytes:
        if sha256 not in {artifact.sha256 for artifact in release.manifest.artifacts}:
            raise UntrustedError(f"release {release.label} has no artifact {sha256[:12]}")
        return await self._awaited(sha256, MAX_ARTIFACT_BYTES)

    async def agent_file(self, release: Release, sha256: str) -> bytes:
        agent = release.manifest.agent
        if agent is None or sha256 not in agent.files.values():
            raise UntrustedError(f"release {release.label} has no agent file {sha256[:12]}")
        return await self._blob(sha256, MAX_ARTIFACT_BYTES)

    async def _awaited(self, sha256: str, limit: int) -> bytes:
        """A coordinator that restarts is waited for: an order that has begun does not end for it, and the old gateway
        serves meanwhile. Raises UnavailableError when it stays away."""
        backoff, ends = Backoff(0.5, 10.0), self._clock.monotonic() + AWAY_S
        while True:
            try:
                return await self._blob(sha256, limit)
            except UnavailableError as error:
                if self._clock.monotonic() >= ends:
                    raise
                log.warning("waiting for a file", sha256=sha256[:12], reason=str(error))
                await self._clock.sleep(backoff.failed())

    async def _blob(self, sha256: str, limit: int) -> bytes:
        path = f"/v1/blobs/{sha256}"
        raw = await self._coordinator.get(path, limit=limit, timeout_s=BLOB_TIMEOUT_S)
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise UntrustedError(f"blob {sha256[:12]} is not what its hash says")
        return raw


def _blocking(source: Source) -> Callable[[str], bytes]:
    """python-tuf asks from a thread; the answer comes from this loop."""
    loop = asyncio.get_running_loop()

    def fetch(path: str) -> bytes:
        asked = asyncio.run_coroutine_threadsafe(_coroutine(source, path), loop)
        try:
            return asked.result(FETCH_TIMEOUT_S)
        except TimeoutError as error:
            asked.cancel()
            raise UnavailableError(f"{path} did not arrive") from error

    return fetch


async def _coroutine(source: Source, path: str) -> bytes:
    return await source(path)
