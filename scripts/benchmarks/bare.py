"""The floor of `readiness`: `bare SIZE` serves SIZE constant bytes at `/` on a free port of loopback, which it prints.
aiohttp as its documentation has it, nothing else imported."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web


async def serve(size: int) -> None:
    body = b"x" * size

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        sys.stdout.write(f"{runner.addresses[0][1]}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
