"""`rollcall coordinator …`"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from shared.errors import UsageError
from shared.terminal import print_json, run_async, say

app = typer.Typer(help="Run the coordinator.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Run the coordinator."""


@app.command()
def openapi() -> None:
    """Print the OpenAPI 3.1 description of the API; a running coordinator has it at /v1/openapi.json."""
    from coordinator.api.table import description

    sys.stdout.write(json.dumps(description(), indent=2) + "\n")


@app.command()
def serve(
    home: Annotated[Path, typer.Option(envvar="ROLLCALL_COORDINATOR_HOME", help="Its home.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT to listen on.")] = "127.0.0.1:7443",
    url: Annotated[
        str | None, typer.Option(help="What nodes dial, when it is not the listener's address.")
    ] = None,
    name: Annotated[str, typer.Option(help="The fleet's name, at the first start.")] = "fleet",
    connections: Annotated[
        int,
        typer.Option(min=16, max=100_000, help="How many it holds at once; a node needs two."),
    ] = 12_000,
    as_json: Annotated[bool, typer.Option("--json", help="Announce readiness as JSON.")] = False,
) -> None:
    """Serve until stopped. The first start makes the coordinator's keys and an admin's token; operators
    then sign them with: rollcall keys init"""
    from coordinator.home import HomePaths
    from coordinator.server import Settings, run_until_signal
    from shared import logs
    from shared.clock import SystemClock

    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"--listen {listen!r} is not HOST:PORT")
    if url is not None and not url.startswith("https://"):
        raise UsageError(f"--url {url!r} does not begin with https://")
    paths = HomePaths(home)
    settings = Settings(paths, name, host.strip("[]"), int(port), url, connections=connections)
    logs.configure(home / "logs" / "coordinator.log")

    def ready(address: str) -> None:
        if as_json:
            print_json({"url": address, "config": str(paths.client)})
        else:
            say(f"coordinator on {address}; operators use --config {paths.client}")

    run_async(run_until_signal(settings, SystemClock(), ready))


@app.command()
def rotate(
    home: Annotated[Path, typer.Option(envvar="ROLLCALL_COORDINATOR_HOME", help="Its home.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Make the next authority, roster key and online key, beside the ones in use. They count from the
    moment that operators have signed them with: rollcall keys rotate"""
    import time

    from coordinator.home import HomePaths, make_next_keys

    keys = make_next_keys(HomePaths(home), time.time())
    if as_json:
        print_json({"online_key": keys.online.public.keyid, "roster_key": keys.roster.public.keyid})
    else:
        say("the next keys are made; operators sign them with: rollcall keys rotate")
