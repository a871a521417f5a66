"""What the fleet page costs, beside its budgets.

- `server_ms_at_N`: milliseconds of CPU that the coordinator's process takes to answer one request for the fleet page of
  N nodes: who asks, what is known of every node, what is drawn, TLS. The first request is not counted.
- `refresh_ms_at_N`: the same for the part of it that is drawn anew while somebody looks.
- `first_load_kb_at_N`: bytes of the bodies of the page and of everything that it names, as a browser without a cache
  fetches them. Nothing is compressed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http.cookies import SimpleCookie

import aiohttp

from coordinator.cli.client import load_client_config
from coordinator.home import HomePaths
from scripts.benchmarks.crowding import make_home
from scripts.benchmarks.frame import Options, Sample
from scripts.benchmarks.sync import Child, until_listening
from scripts.minifleet.workspace import Workspace
from shared.errors import RollcallError
from shared.ports import free_port
from shared.roster import COORDINATOR_HOST
from shared.terminal import say
from shared.tls import client_context

SIZES = (3, 100, 1000)
REQUESTS = 20
SERVER_BUDGET_MS = 100.0
LOAD_BUDGET_KB = 150.0
_NAMED = re.compile(r'(?:src|href)="(/static/[^"]+)"')


@dataclass(frozen=True)
class Look:
    """Somebody who is signed in at a coordinator of its own."""

    url: str
    client: aiohttp.ClientSession
    cookie: str
    coordinator: Child

    async def get(self, path: str, *, live: bool = False) -> bytes:
        headers = {"Cookie": self.cookie} | ({"HX-Request": "true"} if live else {})
        async with self.client.get(
            self.url + path, headers=headers, server_hostname=COORDINATOR_HOST
        ) as answer:
            body = await answer.read()
            if answer.status != 200:
                raise RollcallError(f"{path} was answered with {answer.status}")
            return body


async def run(options: Options) -> list[Sample]:
    samples: list[Sample] = []
    for number in range(1, options.rounds + 1):
        say(f"round {number} of {options.rounds}")
        for count in SIZES:
            samples += await measure(count, REQUESTS)
    return samples


async def measure(count: int, requests: int) -> list[Sample]:
    async with looking(count) as look:
        page = await look.get("/")
        sizes = {"/": len(page)}
        for path in sorted(set(_NAMED.findall(page.decode()))):
            sizes[path.rpartition("/")[2]] = len(await look.get(path))
        whole = await _timed(look, requests, live=False)
        part = await _timed(look, requests, live=True)
    kb = sum(sizes.values()) / 1000
    say(f"  {count} nodes: {whole[0]:.1f} ms, {part[0]:.1f} ms anew, {kb:.1f} kB {sizes}")
    return [
        Sample(f"server_ms_at_{count}", whole[0], SERVER_BUDGET_MS, "ms", {"wall_ms": whole[1]}),
        Sample(f"refresh_ms_at_{count}", part[0], SERVER_BUDGET_MS, "ms", {"wall_ms": part[1]}),
        Sample(f"first_load_kb_at_{count}", kb, LOAD_BUDGET_KB, "kB", {"bytes": sizes}),
    ]


async def _timed(look: Look, requests: int, *, live: bool) -> tuple[float, float]:
    """CPU of the coordinator and wall time of one request, in ms."""
    await look.get("/", live=live)
    before, began = look.coordinator.cpu_s(), time.monotonic()
    for _ in range(requests):
        await look.get("/", live=live)
    seconds = time.monotonic() - began
    spent = look.coordinator.cpu_s() - before
    return 1000 * spent / requests, round(1000 * seconds / requests, 1)


@contextlib.asynccontextmanager
async def looking(count: int) -> AsyncIterator[Look]:
    workspace = Workspace()
    try:
        paths, port = HomePaths(workspace.root / "coordinator"), free_port()
        await make_home(paths, count)
        url = f"https://127.0.0.1:{port}"
        argv = ["-m", "coordinator", "coordinator", "serve", "--home", str(paths.root)]
        argv += ["--listen", f"127.0.0.1:{port}"]
        async with Child.start(argv, workspace) as coordinator:
            await until_listening(port)
            config = load_client_config(paths.client)
            connector = aiohttp.TCPConnector(ssl=client_context(config.ca_file), limit=1)
            async with aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            ) as client:
                cookie = await _sign_in(client, url, config.token_file.read_text().strip())
                yield Look(url, client, cookie, coordinator)
    finally:
        await asyncio.to_thread(workspace.remove)


async def _sign_in(client: aiohttp.ClientSession, url: str, token: str) -> str:
    async with client.post(
        f"{url}/sign-in",
        data={"token": token},
        server_hostname=COORDINATOR_HOST,
        allow_redirects=False,
    ) as answer:
        given = SimpleCookie(answer.headers.get("Set-Cookie", ""))
        if answer.status != 303 or not given:
            raise RollcallError(f"signing in was answered with {answer.status}")
        return "; ".join(f"{name}={each.value}" for name, each in given.items())
