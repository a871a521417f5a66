"""Dialling peers: mutual TLS, one pool of kept connections, every address tried in turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from agent.dialler import Dialler
from agent.peers.directory import Directory, Hint
from shared.errors import UnavailableError
from shared.http import Answer, call, get_changed, missing_as
from shared.metadata import MAX_TARGETS_BYTES
from shared.roster import tls_name

T = TypeVar("T")


class Transport:
    """Asks a peer by name. The certificate it shows must carry that name; the address proves nothing."""

    def __init__(self, directory: Directory, dialler: Dialler) -> None:
        self._directory = directory
        self._dialler = dialler

    async def ask(
        self, peer: str, method: str, path: str, *, timeout_s: float = 10.0, **options: Any
    ) -> bytes:
        """Raises UnavailableError when no address of the peer answered; refusals pass through."""

        def ask(url: str) -> Awaitable[bytes]:
            session, named = self._dialler.session, tls_name(peer)
            return call(session, method, url, timeout_s=timeout_s, server_hostname=named, **options)

        return await self._at_one_address(peer, path, ask)

    async def ask_if_changed(
        self, peer: str, path: str, etag: str | None, *, timeout_s: float = 10.0
    ) -> Answer:
        """Like `ask`, for what is fetched again and again."""

        def ask(url: str) -> Awaitable[Answer]:
            session, named = self._dialler.session, tls_name(peer)
            return get_changed(session, url, etag, timeout_s=timeout_s, server_hostname=named)

        return await self._at_one_address(peer, path, ask)

    async def _at_one_address(self, peer: str, path: str, ask: Callable[[str], Awaitable[T]]) -> T:
        candidates = self._directory.candidates(peer)
        if not candidates:
            raise UnavailableError(f"no address is known for {peer}")
        last: UnavailableError | None = None
        for hint in candidates:
            try:
                found = await ask(f"https://{_netloc(hint)}{path}")
            except UnavailableError as error:
                last = error
                continue
            self._directory.reached(peer, hint)
            return found
        self._directory.lost(peer)
        raise last or UnavailableError(f"{peer} did not answer")

    async def tuf(self, peer: str, path: str) -> bytes:
        """A file of the TUF repository as this peer has it. Raises NotFoundError."""
        with missing_as(f"{peer} has no {path}"):
            return await self.ask(peer, "GET", f"/v1/peer/tuf/{path}", max_answer=MAX_TARGETS_BYTES)


def _netloc(hint: Hint) -> str:
    return f"[{hint.host}]:{hint.port}" if ":" in hint.host else f"{hint.host}:{hint.port}"
