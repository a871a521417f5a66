"""How a command reaches the agent of a home: through its socket."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from agent.layout import Layout
from shared.errors import ConfigError, RollcallError, UnavailableError


def ask_agent(
    home: Path, method: str, path: str, body: bytes | None = None, timeout_s: float = 10
) -> bytes:
    """One request to the running agent's socket. Raises UnavailableError when there is none."""
    socket = Layout(home).socket
    if not home.is_dir():
        raise ConfigError(f"{home} does not exist", remedy="name the agent's home with --home")
    if not os.access(home, os.X_OK):
        raise RollcallError(f"{home} may not be entered by this user", remedy="try with sudo")

    async def ask() -> bytes:
        from shared.http import call, session

        async with session(unix_socket=socket) as client:
            return await call(client, method, f"http://agent{path}", data=body, timeout_s=timeout_s)

    if not socket.exists():
        raise UnavailableError(
            f"no agent is running in {home}", remedy="start it with: rollcall-agent run"
        )
    return asyncio.run(ask())
