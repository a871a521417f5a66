"""`rollcall capability …`: signed plugins and skills, onto nodes and off them, gate by gate."""

from __future__ import annotations

import json
import re
import sys
from typing import Annotated, Any, TypeVar

import typer

from coordinator.cli.capabilitysigning import create, withdraw
from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.cli.following import follow
from coordinator.cli.given import request, seconds, short_id
from coordinator.saying import day, moment
from shared.capability import (
    CAPABILITY_NAME,
    LABEL,
    OPEN_RUNS,
    CapabilityDetail,
    CapabilityList,
    CapabilityManifest,
    CapabilityRun,
    CapabilityView,
    GateState,
    PublishRequest,
    RunState,
    UnpublishRequest,
    Verb,
)
from shared.errors import UsageError
from shared.terminal import EXIT_TIMED_OUT, print_json, print_table, say
from shared.wire import Wire

POLL_S = 0.5
TEXT = rf"{LABEL}|{CAPABILITY_NAME}|[0-9a-f]{{8,64}}"
W = TypeVar("W", bound=Wire)
app = typer.Typer(help="Signed plugins and skills, published gate by gate.", no_args_is_help=True)
app.command()(create)
app.command()(withdraw)

CapabilityArgument = Annotated[
    str, typer.Argument(help="NAME, NAME@VERSION, or the beginning of an id.")
]
ReasonOption = Annotated[str, typer.Option(help="Why; kept with the run, told to the nodes.")]
WaitOption = Annotated[
    str, typer.Option("--wait", help="How long to follow it: 30s, 30m; 0 does not wait.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Ask the gates that change nothing; order nothing.")
]


