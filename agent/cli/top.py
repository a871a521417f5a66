"""`rollcall-agent top`: this node, live."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from agent.cli.parts import check_home
from agent.cli.watched import Watched, plain, screen
from shared.errors import RollcallError
from shared.terminal import print_json

app = typer.Typer()

REFRESH_S = 1.0


@app.command()
def top(
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Show this node live: every check, what was measured in the last hour, upgrade, weight, peers and reds.

    Ctrl-C ends it. Where nobody watches, in a pipe, it shows everything once.
    """
    socket = check_home(home)
    try:
        if once or as_json or not sys.stdout.isatty():
            seen = asyncio.run(_once(socket))
            if as_json:
                print_json(seen.as_json())
            else:
                sys.stdout.write("".join(f"{line}\n" for line in plain(seen)))
        else:
            asyncio.run(_live(socket))
    except KeyboardInterrupt:
        return


async def _once(socket: Path) -> Watched:
    from shared.http import session

    watched = Watched()
    async with session(unix_socket=socket) as client:
        await watched.refresh(_ask(client))
    return watched


async def _live(socket: Path) -> None:
    """Until it is cancelled. The screen of before comes back however it ends; an agent that goes away is
    waited for."""
    from rich.console import Console
    from rich.live import Live

    from shared.http import session

    watched = Watched()
    async with session(unix_socket=socket) as client:
        await watched.refresh(_ask(client))
        console = Console()
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(screen(watched, console.width), refresh=True)
                await asyncio.sleep(REFRESH_S)
                try:
                    await watched.refresh(_ask(client))
                    watched.away = ""
                except (RollcallError, OSError) as error:
                    watched.away = str(error)


def _ask(client: Any) -> Callable[[str], Awaitable[bytes]]:
    from shared.http import call

    async def ask(path: str) -> bytes:
        return await call(client, "GET", f"http://agent{path}", timeout_s=10, max_answer=4 << 20)

    return ask
