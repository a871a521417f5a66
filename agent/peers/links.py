"""The kept connections with all peers: one each, dialled anew with jitter when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, cast

import aiohttp
import structlog
from aiohttp import web

from agent.dialler import Dialler
from agent.peers.dialling import Race, Room, why
from agent.peers.directory import Directory, Hint, netloc, plain_host
from agent.peers.link import HEARTBEAT_S, MAX_FRAME, Answer, Link, Socket
from agent.peers.overlay import Overlay
from agent.trust import Trust
from shared.backoff import Backoff
from shared.clock import Clock, wait_at_most
from shared.errors import UnavailableError
from shared.roster import tls_name

log = structlog.get_logger()

PATH = "/v1/peer/link"
FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 5.0
COURTESY_S = 0.5
"""How much later the node with the greater name dials: two nodes that start together then dial once."""
OLDER_S = 1.0
"""How long the older of two connections may take to show that it is alive."""


class Links:
    """Nothing is dialled or accepted before `open` has said what peers may ask."""

    def __init__(
        self,
        trust: Trust,
        directory: Directory,
        dialler: Dialler,
        clock: Clock,
        overlay: Overlay,
    ) -> None:
        self._trust, self._directory, self._dialler = trust, directory, dialler
        self._clock, self.overlay = clock, overlay
        self._links: dict[str, Link] = {}
        self._wake: dict[str, asyncio.Event] = {}
        self._held: set[Link] = set()
        """All that are open, also those that are about to end."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = Room()
        self._closed = False

    def open(
        self,
        answers: Callable[[str], Answer],
        *,
        on_up: Callable[[str], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """`answers` gives what a peer may ask; `on_up` and `on_lost` are told a peer's name."""
        self._answers, self._on_up, self._on_lost = answers, on_up, on_lost
        self._trust.listen(self._end_strangers)

    def get(self, peer: str) -> Link | None:
        link = self._links.get(peer)
        return link if link is not None and link.usable else None

    def nudge(self, peer: str) -> None:
        """An address was learnt: dial now rather than at the next try."""
        self._wake.setdefault(peer, asyncio.Event()).set()

    async def keep(self, peer: str) -> None:
        """One connection with this peer, for ever."""
        wake = self._wake.setdefault(peer, asyncio.Event())
        backoff = Backoff(FIRST_RETRY_S, LONGEST_RETRY_S)
        courtesy = COURTESY_S if self._trust.name > peer else 0.0
        while True:
            wake.clear()
            if self.get(peer) is None:
                await wait_at_most(wake, courtesy)
            if self.get(peer) is None and await self._dial(peer):
                backoff.succeeded()
            pause = LONGEST_RETRY_S if self.get(peer) is not None else backoff.failed()
            await wait_at_most(wake, pause)

    async def _dial(self, peer: str) -> bool:
        def failed(hint: Hint, error: Exception) -> None:
            reason = why(error)
            self._directory.failed(peer, hint, reason)
            log.debug("not linked", peer=peer, address=netloc(hint), reason=reason)

        async def end(socket: aiohttp.ClientWebSocketResponse[bool]) -> None:
            await socket.close()

        race = Race(partial(self._connect, peer), end, failed, self._room)
        won = await race.run(self._directory.candidates(peer))
        if won is None:
            return False
        hint, socket = won
        self._directory.reached(peer, hint)
        link = Link(peer, cast("Socket", socket), self._answers(peer), dialled_by=self._trust.name)
        self._spawn(self._hold(link))
        await asyncio.sleep(0)
        return True

    async def _connect(self, peer: str, hint: Hint) -> aiohttp.ClientWebSocketResponse[bool]:
        return await self._dialler.session.ws_connect(
            f"https://{netloc(hint)}{PATH}",
            server_hostname=tls_name(peer),
            heartbeat=HEARTBEAT_S,
            max_msg_size=MAX_FRAME,
        )

    async def accept(self, request: web.Request, peer: str) -> web.StreamResponse:
        """The other end of `_dial`, for as long as it lasts. Raises UnavailableError once this node leaves."""
        if self._closed:
            raise UnavailableError(f"{self._trust.name} is going")
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=MAX_FRAME, compress=False
        )
        await socket.prepare(request)
        link = Link(peer, cast("Socket", socket), self._answers(peer), dialled_by=peer)
        if self.get(peer) is None:
            self._directory.accepted(peer, plain_host(request.remote or ""))
        await self._hold(link)
        return socket

    async def _hold(self, link: Link) -> None:
        """Where there are two, that of the smaller name stays: both ends come to the same. Of one dialler's two
        the newer: the older is one that it has lost."""
        before, first = self.get(link.peer), min(self._trust.name, link.peer)
        self._held.add(link)
        if before is not None and before.dialled_by == first != link.dialled_by:
            self._spawn(self._settle(before, link))
        else:
            self._take_up(link)
            self._retire([before] if before is not None else [])
        try:
            await link.serve()
        finally:
            self._held.discard(link)
            self._let_go(link)

    async def _settle(self, older: Link, newer: Link) -> None:
        """The older one should stay, and may be dead without a word: who got another address, or was switched off
        and on, dials anew and does not end what it had."""
        try:
            await older.ping(OLDER_S)
        except UnavailableError:
            if newer.usable:
                log.info("link replaced", peer=newer.peer, reason="the older one does not answer")
                self._take_up(newer)
            await older.end()
        else:
            await newer.retire()

    def _take_up(self, link: Link) -> None:
        self._links[link.peer] = link
        self._on_up(link.peer)

    def _let_go(self, link: Link) -> None:
        peer = link.peer
        if self._links.get(peer) is link:
            del self._links[peer]
            self._directory.lost(peer)
            self.nudge(peer)
            self._on_lost(peer)

    def _end_strangers(self) -> None:
        """A node that the roster does not name any more is neither asked nor answered. With whom no connection is
        to be kept any more, it ends where this node has dialled: the other side may think otherwise."""
        names, chosen, me = set(self._trust.peer_names()), self.overlay.chosen(), self._trust.name
        self._retire(
            [
                link
                for peer, link in self._links.items()
                if peer not in names or (link.dialled_by == me and peer not in chosen)
            ]
        )

    def renew(self) -> None:
        """All anew: with another certificate, or other authorities."""
        self._retire(list(self._links.values()))

    def _retire(self, links: list[Link]) -> None:
        for link in links:
            self._spawn(link.retire())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """All connections end, those as well that others have dialled, and no more are taken. To be done before the
        door closes, which would wait for them."""
        self._closed = True
        await asyncio.gather(*(link.end() for link in self._held))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
