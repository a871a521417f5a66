"""The least that an agent of ours can be: what it cannot do without is imported, and one route is served.

Run as a program: `python floor.py PORT`. Imports nothing of Rollcall.
"""

from __future__ import annotations

import asyncio
import ssl
import sys

import cryptography.hazmat.primitives.asymmetric.ed25519
import cryptography.x509
import psutil
import zeroconf.asyncio
from aiohttp import ClientSession, web
from pydantic import BaseModel

USED = (cryptography.x509, psutil, zeroconf.asyncio, ClientSession, ssl)


class Answer(BaseModel):
    ready: bool = True


async def serve(port: int) -> None:
    async def ready(_: web.Request) -> web.Response:
        return web.Response(text=Answer().model_dump_json(), content_type="application/json")

    app = web.Application()
    app.router.add_get("/readyz", ready)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
