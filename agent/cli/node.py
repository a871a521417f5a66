"""`rollcall-agent join, run, status, …`: be a node of a fleet, and look at it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from agent.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from agent.cli.parts import ask_agent
from agent.cli.shown import describe, describe_document
from agent.layout import Layout
from agent.starting import Asked, run_agent
from shared.errors import UsageError
from shared.report import NodeReport
from shared.roster import Role
from shared.terminal import print_json, run_async, say
from shared.wire import is_node_name

app = typer.Typer()


@app.command()
def join(
    token: Annotated[str, typer.Argument(help="What `rollcall node token create` printed.")],
    name: Annotated[str, typer.Option(help="This node's name: a-z, 0-9 and hyphens.")],
    role: Annotated[
        Role | None, typer.Option(help="What it is for in a rollout; the token's, else stable.")
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="Where it stands; the token's if absent.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Join a fleet: make this node's keys and get its certificate.

    For a node that was installed anew, with a token made by: rollcall node token create --rejoin NAME
    """
    from agent.join import join as join_fleet
    from shared.fleet import JoinToken

    if not is_node_name(name):
        raise UsageError(f"{name!r} is no node name: use a-z, 0-9 and hyphens, 32 at most")
    identity = run_async(join_fleet(Layout(home), JoinToken.decode(token), name, role, site))
    if as_json:
        print_json({"node": identity.name, "role": identity.role, "coordinator": identity.url})
    else:
        say(f"{identity.name} has joined as {identity.role}; next: rollcall-agent run")


@app.command()
def run(
    home: HomeOption = DEFAULT_HOME,
    foreground: Annotated[
        bool, typer.Option(help="Log to stderr instead of <home>/logs/agent.log.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Announce readiness as JSON.")] = False,
) -> None:
    """Run the agent until it is told to stop. Its gateway stays up when it goes."""
    run_agent(Asked(home, foreground, as_json))


@app.command()
def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show what this node runs, whether it is ready, and what it waits for."""
    report = NodeReport.from_bytes(ask_agent(home, "GET", "/v1/status"))
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    for line in describe(report):
        sys.stdout.write(line + "\n")


@app.command()
def readiness(
    home: HomeOption = DEFAULT_HOME,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="With --json the evidence, too: the bytes of each probe."),
    ] = False,
    exclude: Annotated[
        list[str], typer.Option(help="A check that the verdict shall leave out. Repeatable.")
    ] = [],  # noqa: B006 - typer reads it and never changes it
    as_json: JsonOption = False,
) -> None:
    """Show the merged readiness document. Exit code 1 unless it is green.

    With --verbose --json it is what `rollcall readiness verify` and `rollcall readiness diff` take.
    """
    from urllib.parse import urlencode

    from shared.messages import Verdict
    from shared.readiness import MAX_DOCUMENT_BYTES, read_document

    words = [("exclude", name) for name in exclude] + ([("verbose", "1")] if verbose else [])
    path = f"/v1/readiness?{urlencode(words)}" if words else "/v1/readiness"
    _, document = read_document(ask_agent(home, "GET", path, max_answer=MAX_DOCUMENT_BYTES))
    if as_json:
        print_json(document.model_dump(mode="json"))
    else:
        for line in describe_document(document, verbose=verbose):
            sys.stdout.write(line + "\n")
    if document.status is not Verdict.GREEN:
        raise typer.Exit(1)


@app.command("rotate-keys")
def rotate_keys(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Give this node a new message key and a new certificate. Needs the coordinator."""
    from shared.canonical import parse_json

    answer = parse_json(ask_agent(home, "POST", "/v1/keys", timeout_s=60))
    if as_json:
        print_json(answer)
    else:
        say(f"this node signs with key {answer['keyid'][:16]} from now on")
