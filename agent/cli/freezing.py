"""`rollcall-agent freeze, unfreeze, freezes`: keep this node as it is, and see what keeps it so."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from agent.cli.parts import ask_or_be
from agent.freezes import FreezeList
from shared.canonical import canonical_json
from shared.freezing import By
from shared.terminal import print_json

app = typer.Typer()

TIMEOUT_S = 60.0
MAX_WHO = 64

ReasonOption = Annotated[str, typer.Option(help="Why; kept here and shown everywhere.")]


@app.command()
def freeze(
    reason: ReasonOption, home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False
) -> None:
    """Keep this node as it is: no upgrade begins and its traffic weight stays, until `unfreeze`.

    Survives restarts, and works while the agent is down. Rollbacks of this node go on.
    """
    _show(_change(home, "/v1/freeze", reason), as_json=as_json)


@app.command()
def unfreeze(
    reason: ReasonOption, home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False
) -> None:
    """End a freeze by hand. Reds of peers go on freezing this node."""
    _show(_change(home, "/v1/unfreeze", reason), as_json=as_json)


@app.command()
def freezes(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """What freezes this node and what lifts it; who has frozen it by hand before."""
    raw = ask_or_be(home, "GET", "/v1/freezes", timeout_s=TIMEOUT_S)
    _show(FreezeList.from_bytes(raw), as_json=as_json, past=True)


def _change(home: Path, path: str, reason: str) -> FreezeList:
    body = canonical_json({"who": _who(), "reason": reason})
    return FreezeList.from_bytes(ask_or_be(home, "POST", path, body, timeout_s=TIMEOUT_S))


def _who() -> str:
    """The account of the person: with sudo the one that called it."""
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    return name[:MAX_WHO]


def _show(found: FreezeList, *, as_json: bool, past: bool = False) -> None:
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    lines = [freeze.words for freeze in found.now] or ["not frozen"]
    for each in reversed(found.past if past else []):
        before = each.freeze
        lines.append(f"before: {before.who}: {before.why}; lifted by {each.who}: {each.why}")
    by_hand = next((freeze for freeze in found.now if freeze.by is By.HAND), None)
    if by_hand is not None:
        lines[0] += f" [{by_hand.who}]"
    sys.stdout.write("".join(f"{line}\n" for line in lines))
