"""The floor of `sync`: `barebeat IDENTITY AUTHORITY SIZE` takes POST /v1/sync over mutual TLS on a free port of
loopback, which it prints, reads each body and answers with SIZE constant bytes. aiohttp as its documentation has it;
nothing is parsed, checked or kept."""

from __future__ import annotations

import asyncio
import ssl
import sys

from aiohttp import web


async def serve(identity: str, authority: str, size: int) -> None:
    body = b"x" * size

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body, content_type="application/json")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(identity)
    context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    app = web.Application()
    app.router.add_post("/v1/sync", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        sys.stdout.write(f"{runner.addresses[0][1]}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
