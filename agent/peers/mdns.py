"""mDNS: tell peers where this node listens, and note where they say they are (`_rollcall._tcp`).

Only names in the roster are resolved and dialled, and a bounded number of others remembered by name, so
that a flood of strangers costs little (fault 34). A removal is ignored: absence means nothing. After a change of
this host's network everything is opened anew: a membership of the group is lost with the interface that it was on,
also when that comes back under the same name and address.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from zeroconf import (
    DNSOutgoing,
    DNSQuestion,
    DNSService,
    IPVersion,
    ServiceStateChange,
    Zeroconf,
)
from zeroconf import Error as ZeroconfError
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from agent.peers.directory import Directory, Found, Hint
from agent.peers.interfaces import Interface, Reader, choose, read_interfaces, told_addresses
from shared.clock import Clock
from shared.wire import NODE_NAME

log = structlog.get_logger()

SERVICE = "_rollcall._tcp.local."
QUERY, TYPE_SRV, CLASS_IN = 0x0000, 33, 1
"""RFC 1035, 4.1.1 and 3.2; RFC 2782."""
RESOLVE_MS = 3000
MAX_RESOLVING = 64
MAX_STRANGERS = 1024
MAX_TAKEN = 8
"""Addresses of one answer."""
LOOK_AGAIN_S = 1.0
NETWORK_EVERY_S = 2.0
ASK_AGAIN_S = 10.0
MAX_ASKED = 32
ALONE_S = 30.0
"""Without a single peer for so long everything is opened anew, as after a change of the network that could not be
seen; twice as long each further time."""
LONGEST_ALONE_S = 600.0
CONTESTED_S = 600.0
"""How long a foreign claim on this node's name is shown after it was heard last."""


@dataclass(frozen=True)
class Announced:
    """What is told: `interfaces` by name or address as an operator wrote them, all that carry multicast when there
    are none; `host` is what the door for peers listens on."""

    port: int
    interfaces: tuple[str, ...] = ()
    advertise: str | None = None
    host: str = ""


