"""Asking peers: over the kept connection with them, or by dialling their best addresses in turn; mutual TLS either
way."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Mapping

import aiohttp

from agent.dialler import Dialler
from agent.peers.directory import Directory, netloc
from agent.peers.link import EndedError, Link
from shared.canonical import MAX_JSON_BYTES
from shared.errors import BadInputError, UnavailableError
from shared.http import call, missing_as
from shared.metadata import MAX_TARGETS_BYTES
from shared.roster import tls_name

MAX_TRIED = 4
"""Addresses of a peer that a single question dials; the kept connection tries all of them."""


class NobodyThereError(UnavailableError):
    """The peer's host answers, and says that no agent listens there."""


class NoAddressError(UnavailableError):
    """Whether the peer is there is not known: nobody was asked."""


def _is_refusal(error: UnavailableError) -> bool:
    cause = error.__cause__
    return isinstance(cause, aiohttp.ClientOSError) and cause.errno == errno.ECONNREFUSED


class Transport:
    """Asks a peer by name. The certificate it shows must carry that name; the address proves nothing."""

    def __init__(
        self, directory: Directory, dialler: Dialler, link_of: Callable[[str], Link | None]
    ) -> None:
        self._directory, self._dialler, self._link_of = directory, dialler, link_of

    def has_way(self, peer: str) -> bool:
        """Whether an address of the peer is known to answer. Over a connection that the peer has dialled one can
        talk without."""
        return bool(self._directory.how(peer))

    async def ask(
        self,
        peer: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: bytes | None = None,
        timeout_s: float = 10.0,
        max_answer: int = MAX_JSON_BYTES,
    ) -> bytes:
        """Raises UnavailableError when no address of the peer answered; refusals pass through."""
        if (link := self._link_of(peer)) is not None:
            with contextlib.suppress(EndedError):
                body = await link.ask(
                    method, path, params=params, data=data or b"", timeout_s=timeout_s
                )
                if len(body) > max_answer:
                    raise BadInputError(f"an answer of more than {max_answer} bytes")
                return body
        return await self.dial(
            peer,
            method,
            path,
            params=params,
            data=data,
            timeout_s=timeout_s,
            max_answer=max_answer,
        )

    async def dial(
        self,
        peer: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: bytes | None = None,
        timeout_s: float = 10.0,
        max_answer: int = MAX_JSON_BYTES,
    ) -> bytes:
        """The same, over a connection for this question alone: in a large fleet those that one dials in turn would
        be many if they were kept. Raises NobodyThereError where every address refused, and
        NoAddressError where there is none."""
        failed: list[UnavailableError] = []
        for hint in self._directory.candidates(peer)[:MAX_TRIED]:
            try:
                body = await call(
                    self._dialler.session,
                    method,
                    f"https://{netloc(hint)}{path}",
                    timeout_s=timeout_s,
                    max_answer=max_answer,
                    server_hostname=tls_name(peer),
                    headers={"Connection": "close"},
                    params=params,
                    data=data,
                )
            except UnavailableError as error:
                failed.append(error)
                continue
            self._directory.reached(peer, hint)
            return body
        if self._link_of(peer) is None:
            self._directory.lost(peer)
        if not failed:
            raise NoAddressError(f"no address is known for {peer}")
        if all(_is_refusal(error) for error in failed):
            raise NobodyThereError(f"nobody listens at the addresses of {peer}") from failed[-1]
        raise failed[-1]

    async def tuf(self, peer: str, path: str) -> bytes:
        """A file of the TUF repository as this peer has it. Raises NotFoundError."""
        with missing_as(f"{peer} has no {path}"):
            return await self.ask(peer, "GET", f"/v1/peer/tuf/{path}", max_answer=MAX_TARGETS_BYTES)
