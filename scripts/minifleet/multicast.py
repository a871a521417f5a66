"""Whether mDNS works on loopback here: one name announced and heard by another, for real."""

from __future__ import annotations

import asyncio
import secrets
import socket

from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

SERVICE = "_rollcall-try._tcp.local."
PATIENCE_MS = 3000


async def multicast_works(address: str = "127.0.0.1") -> bool:
    name = f"{secrets.token_hex(4)}.{SERVICE}"
    try:
        speaker = AsyncZeroconf(interfaces=[address], ip_version=IPVersion.V4Only)
        hearer = AsyncZeroconf(interfaces=[address], ip_version=IPVersion.V4Only)
    except OSError:
        return False
    try:
        info = AsyncServiceInfo(SERVICE, name, addresses=[socket.inet_aton(address)], port=9)
        await (await speaker.async_register_service(info))
        return bool(
            await AsyncServiceInfo(SERVICE, name).async_request(hearer.zeroconf, PATIENCE_MS)
        )
    except OSError:
        return False
    finally:
        await asyncio.gather(speaker.async_close(), hearer.async_close())