class Discovery:
    """`wanted` says which names are worth an address; `on_found` is called when one was learnt."""

    def __init__(
        self,
        directory: Directory,
        wanted: Callable[[], list[str]],
        on_found: Callable[[str], None],
        clock: Clock,
        *,
        fleet: str,
        name: str,
        read: Reader = read_interfaces,
    ) -> None:
        self._directory, self._wanted, self._on_found = directory, wanted, on_found
        self._clock, self._read, self._name = clock, read, name
        self._label = f"-{fleet[:8]}"
        self._instance = re.compile(
            rf"({NODE_NAME}){self._label}(?:-[1-9][0-9]?)?\.{re.escape(SERVICE)}"
        )
        self._strangers: set[str] = set()
        """Instances that nobody here has asked for yet."""
        self._resolving: set[asyncio.Task[None]] = set()
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._info: AsyncServiceInfo | None = None
        self._announcing: Awaitable[object] | None = None
        self._told = Announced(0)
        self._chosen: list[Interface] = []
        self._contested = -CONTESTED_S
        self._asked = 0
        self.trouble = ""
        """Why there is no mDNS here now; empty while there is."""

    @property
    def interfaces(self) -> list[str]:
        """Names of those in use now."""
        return [] if self._zeroconf is None else [each.name for each in self._chosen]

    @property
    def alerts(self) -> list[str]:
        """Somebody else who claims this node's name leads peers astray for as long as it takes them to try the
        next address; it cannot pass for this node."""
        ours = f"{self._name}{self._label}.{SERVICE}"
        renamed = self._info is not None and self._info.name != ours
        recent = self._clock.monotonic() - self._contested < CONTESTED_S
        if not renamed and not recent:
            return []
        told = f"; this node is announced as {self._short(self._info)}" if renamed else ""
        return [
            f"mDNS: another host on this network claims the name {self._name}{self._label}{told}"
        ]

    def _short(self, info: AsyncServiceInfo | None) -> str:
        return "" if info is None else info.name.removesuffix(f".{SERVICE}")

    async def start(
        self, *, port: int, interfaces: list[str], advertise: str | None, host: str = ""
    ) -> bool:
        """False when this host has no multicast now; the fleet then lives on the other hints, and `run` tries
        again."""
        logging.getLogger("zeroconf").setLevel(logging.ERROR)  # a trace for each change of network
        self._told = Announced(port, tuple(interfaces), advertise, host)
        await self._open()
        return self._zeroconf is not None

    async def stop(self) -> None:
        for task in self._resolving:
            task.cancel()
        await asyncio.gather(*self._resolving, return_exceptions=True)
        await self._close()

    async def run(self) -> None:
        """Watch the network and look again at who was not known. A node may be heard before the roster that
        names it has arrived."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_at_strangers())
            group.create_task(self._watch_network())
            group.create_task(self._ask_again())

    async def _look_at_strangers(self) -> None:
        while True:
            await self._clock.sleep(LOOK_AGAIN_S)
            wanted = set(self._wanted())
            for instance in [each for each in self._strangers if self._node_of(each) in wanted]:
                self._strangers.discard(instance)
                self._resolve_soon(instance)

    async def _watch_network(self) -> None:
        alone_s, patience = 0.0, ALONE_S
        while True:
            await self._clock.sleep(NETWORK_EVERY_S)
            alone_s = alone_s + NETWORK_EVERY_S if self._is_alone() else 0.0
            changed = choose(self._read(), self._told.interfaces) != self._chosen
            if alone_s == 0:
                patience = ALONE_S
            if changed or alone_s >= patience:
                if alone_s >= patience:
                    alone_s, patience = 0.0, min(2 * patience, LONGEST_ALONE_S)
                log.info("mDNS is opened anew", changed=changed)
                await self._close()
                await self._open()

    def _is_alone(self) -> bool:
        wanted = self._wanted()
        return bool(wanted) and not any(self._directory.how(name) for name in wanted)

    async def _ask_again(self) -> None:
        """For peers that are not reached: an announcement may have been lost, and an answer in the cache may be
        of yesterday's network."""
        while True:
            await self._clock.sleep(ASK_AGAIN_S)
            missing = sorted(name for name in self._wanted() if not self._directory.how(name))
            if self._zeroconf is None or not missing:
                continue
            start = self._asked % len(missing)
            self._asked = start + MAX_ASKED
            out = DNSOutgoing(QUERY)
            for name in (missing[start:] + missing[:start])[:MAX_ASKED]:
                out.add_question(DNSQuestion(f"{name}{self._label}.{SERVICE}", TYPE_SRV, CLASS_IN))
            self._zeroconf.zeroconf.async_send(out)

    async def _open(self) -> None:
        self._chosen = choose(self._read(), self._told.interfaces)
        self.trouble = ""
        if not self._chosen:
            named = ", ".join(self._told.interfaces)
            self.trouble = f"no interface {named} is up" if named else "no interface is up"
            return
        try:
            zeroconf = self._zeroconf = _open_sockets(self._chosen)
            self._browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[self._heard])
            self._info = self._own_info()
            self._announcing = await zeroconf.async_register_service(
                self._info, allow_name_change=True
            )
        except (OSError, RuntimeError, ZeroconfError) as error:
            self.trouble = str(error) or type(error).__name__
            log.warning("mDNS is not available", reason=self.trouble)
            await self._close()

    async def _close(self) -> None:
        if self._announcing is not None:
            with contextlib.suppress(Exception):
                await self._announcing
        with contextlib.suppress(OSError, RuntimeError, ZeroconfError):
            if self._browser is not None:
                await self._browser.async_cancel()
            if self._zeroconf is not None:
                await self._zeroconf.async_close()
        self._browser = self._zeroconf = self._announcing = self._info = None

    def _own_info(self) -> AsyncServiceInfo:
        told = self._told
        addresses = told_addresses(self._chosen, host=told.host, advertise=told.advertise)
        return AsyncServiceInfo(
            SERVICE,
            f"{self._name}{self._label}.{SERVICE}",
            parsed_addresses=[each.partition("%")[0] for each in addresses],
            port=told.port,
            properties={"id": self._name},
            server=f"{self._name}{self._label}.local.",
        )

    def _node_of(self, instance: str) -> str | None:
        """A number behind it is what a node is called whose name is claimed by another host."""
        found = self._instance.fullmatch(instance)
        return None if found is None else found[1]

    def _heard(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        node = self._node_of(name)
        if node is None or state_change is ServiceStateChange.Removed:
            return
        if node == self._name:
            self._look_at_claim(zeroconf, name)
        elif node in self._wanted():
            self._resolve_soon(name)
        elif len(self._strangers) < MAX_STRANGERS:
            self._strangers.add(name)

    def _look_at_claim(self, zeroconf: Zeroconf, instance: str) -> None:
        """On our own name: our announcement comes back to us, too."""
        if self._info is None:
            return
        ours = (self._info.server, self._info.port)
        for record in zeroconf.cache.get_all_by_details(instance, TYPE_SRV, CLASS_IN):
            if isinstance(record, DNSService) and (record.server, record.port) != ours:
                self._contested = self._clock.monotonic()

    def _resolve_soon(self, instance: str) -> None:
        if len(self._resolving) < MAX_RESOLVING:
            task = asyncio.get_running_loop().create_task(self._resolve(instance))
            self._resolving.add(task)
            task.add_done_callback(self._resolving.discard)

    async def _resolve(self, instance: str) -> None:
        node = self._node_of(instance)
        if self._zeroconf is None or node is None:
            return
        info = AsyncServiceInfo(SERVICE, instance)
        if not await info.async_request(self._zeroconf.zeroconf, RESOLVE_MS) or not info.port:
            if len(self._strangers) < MAX_STRANGERS:
                self._strangers.add(instance)
            return
        texts = info.parsed_scoped_addresses(IPVersion.All)
        for host in hosts_of(texts, self._chosen)[:MAX_TAKEN][::-1]:
            self._directory.learn(node, Hint(host, info.port, Found.MDNS))
        self._on_found(node)


def hosts_of(texts: list[str], chosen: list[Interface]) -> list[str]:
    """What can be dialled of the addresses in an answer. One of the link needs the name of the interface on
    which it was heard; where that is not known, of the first that are in use."""
    names = {str(each.index): each.name for each in chosen}
    found = []
    for text in texts:
        plain, _, scope = text.partition("%")
        address = ipaddress.ip_address(plain)
        if address.is_unspecified or address.is_multicast:
            continue
        if address.version == 6 and address.is_link_local:
            scopes = [names.get(scope, scope)] if scope else [each.name for each in chosen[:2]]
            found += [f"{plain}%{each}" for each in scopes]
        else:
            found.append(plain)
    return found


def _open_sockets(chosen: list[Interface]) -> AsyncZeroconf:
    """IPv4 alone where the chosen interfaces or this host have no IPv6. Raises OSError."""
    four = [a for each in chosen for a in each.addresses if ":" not in a]
    six = [each.index for each in chosen if any(":" in a and a != "::1" for a in each.addresses)]
    if six:
        with contextlib.suppress(OSError, RuntimeError):
            version = IPVersion.All if four else IPVersion.V6Only
            return AsyncZeroconf(interfaces=[*four, *six], ip_version=version)
    return AsyncZeroconf(interfaces=list(four), ip_version=IPVersion.V4Only)