@app.command()
def publish(
    capability: CapabilityArgument,
    node: Annotated[
        list[str] | None,
        typer.Option(help="Besides its owner; all nodes when absent. May be given again."),
    ] = None,
    reason: ReasonOption = "",
    wait: WaitOption = "30m",
    dry_run: DryRunOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Put a signed capability onto nodes through gates G0 to G9. Exit code 1 when a gate failed, and what was
    done is then taken back; 5 when it has not ended in time.

    Published again it goes to nodes that have joined since; who has it keeps it as it is.
    """
    asked = _request(
        PublishRequest, capability=capability, nodes=node or [], reason=reason, dry_run=dry_run
    )
    _begin(Client(config), "publish", asked.model_dump(mode="json"), wait, as_json=as_json)


@app.command()
def unpublish(
    capability: CapabilityArgument,
    reason: ReasonOption = "",
    wait: WaitOption = "30m",
    dry_run: DryRunOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Take a capability off its nodes through gates U0 to U4."""
    asked = _request(UnpublishRequest, capability=capability, reason=reason, dry_run=dry_run)
    _begin(Client(config), "unpublish", asked.model_dump(mode="json"), wait, as_json=as_json)


@app.command()
def watch(
    run: Annotated[str, typer.Argument(help="As `publish` and `show` name it.")],
    wait: WaitOption = "30m",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Follow a publish or unpublish that has begun."""
    patience, id_ = seconds("--wait", wait), short_id(run, "run", "rollcall capability show NAME")
    client = Client(config)
    first = CapabilityRun.from_value(client.get(f"/v1/capability-runs/{id_}"))
    _finish(_follow(client, first, patience), as_json=as_json)


@app.command("list")
def list_capabilities(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Every signed version, and which of them is in use where."""
    answer = Client(config).get("/v1/capabilities")
    if as_json:
        print_json(answer)
        return
    found = CapabilityList.from_value(answer).capabilities
    print_table(
        ["CAPABILITY", "ID", "KIND", "STATE", "NODES", "OWNER", "EXPIRES"],
        [_row(each) for each in found],
        empty="no capability; make one with: rollcall capability create FOLDER --owner NODE",
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The capability's name.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """One capability: what was signed, where it is in use, and its latest runs gate by gate."""
    answer = Client(config).get(f"/v1/capabilities/{_name(name)}")
    if as_json:
        print_json(answer)
        return
    detail = CapabilityDetail.from_value(answer)
    for view in detail.versions:
        sys.stdout.write(f"{view.name}@{view.version}  {view.state}  {view.id}\n")
        if view.missing:
            label = f"{view.name}@{view.version}"
            sys.stdout.write(f"  missing on {', '.join(view.missing)}, which joined since\n")
            sys.stdout.write(f"    bring it there: rollcall capability publish {label}\n")
        if view.manifest is not None:
            for key, text in _signed(view.manifest):
                sys.stdout.write(f"  {key:10} {text}\n")
    for run in detail.runs:
        sys.stdout.write(f"run {run.id}: {run.verb} {run.label} by {run.by}: {run.state}\n")
        for line in _lines(run):
            sys.stdout.write(f"  {line}\n")


def _request(model: type[W], **values: Any) -> W:
    """Raises UsageError in words; the model's own are of patterns."""
    if re.fullmatch(TEXT, str(values["capability"])) is None:
        raise UsageError(
            f"{str(values['capability'])[:80]!r} is no capability",
            remedy="NAME, NAME@VERSION, or the first 8 or more digits of an id: rollcall capability list",
        )
    return request(model, **values)


def _signed(manifest: CapabilityManifest) -> list[tuple[str, str]]:
    package = f", npm package {manifest.package}" if manifest.package else ""
    rows = [
        (manifest.kind, f"{manifest.id}{package}"),
        ("owner", manifest.owner),
        ("openclaw", "any version" if manifest.openclaw == "*" else manifest.openclaw),
        ("smoke", ", ".join(manifest.smoke)),
    ]
    if manifest.config:
        rows.append(("config", json.dumps(manifest.config)))
    rows += [
        ("file", f"{each.file}, {each.size} bytes, SHA-256 {each.sha256}")
        for each in manifest.artifacts
    ]
    return [*rows, ("created", moment(manifest.created)), ("expires", moment(manifest.expires))]


def _name(text: str) -> str:
    if re.fullmatch(CAPABILITY_NAME, text) is None:
        raise UsageError(
            f"{text[:80]!r} is no capability's name", remedy="see: rollcall capability list"
        )
    return text


def _where(view: CapabilityView) -> str:
    missing = f"missing on: {', '.join(view.missing)}" if view.missing else ""
    return "; ".join(part for part in (", ".join(view.nodes), missing) if part) or "-"


def _row(view: CapabilityView) -> list[str]:
    manifest = view.manifest
    return [
        f"{view.name}@{view.version}",
        view.id[:12],
        "-" if manifest is None else manifest.kind,
        view.state,
        _where(view),
        "-" if manifest is None else manifest.owner,
        "-" if manifest is None else day(manifest.expires),
    ]


def _begin(client: Client, verb: str, body: dict[str, Any], wait: str, *, as_json: bool) -> None:
    patience = seconds("--wait", wait)
    run = CapabilityRun.from_value(client.post(f"/v1/capabilities/{verb}", body))
    if body["dry_run"]:
        for line in _lines(run):
            say(line)
        say("dry run: nothing was ordered")
        _print(run, as_json=as_json)
        if run.state is RunState.FAILED:
            raise typer.Exit(1)
        return
    say(f"run {run.id}: {run.verb} {run.label} on {', '.join(node.node for node in run.nodes)}")
    _finish(_follow(client, run, patience), as_json=as_json)


def _follow(client: Client, run: CapabilityRun, patience: float) -> CapabilityRun:
    """Says each gate as it comes into its state, and each change of what one waits for."""
    said: set[str] = set()

    def look() -> CapabilityRun:
        return CapabilityRun.from_value(client.get(f"/v1/capability-runs/{run.id}"))

    def is_over(now: CapabilityRun) -> bool:
        for line in _lines(now):
            if line not in said:
                said.add(line)
                say(line)
        return now.state not in OPEN_RUNS

    again = f"run {run.id} goes on; follow it: rollcall capability watch {run.id}"
    return follow(look, is_over, patience, POLL_S, again, first=run)


def _finish(run: CapabilityRun, *, as_json: bool) -> None:
    _print(run, as_json=as_json)
    if run.state in OPEN_RUNS:
        say(f"run {run.id} goes on; follow it: rollcall capability watch {run.id}")
        raise typer.Exit(EXIT_TIMED_OUT)
    say(f"{run.verb} {run.label}: {run.state}: {run.reason}")
    if run.state is RunState.FAILED:
        raise typer.Exit(1)


def _print(run: CapabilityRun, *, as_json: bool) -> None:
    """The gates under the name that pipelines are known by."""
    if as_json:
        value = run.model_dump(mode="json")
        name = "publishPipeline" if run.verb is Verb.PUBLISH else "unpublishPipeline"
        value[name] = value.pop("gates")
        print_json(value)


def _lines(run: CapabilityRun) -> list[str]:
    """Gates that have begun, and nodes on their way back."""
    gates = [
        f"{gate.gate} {gate.name:15} {gate.state:8} {gate.reason}".rstrip()
        for gate in run.gates
        if gate.state is not GateState.WAITING
    ]
    back = [
        f"   {node.node:15} {node.step:9} {node.reason}".rstrip()
        for node in run.nodes
        if run.state in (RunState.ROLLING_BACK, RunState.FAILED) and node.order is not None
    ]
    return [*gates, *back]
