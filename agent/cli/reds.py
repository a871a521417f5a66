"""`rollcall-agent reds` and `clear`: the failure broadcasts that this node holds, as they are or as they come."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from agent.cli.parts import ask_agent
from agent.feed import Event, RedEvent
from shared.errors import UsageError
from shared.report import NodeReport
from shared.terminal import print_json, run_async, say

app = typer.Typer()

MAX_ANSWER = 128 << 20


@app.command()
def reds(
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Then every red and every end as it comes, until Ctrl-C."),
    ] = False,
    after: Annotated[
        int | None,
        typer.Option(
            min=0, help="With --follow: go on after the event with this id, as told before."
        ),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """List the open reds that this node holds, its own and its peers'.

    With --follow --json each line is a JSON object, each event comes once, and a restart of the agent is
    bridged: begin again with --after ID where you stopped.
    """
    if follow:
        _follow(home, after, as_json=as_json)
        return
    if after is not None:
        raise UsageError("--after goes with --follow")
    report = NodeReport.from_bytes(ask_agent(home, "GET", "/v1/status"))
    if as_json:
        print_json({"node": report.node, "open": report.open_reds, "frozen_by": report.frozen_by})
    elif not report.open_reds:
        say("no open reds")
    else:
        sys.stdout.write("".join(f"{red}\n" for red in report.open_reds))


def _follow(home: Path, after: int | None, *, as_json: bool) -> None:
    from agent.following import follow
    from shared.clock import SystemClock

    def show(event: RedEvent) -> None:
        line = f'{{"schemaVersion":1,{event.model_dump_json()[1:]}' if as_json else _words(event)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    try:
        run_async(follow(home, after, show, say, SystemClock()))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _words(event: RedEvent) -> str:
    if event.event is Event.RED:
        return f"{event.id} red of {event.origin} ({event.kind}): {event.reason} [{event.key}]"
    return f"{event.id} clear by {event.by}: {event.reason} [{event.key}]"


@app.command()
def clear(
    key: Annotated[str, typer.Argument(help="The red's key, as `rollcall-agent reds` shows it.")],
    reason: Annotated[str, typer.Option(help="Why it is over; told to the peers.")] = "",
    signature: Annotated[
        Path | None,
        typer.Option(help="An operator's clear, signed with `rollcall red sign`: ends it for all."),
    ] = None,
    draft: Annotated[
        Path | None,
        typer.Option(
            help="End nothing yet: write the file that operators sign, to end it for all."
        ),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """End one of this node's own reds, and with it the freeze of its peers; or, here alone, the red of
    a node that was revoked."""
    from shared.canonical import canonical_json

    if draft is not None and reason:
        _write_draft(home, key, reason, draft)
        if as_json:
            print_json({"file": str(draft)})
        else:
            say(f"where operators' keys are: rollcall red sign {draft}")
            say(f"then on any node: rollcall-agent clear {key} --signature {draft}")
        return
    if signature is not None:
        ask_agent(home, "POST", "/v1/operator-clear", _envelope(key, signature), timeout_s=30)
    elif reason:
        ask_agent(home, "POST", "/v1/clear", canonical_json({"key": key, "reason": reason}))
    else:
        raise UsageError("a clear needs --reason", remedy="say why it is over")
    if as_json:
        print_json({"cleared": key})
    else:
        say(f"{key} is cleared")


def _write_draft(home: Path, key: str, reason: str, path: Path) -> None:
    import time
    from urllib.parse import quote

    from agent.reds_api import SignedRed
    from shared.durable import write_durable
    from shared.operatorclear import ClearFile

    if path.exists():
        raise UsageError(f"{path} exists", remedy="name another file with --draft")
    raw = ask_agent(home, "GET", f"/v1/reds/{quote(key, safe=':')}")
    file = ClearFile.draft(SignedRed.from_bytes(raw).red, reason, time.time())
    write_durable(path, file.canonical(), mode=0o644)


def _envelope(key: str, path: Path) -> bytes:
    from shared.operatorclear import ClearFile

    file = ClearFile.from_bytes(path.read_bytes())
    file.check()
    if file.clear.ref != key:
        raise UsageError(f"{path} is a clear of {file.clear.ref}, not of {key}")
    return file.envelope.encode()


@app.command()
def attestations(
    order: Annotated[str, typer.Argument(help="Rollout and node, such as a81b21d0:canary.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """What peers signed about one order of this node, and whether it proves that the quorum saw green.

    With --json everything that was signed, to be judged anywhere. Exit code 1 unless it is proven.
    """
    from urllib.parse import quote

    from shared.attesting import AttestationExport

    raw = ask_agent(
        home, "GET", f"/v1/attestations/{quote(order, safe=':')}", max_answer=MAX_ANSWER
    )
    export = AttestationExport.from_bytes(raw, max_bytes=MAX_ANSWER)
    judged = export.judgement
    if as_json:
        print_json(export.model_dump(mode="json"))
    elif judged.proven:
        say(f"{order}: seen green by {', '.join(judged.signed)}")
    else:
        say(f"{order}: not proven: {judged.reason}")
    if not judged.proven:
        raise typer.Exit(1)
