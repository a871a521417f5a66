"""A running gateway, asked over loopback: HTTP where that answers it, else its WebSocket, else its CLI."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import aiohttp

from agent.openclaw.cli import OpenClaw
from agent.openclaw.rpc import Answer, RefusedError, Rpc
from shared.canonical import parse_json
from shared.errors import BadInputError, CommandError

HTTP_TIMEOUT_S = 3.0
CALL_TIMEOUT_S = 45.0


class Gate(StrEnum):
    READY = "ready"
    NOT_READY = "not-ready"
    DOWN = "down"
    STRANGE = "strange"
    """Something answers on the port, but not as OpenClaw does: HTML, another server, a timeout."""


@dataclass(frozen=True)
class GateReading:
    gate: Gate
    reason: str = ""
    loop_p99_ms: float | None = None
    raw: bytes = b""


@dataclass(frozen=True)
class QueueReading:
    """`gateway.restart.preflight`: what a restart now would interrupt.

    `depth` is how many operations are queued or in hand. `active` adds turns, tasks and requests to them: one
    turn counts about four times there. `raw` is without `blockers`, which quote what people have asked for.
    """

    safe: bool
    depth: int
    active: int
    blockers: tuple[str, ...]
    raw: bytes


class Gateway:
    """Reads only. One instance per node; `openclaw` names the tree whose CLI talks to it, and the state that
    has its token."""

    def __init__(
        self,
        client: aiohttp.ClientSession,
        port: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.client, self.port = client, port
        self._base = f"http://127.0.0.1:{port}"
        self._rpc = Rpc(client, port, monotonic)

    @property
    def is_cheap(self) -> bool:
        """Whether calls cost milliseconds. They are seconds of CPU where the gateway lets only its CLI in."""
        return not self._rpc.refused

    def at(self, port: int) -> Gateway:
        """Another gateway of this host."""
        return Gateway(self.client, port)

    async def readyz(self) -> GateReading:
        """Unknown paths answer 200 with HTML, so only a JSON object of the known form counts."""
        try:
            status, kind, raw = await self._get("/readyz")
        except aiohttp.ClientConnectorError:
            return GateReading(Gate.DOWN, "nothing listens on the gateway's port")
        except TimeoutError:
            hangs = f"the gateway does not answer in {HTTP_TIMEOUT_S:.0f} s: it hangs or is stopped"
            return GateReading(Gate.STRANGE, hangs)
        except (aiohttp.ClientError, OSError) as error:
            return GateReading(Gate.STRANGE, f"/readyz breaks off: {type(error).__name__}")
        value = _object(kind, raw)
        if value is None or not isinstance(value.get("ready"), bool):
            other = f"what answers on the gateway's port is no OpenClaw: {status} {kind}"
            return GateReading(Gate.STRANGE, other, raw=raw)
        loop = value.get("eventLoop") or {}
        p99 = loop.get("delayP99Ms") if isinstance(loop, dict) else None
        p99 = float(p99) if isinstance(p99, int | float) else None
        if value["ready"] and status == 200:
            return GateReading(Gate.READY, "", p99, raw)
        named = value.get("failing")
        failing = ", ".join(map(str, named)) if isinstance(named, list) else ""
        return GateReading(Gate.NOT_READY, failing or f"status {status}", p99, raw)

    async def startup_version(self) -> str | None:
        """`/startupz` names the running version from 8.x on; before that it is HTML."""
        try:
            _, kind, raw = await self._get("/startupz")
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
        value = _object(kind, raw) or {}
        version = value.get("version")
        return version if isinstance(version, str) else None

    async def running_version(self, openclaw: OpenClaw) -> str | None:
        """The code that serves now, not what is on disk. None while it cannot be told."""
        version = await self.startup_version()
        if version is not None:
            return version
        try:
            return await self._rpc.version(openclaw.state)
        except RefusedError:
            pass
        except CommandError:
            return None
        try:
            value = (await self._through_cli(openclaw, "status", {})).value
        except CommandError:
            return None
        version = value.get("runtimeVersion")
        return version if isinstance(version, str) else None

    async def queue(self, openclaw: OpenClaw, *, at_once: bool = False) -> QueueReading:
        """`at_once` as in Rpc. Raises CommandError when the gateway does not answer or answers in another form."""
        answer = await self.call(openclaw, "gateway.restart.preflight", at_once=at_once)
        value = answer.value
        safe, counts = value.get("safe"), value.get("counts")
        found = counts if isinstance(counts, dict) else {}
        depth, active = found.get("queueSize"), found.get("totalActive")
        if type(safe) is not bool or type(depth) is not int or type(active) is not int:
            raise CommandError("the gateway's queue has an unknown form")
        raw = json.dumps({"safe": safe, "counts": counts}, sort_keys=True).encode()
        return QueueReading(safe, depth, active, _messages(value), raw)

    async def health(self, openclaw: OpenClaw) -> tuple[dict[str, Any], bytes]:
        """Plugins, channels and delivery queues. Raises CommandError like `queue`."""
        answer = await self.call(openclaw, "health")
        if answer.value.get("ok") is not True:
            raise CommandError("the gateway's health has an unknown form")
        return answer.value, answer.raw

    async def call(
        self,
        openclaw: OpenClaw,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        at_once: bool = False,
    ) -> Answer:
        """One request that changes nothing. Raises CommandError when it does not come to an answer."""
        try:
            return await self._rpc.call(openclaw.state, method, params, at_once=at_once)
        except RefusedError:
            return await self._through_cli(openclaw, method, params or {})

    async def _through_cli(self, openclaw: OpenClaw, method: str, params: dict[str, Any]) -> Answer:
        words = ["gateway", "call", method, "--params", json.dumps(params), "--json"]
        output, value = await openclaw.run_json(*words, timeout_s=CALL_TIMEOUT_S)
        if output.code != 0:
            about = value.get("error")
            said = about.get("message") if isinstance(about, dict) else None
            raise CommandError(f"the gateway refuses {method}: {said or output.last_line()}")
        return Answer(value, output.stdout)

    async def _get(self, path: str) -> tuple[int, str, bytes]:
        timeout = aiohttp.ClientTimeout(total=HTTP_TIMEOUT_S)
        async with self.client.get(
            self._base + path, timeout=timeout, allow_redirects=False
        ) as response:
            raw = await response.content.read(1 << 16)
            return response.status, response.content_type, raw


@dataclass(frozen=True)
class Suspension:
    id: str | None
    blockers: tuple[str, ...]


async def suspend(openclaw: OpenClaw, request: str, *, wait_s: float) -> Suspension:
    """From 8.x on: refuse new turns once the running ones are done. `id` is None while it is busy,
    and when this OpenClaw has no `suspend`. The lease is 120 s; the same request renews it."""
    _, value = await openclaw.run_json(
        "gateway",
        "suspend",
        "--json",
        "--request-id",
        request,
        "--wait",
        str(int(wait_s)),
        timeout_s=wait_s + CALL_TIMEOUT_S,
    )
    if value.get("status") == "ready":
        return Suspension(str(value.get("suspensionId")), ())
    return Suspension(None, _messages(value) or ("the gateway did not say why",))


async def resume(openclaw: OpenClaw, suspension: str) -> None:
    """Open it again; nothing where it was not suspended."""
    await openclaw.run_json("gateway", "resume", suspension, "--json", timeout_s=CALL_TIMEOUT_S)


def _messages(value: dict[str, Any]) -> tuple[str, ...]:
    """What is in the way, in the gateway's words."""
    listed = value.get("blockers")
    return tuple(
        str(each.get("message", each.get("kind")))
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict)
    )


def _object(kind: str, raw: bytes) -> dict[str, Any] | None:
    if kind != "application/json":
        return None
    try:
        value = parse_json(raw)
    except BadInputError:
        return None
    return value if isinstance(value, dict) else None
