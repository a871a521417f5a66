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


def _print_version(asked: bool) -> None:
    if asked:
        import agent

        sys.stdout.write(f"rollcall-agent {agent.__version__}\n")
        raise typer.Exit


def show_version(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show it.")
    ] = False,
) -> None:
    """What stands before any command."""


JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]
