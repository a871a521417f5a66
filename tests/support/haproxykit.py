"""The real HAProxy on loopback, and a client that counts every request that did not go well."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from scripts.minifleet.fleet import Node
from scripts.minifleet.ports import free_port

INTER_S = 0.5
LATE_S = 3.0
"""What a busy host adds to one interval of HAProxy's check; a quiet one adds 0.1."""
AGENT, PLAIN = "by-agent", "by-readyz"
_HEAD = """\
global
  nbthread 1
  stats socket {socket} level admin
defaults
  mode http
  timeout connect 2s
  timeout client 10s
  timeout server 10s
  retries 0
frontend front-{agent}
  bind 127.0.0.1:{agent_port}
  http-response set-header x-node %s
  default_backend {agent}
frontend front-{plain}
  bind 127.0.0.1:{plain_port}
  http-response set-header x-node %s
  default_backend {plain}
"""


class HAProxy:
    """One process with two backends over the same nodes: `by-agent` asks with `agent-check`, `by-readyz` with
    `option httpchk`. A failed request stays failed: no retries, no redispatch, no check of the gateway itself."""

    def __init__(self, folder: Path, name: str, nodes: list[Node]) -> None:
        self._socket = folder / f"{name}.sock"
        self._config, self._log = folder / f"{name}.cfg", folder / f"{name}.out"
        self._ports = {AGENT: free_port(), PLAIN: free_port()}
        text = _HEAD.format(
            socket=self._socket,
            agent=AGENT,
            plain=PLAIN,
            agent_port=self._ports[AGENT],
            plain_port=self._ports[PLAIN],
        )
        lines = [f"backend {AGENT}", "  balance roundrobin"]
        for node in nodes:
            lines.append(
                f"  server {node.name} 127.0.0.1:{node.gateway_port} weight 100"
                f" agent-check agent-port {node.agent_check_port} agent-inter 500ms"
            )
        lines += [f"backend {PLAIN}", "  balance roundrobin", "  option httpchk GET /readyz"]
        for node in nodes:
            lines.append(
                f"  server {node.name} 127.0.0.1:{node.gateway_port} weight 100"
                f" check port {node.api_port} inter 500ms fall 3 rise 1"
            )
        self._config.write_text(text + "\n".join(lines) + "\n")
        self._process: asyncio.subprocess.Process | None = None

    def url(self, backend: str) -> str:
        return f"http://127.0.0.1:{self._ports[backend]}/work"

    async def start(self, env: dict[str, str]) -> None:
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                "haproxy", "-db", "-f", str(self._config), stdout=output, stderr=output, env=env
            )
        ends = time.monotonic() + 10
        while not self._socket.exists():
            if self._process.returncode is not None or time.monotonic() > ends:
                raise AssertionError(self._log.read_text())
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()

    async def say(self, command: str) -> str:
        """One command of the runtime socket."""
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        writer.write(f"{command}\n".encode())
        await writer.drain()
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        return answer

    async def stat(self, node: str, backend: str = AGENT) -> dict[str, str]:
        text = (await self.say("show stat")).removeprefix("# ")
        rows = csv.DictReader(io.StringIO(text))
        return next(row for row in rows if (row["pxname"], row["svname"]) == (backend, node))

    async def until(
        self, node: str, backend: str = AGENT, *, timeout_s: float = 120, **wanted: str
    ) -> float:
        """Seconds until a server's columns begin with these values."""
        began = time.monotonic()
        while True:
            stat = await self.stat(node, backend)
            if all(stat[key].startswith(value) for key, value in wanted.items()):
                return time.monotonic() - began
            if time.monotonic() - began > timeout_s:
                shown = {key: stat[key] for key in ("status", "weight", "last_agt", "last_chk")}
                raise AssertionError(f"{node} in {backend} is {shown}, not {wanted}")
            await asyncio.sleep(0.02)


@dataclass
class Load:
    """`POST`s, which aiohttp never repeats by itself, over two kept connections and two that are new for each
    request. `served` counts by node, `failed` has every other outcome."""

    url: str
    pause_s: float = 0.04
    served: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._work(kept=number < 2)) for number in range(4)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self, *, kept: bool) -> None:
        connector = aiohttp.TCPConnector(limit=1, force_close=not kept)
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
            while True:
                await self._ask(client)
                await asyncio.sleep(self.pause_s)

    async def _ask(self, client: aiohttp.ClientSession) -> None:
        at = time.monotonic()
        try:
            async with client.post(self.url, data=b"work") as answer:
                await answer.read()
                node = answer.headers.get("x-node", "nobody")
                if answer.status == 200:
                    self.served[node] += 1
                else:
                    self.failed.append(f"{at:.3f}: {answer.status} by {node}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failed.append(f"{at:.3f}: {type(error).__name__} {error}")
