"""The reading side of the stream of reds: over the agent's socket, across its restarts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp

from agent.feed import HEARTBEAT_S, CrowdedError, RedEvent
from agent.layout import Layout
from shared.backoff import Backoff
from shared.clock import Clock
from shared.errors import BadInputError, ConfigError, RollcallError, UnavailableError
from shared.http import refusal_of, session

FIRST_RETRY_S, LONGEST_RETRY_S = 0.2, 5.0
MAX_LINE = 256 << 10


async def follow(
    home: Path,
    after: int | None,
    show: Callable[[RedEvent], None],
    say: Callable[[str], None],
    clock: Clock,
) -> None:
    """For ever: `show` is given each event once. `say` is told once when the agent is away.

    Raises ConfigError for a home that does not exist, and whatever `show` raises.
    """
    if not home.is_dir():
        raise ConfigError(f"{home} does not exist", remedy="name the agent's home with --home")
    backoff, away = Backoff(FIRST_RETRY_S, LONGEST_RETRY_S), False
    while True:
        try:
            async for number, event in read_stream(Layout(home).socket, after):
                if away:
                    say("the agent is back")
                away = False
                backoff.succeeded()
                after = number
                if event is not None:
                    show(event)
        except (UnavailableError, CrowdedError) as error:
            if not away:
                say(f"{error.message}; trying again")
            away = True
        await clock.sleep(backoff.failed())


async def read_stream(
    socket: Path, after: int | None
) -> AsyncIterator[tuple[int, RedEvent | None]]:
    """Ids, each with its event where it has one, until the agent ends the stream.

    Raises UnavailableError while no agent is there, CrowdedError where others have taken all places.
    """
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=3 * HEARTBEAT_S)
    url = "http://agent/v1/reds/stream"
    try:
        async with (
            session(unix_socket=socket) as client,
            client.get(
                url, headers=headers, timeout=timeout, read_bufsize=MAX_LINE, allow_redirects=False
            ) as answer,
        ):
            if answer.status != 200:
                raise _refusal(answer.status, await answer.content.read(MAX_LINE))
            async for found in _parse(answer.content):
                yield found
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise UnavailableError(
            "the agent is not there", remedy="start it with: rollcall-agent run"
        ) from error


def _refusal(status: int, body: bytes) -> RollcallError:
    refused = refusal_of(status, body)
    return CrowdedError(refused.message) if refused.refused_code == CrowdedError.code else refused


async def _parse(lines: aiohttp.StreamReader) -> AsyncIterator[tuple[int, RedEvent | None]]:
    """Blocks that end with an empty line. Raises BadInputError for what no agent of ours sends."""
    number, data = None, ""
    async for raw in lines:
        name, _, value = raw.decode("utf-8", "replace").rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if name == "id" and value.isdigit():
            number = int(value)
        elif name == "data":
            data += value
        elif name == "" and value == "" and number is not None:
            yield number, _event(data)
            number, data = None, ""


def _event(data: str) -> RedEvent | None:
    if not data:
        return None
    try:
        return RedEvent.from_value(json.loads(data))
    except ValueError as error:
        raise BadInputError("the agent's stream of reds is damaged") from error
