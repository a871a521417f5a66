"""How a command reaches the agent of a home: through its socket, or by being the agent."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from agent.layout import Layout
from agent.starting import make_daemon
from shared.canonical import MAX_JSON_BYTES
from shared.errors import ConfigError, ConflictError, RollcallError, UnavailableError
from shared.terminal import run_async, say

START_S = 60.0
"""How long an agent may take from its start to its open doors: it puts right first what a crash has left."""


def ask_agent(
    home: Path,
    method: str,
    path: str,
    body: bytes | None = None,
    timeout_s: float = 10,
    max_answer: int = MAX_JSON_BYTES,
) -> bytes:
    """One request to the running agent's socket. Raises UnavailableError when there is none."""
    socket = check_home(home)
    return asyncio.run(_ask(socket, method, path, body, timeout_s, max_answer))


def check_home(home: Path) -> Path:
    """The running agent's socket. Raises UnavailableError when there is none."""
    socket = Layout(home).socket
    if not home.is_dir():
        raise ConfigError(f"{home} does not exist", remedy="name the agent's home with --home")
    if not os.access(home, os.X_OK):
        raise RollcallError(f"{home} may not be entered by this user", remedy="try with sudo")
    if not socket.exists():
        raise UnavailableError(
            f"no agent is running in {home}", remedy="start it with: rollcall-agent run"
        )
    return socket


def ask_or_be(
    home: Path,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    timeout_s: float,
    recover: bool = False,
) -> bytes:
    """The same request, for what must work while the agent is down: then this process is the agent for a
    moment, and answers itself. `recover` first ends what a crash has cut short."""
    from shared import logs

    try:
        return ask_agent(home, method, path, body, timeout_s)
    except UnavailableError:
        say("the agent is not running; doing it without")
        daemon = make_daemon(home)
    logs.configure(Layout(home).logs / "agent.log")

    async def be() -> bytes:
        async with daemon:
            await daemon.answer_alone(recover=recover)
            return await _ask(Layout(home).socket, method, path, body, timeout_s)

    try:
        return run_async(be())
    except ConflictError:
        say("an agent has started meanwhile; asking it")
        return _ask_when_up(home, method, path, body, timeout_s)


def _ask_when_up(home: Path, method: str, path: str, body: bytes | None, timeout_s: float) -> bytes:
    """Of an agent that has the home, and opens its doors in a moment."""
    ends = time.monotonic() + START_S
    while True:
        try:
            return ask_agent(home, method, path, body, timeout_s)
        except UnavailableError:
            if time.monotonic() >= ends:
                raise
            time.sleep(0.2)


async def _ask(
    socket: Path,
    method: str,
    path: str,
    body: bytes | None,
    timeout_s: float,
    max_answer: int = MAX_JSON_BYTES,
) -> bytes:
    from shared.http import call, session

    url = f"http://agent{path}"
    async with session(unix_socket=socket) as client:
        return await call(
            client, method, url, data=body, timeout_s=timeout_s, max_answer=max_answer
        )
