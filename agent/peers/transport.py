"""Dialling peers: mutual TLS, one pool of kept connections, every address tried in turn."""

from __future__ import annotations

from typing import Any

import aiohttp

from agent.peers.directory import Directory, Hint
from shared.errors import UnavailableError
from shared.http import call, session
from shared.roster import tls_name
from shared.tls import TlsFiles, client_context


class Transport:
    """Asks a peer by name. The certificate it shows must carry that name; the address proves nothing."""

    def __init__(self, directory: Directory, client: aiohttp.ClientSession) -> None:
        self._directory = directory
        self._client = client

    async def ask(
        self, peer: str, method: str, path: str, *, timeout_s: float = 10.0, **options: Any
    ) -> bytes:
        """Raises UnavailableError when no address of the peer answered; refusals pass through."""
        candidates = self._directory.candidates(peer)
        if not candidates:
            raise UnavailableError(f"no address is known for {peer}")
        last: UnavailableError | None = None
        for hint in candidates:
            try:
                body = await call(
                    self._client,
                    method,
                    f"https://{_netloc(hint)}{path}",
                    timeout_s=timeout_s,
                    server_hostname=tls_name(peer),
                    **options,
                )
            except UnavailableError as error:
                last = error
                continue
            self._directory.reached(peer, hint)
            return body
        self._directory.lost(peer)
        raise last or UnavailableError(f"{peer} did not answer")


def _netloc(hint: Hint) -> str:
    return f"[{hint.host}]:{hint.port}" if ":" in hint.host else f"{hint.host}:{hint.port}"


def open_client(files: TlsFiles) -> aiohttp.ClientSession:
    return session(context=client_context(files.ca, files), per_host=4)
