"""A model provider on loopback that speaks OpenAI's chat completions, so that agent turns need no network; and who
takes such turns."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import web

from shared.errors import CommandError

ANSWER = "noted"


def provider(port: int) -> dict[str, Any]:
    """The part of openclaw.json that makes it the only model."""
    model = {
        "id": "stub",
        "name": "Stub",
        "reasoning": False,
        "input": ["text"],
        "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
        "contextWindow": 128000,
        "maxTokens": 4096,
    }
    return {
        "models": {
            "providers": {
                "stub": {
                    "baseUrl": f"http://127.0.0.1:{port}/v1",
                    "apiKey": "none",
                    "api": "openai-completions",
                    "models": [model],
                }
            }
        },
        "agents": {"defaults": {"model": {"primary": "stub/stub"}, "heartbeat": {"every": "0m"}}},
    }


WITH_TURNS: dict[str, Any] = {
    "gateway": {"http": {"endpoints": {"chatCompletions": {"enabled": True}}}}
}
"""The part of openclaw.json that lets `take_turns` in."""
USERS = 20
TURN_EVERY_S = 3.0
TURN_TIMEOUT_S = 60.0


async def take_turns(port: int, token: str) -> AsyncIterator[int]:
    """One agent turn of this gateway after another, three seconds between them, by twenty users, for ever; yields
    after each how many there were. Raises CommandError for one that is not answered well."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    timeout = aiohttp.ClientTimeout(TURN_TIMEOUT_S)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as client:
        for turn in itertools.count():
            message = {"role": "user", "content": "note this " + "x" * 2000}
            body = {"model": "openclaw", "user": f"u{turn % USERS}", "messages": [message]}
            async with client.post(url, json=body, timeout=timeout) as answer:
                if answer.status != 200:
                    said = (await answer.text())[:300]
                    raise CommandError(f"a turn was answered {answer.status}: {said}")
            yield turn + 1
            await asyncio.sleep(TURN_EVERY_S)


class ModelStub:
    """`requests` are the bodies that it was sent, in order; each is answered once `free` is set."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.port = 0
        self.free = asyncio.Event()
        self.free.set()

    async def __aenter__(self) -> ModelStub:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        await self.free.wait()
        about = {"id": "stub", "created": int(time.time()), "model": "stub"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        if not body.get("stream"):
            message = {"role": "assistant", "content": ANSWER}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            whole = {**about, "object": "chat.completion", "choices": [choice], "usage": usage}
            return web.json_response(whole)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        parts: list[tuple[dict[str, Any], str | None]] = [
            ({"role": "assistant", "content": ANSWER}, None),
            ({}, "stop"),
        ]
        for delta, reason in parts:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            chunk = {**about, "object": "chat.completion.chunk", "choices": [choice]}
            if reason:
                chunk["usage"] = usage
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response
