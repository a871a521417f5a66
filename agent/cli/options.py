"""What every command takes: where the agent lives, and how to print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_HOME = Path(
    "/Library/Application Support/Rollcall" if sys.platform == "darwin" else "/var/lib/rollcall"
)

HomeOption = Annotated[
    Path,
    typer.Option(envvar="ROLLCALL_HOME", help="The agent's home.", show_default=str(DEFAULT_HOME)),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]
