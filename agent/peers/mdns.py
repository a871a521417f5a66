"""mDNS: tell peers where this node listens, and note where they say they are (`_rollcall._tcp`).

Only names in the roster are resolved and dialled, and a bounded number of others remembered by name, so
that a flood of strangers costs little (fault 34). A removal is ignored: absence means nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import structlog
from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from agent.peers.directory import Directory, Found, Hint
from shared.clock import Clock
from shared.wire import is_node_name

log = structlog.get_logger()

SERVICE = "_rollcall._tcp.local."
RESOLVE_MS = 3000
MAX_RESOLVING = 64
MAX_STRANGERS = 1024
LOOK_AGAIN_S = 1.0


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
    ) -> None:
        self._directory = directory
        self._wanted = wanted
        self._on_found = on_found
        self._suffix = f"-{fleet[:8]}.{SERVICE}"
        self._name = name
        self._clock = clock
        self._strangers: set[str] = set()
        self._resolving: set[asyncio.Task[None]] = set()
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None

    async def start(self, *, port: int, interfaces: list[str], advertise: str | None) -> bool:
        """False when this host has no multicast; the fleet then lives on static peers."""
        try:
            if interfaces:
                zeroconf = AsyncZeroconf(interfaces=interfaces, ip_version=IPVersion.V4Only)
            else:
                zeroconf = AsyncZeroconf(ip_version=IPVersion.V4Only)
            self._zeroconf = zeroconf
            addresses = [advertise] if advertise else (interfaces or _own_addresses())
            await zeroconf.async_register_service(
                self._info(port, addresses), allow_name_change=True
            )
        except OSError as error:
            log.warning("mDNS is not available", reason=str(error))
            await self.stop()
            return False
        self._browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[self._heard])
        return True

    async def stop(self) -> None:
        for task in self._resolving:
            task.cancel()
        await asyncio.gather(*self._resolving, return_exceptions=True)
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._zeroconf is not None:
            await self._zeroconf.async_close()
        self._browser = self._zeroconf = None

    def _info(self, port: int, addresses: list[str]) -> AsyncServiceInfo:
        return AsyncServiceInfo(
            SERVICE,
            f"{self._name}{self._suffix}",
            addresses=[socket.inet_aton(address) for address in addresses],
            port=port,
            properties={"id": self._name},
            server=f"{self._name}{self._suffix.removesuffix(SERVICE)}local.",
        )

    def _heard(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        node = name.removesuffix(self._suffix)
        if node in (name, self._name) or not is_node_name(node):
            return
        if state_change is ServiceStateChange.Removed:
            return
        if node in self._wanted():
            self._resolve_soon(node)
        elif len(self._strangers) < MAX_STRANGERS:
            self._strangers.add(node)

    async def run(self) -> None:
        """A node may be heard before the roster that names it has arrived: look at strangers again."""
        while True:
            await self._clock.sleep(LOOK_AGAIN_S)
            for node in self._strangers.intersection(self._wanted()):
                self._strangers.discard(node)
                self._resolve_soon(node)

    def _resolve_soon(self, node: str) -> None:
        if len(self._resolving) < MAX_RESOLVING:
            task = asyncio.get_running_loop().create_task(self._resolve(node))
            self._resolving.add(task)
            task.add_done_callback(self._resolving.discard)

    async def _resolve(self, node: str) -> None:
        if self._zeroconf is None:
            return
        info = AsyncServiceInfo(SERVICE, f"{node}{self._suffix}")
        if not await info.async_request(self._zeroconf.zeroconf, RESOLVE_MS) or not info.port:
            self._strangers.add(node)
            return
        for address in info.parsed_addresses(IPVersion.V4Only)[:4]:
            self._directory.learn(node, Hint(address, info.port, Found.MDNS))
        self._on_found(node)


def _own_addresses() -> list[str]:
    """Addresses of this host's interfaces, loopback left out."""
    import psutil  # loaded by the agent anyway; named here because only this function needs it

    return [
        address.address
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.") and name
    ] or ["127.0.0.1"]
