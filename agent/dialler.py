"""The one pool of mutual TLS connections of an agent, replaced whole when its certificate or the
authorities change: a retired authority must not vouch for anybody on a context that is kept."""

from __future__ import annotations

import aiohttp

from shared.http import session
from shared.protocol import SPOKEN, ProtocolRange
from shared.tls import TlsFiles, client_context, unverified_context


class Dialler:
    """`session` is the pool of now: ask for it at every call, and keep none."""

    def __init__(self, files: TlsFiles, speaks: ProtocolRange = SPOKEN) -> None:
        self._files, self._speaks = files, speaks
        self.session = self._open()

    def _open(self) -> aiohttp.ClientSession:
        context = client_context(self._files.ca, self._files)
        return session(context=context, per_host=4, speaks=self._speaks)

    def anonymous(self) -> aiohttp.ClientSession:
        """One of its own, without this node's certificate: a lapsed one, or one of a retired authority,
        would end the handshake. The caller closes it."""
        return session(context=client_context(self._files.ca), per_host=1, speaks=self._speaks)

    async def renew(self) -> None:
        """With the files of now. Raises ssl.SSLError, and keeps the old pool, when they do not fit."""
        before, self.session = self.session, self._open()
        await before.close()

    async def close(self) -> None:
        await self.session.close()


def open_unverified() -> aiohttp.ClientSession:
    """For TUF metadata alone, which proves itself: the way back when the coordinator's authority was
    changed while this node was away."""
    return session(context=unverified_context(), per_host=1)
