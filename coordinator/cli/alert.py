"""`rollcall alert …`"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from coordinator.alerts.model import Alert, Silence
from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.cli.given import seconds, short_id
from coordinator.saying import moment
from shared.errors import UsageError
from shared.terminal import print_json, print_table, say

app = typer.Typer(help="What people must see to.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(help="Its id, as `rollcall alert list` shows it.")]


@app.callback()
def group() -> None:
    """What people must see to."""


@app.command("list")
def list_alerts(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """What goes on now, the worst first."""
    answer = Client(config).get("/v1/alerts")
    if as_json:
        print_json(answer)
        return
    alerts = [Alert.from_value(each) for each in answer["alerts"]]
    rows = [
        [
            each.id,
            each.severity,
            each.rule,
            each.subject,
            moment(each.since),
            _mark(each),
            each.summary,
        ]
        for each in alerts
    ]
    columns = ["ID", "SEVERITY", "RULE", "SUBJECT", "SINCE", "STATE", "SUMMARY"]
    print_table(columns, rows, empty="nothing to see to")


@app.command()
def show(
    alert: IdArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """One alert: what its rule looks for, since when, and what became of it."""
    answer = Client(config).get(f"/v1/alerts/{_alert(alert)}")
    if as_json:
        print_json(answer)
        return
    found = Alert.from_value(answer["alert"])
    lines = [
        f"{found.id}  {found.severity}  {found.rule}  {found.subject}  {_mark(found)}",
        f"  {found.summary}",
        *([f"  {found.detail}"] if found.detail else []),
        f"  rule      {answer['says']}",
        f"  since     {moment(found.since)}",
        *([f"  ended     {moment(found.ended)}"] if found.ended is not None else []),
    ]
    for each in answer["history"]:
        who = f" by {each['by']}" if each["by"] else ""
        why = f": {each['reason']}" if each["reason"] else ""
        lines.append(f"  {moment(each['at'])}  {each['change']} ({each['severity']}){who}{why}")
    sys.stdout.write("\n".join(lines) + "\n")


@app.command()
def ack(
    alert: IdArgument,
    reason: Annotated[str, typer.Option(help="What is being done about it.")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Say that you have taken it on. It ends when what it says has ended, not before."""
    answer = Client(config).post(f"/v1/alerts/{_alert(alert)}/ack", {"reason": reason})
    if as_json:
        print_json(answer)
    else:
        say(f"alert {answer['id']} is acknowledged: {answer['summary']}")


@app.command()
def silence(
    reason: Annotated[str, typer.Option(help="Why nobody need be told.")],
    rule: Annotated[str, typer.Option(help="Only alerts of this rule.")] = "",
    subject: Annotated[str, typer.Option(help="Only about this node, rollout or part.")] = "",
    for_: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 1d.")] = "2h",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Tell nobody of alerts of a rule, of a subject, or of both. They stay in the list; what still goes on when the
    silence ends is told then."""
    if not rule and not subject:
        raise UsageError(
            "a silence of everything is not made", remedy="name --rule, --subject or both"
        )
    asked = {"rule": rule, "subject": subject, "for_s": seconds("--for", for_), "reason": reason}
    answer = Client(config).post("/v1/alert-silences", asked)
    if as_json:
        print_json(answer)
    else:
        say(f"silence {answer['id']} lasts until {moment(answer['ends'])}")


@app.command()
def unsilence(
    silence: Annotated[str, typer.Argument(help="Its id, as `rollcall alert silences` shows it.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """End a silence before its time."""
    answer = Client(config).delete(
        f"/v1/alert-silences/{short_id(silence, 'silence', 'rollcall alert silences')}"
    )
    if as_json:
        print_json(answer)
    else:
        say(f"silence {answer['id']} is over")


@app.command()
def silences(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Silences that are not over."""
    answer = Client(config).get("/v1/alert-silences")
    if as_json:
        print_json(answer)
        return
    found = [Silence.from_value(each) for each in answer["silences"]]
    rows = [
        [each.id, each.rule or "*", each.subject or "*", moment(each.ends), each.by, each.reason]
        for each in found
    ]
    print_table(["ID", "RULE", "SUBJECT", "UNTIL", "BY", "REASON"], rows, empty="no silences")


@app.command()
def history(
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Alerts that are over, the latest first."""
    answer = Client(config).get(f"/v1/alert-history?limit={limit}")
    if as_json:
        print_json(answer)
        return
    rows = [
        [
            each.id,
            each.severity,
            each.rule,
            each.subject,
            moment(each.since),
            moment(each.ended),
            each.summary,
        ]
        for each in (Alert.from_value(value) for value in answer["alerts"])
    ]
    columns = ["ID", "SEVERITY", "RULE", "SUBJECT", "SINCE", "ENDED", "SUMMARY"]
    print_table(columns, rows, empty="no alert is over")


@app.command()
def channels(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Where alerts go, and whether they arrive. Channels stand in alerts.toml in the coordinator's home."""
    answer = Client(config).get("/v1/alert-channels")
    if as_json:
        print_json(answer)
        return
    rows = [
        [each["name"], each["type"], str(each["queued"]), each["failing"] or "ok"]
        for each in answer["channels"]
    ]
    print_table(["NAME", "TYPE", "QUEUED", "STATE"], rows, empty="no channels")


@app.command("test")
def send_test(
    channel: Annotated[str, typer.Argument(help="The channel's name in alerts.toml.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Send a test to one channel. Exit code 1 when its receiver does not take it."""
    answer = Client(config).post(f"/v1/alert-channels/{_name(channel)}/test", {})
    if as_json:
        print_json(answer)
    else:
        say(f"{answer['channel']} took a test in {answer['took_ms']:.0f} ms")


def _mark(alert: Alert) -> str:
    if alert.ended is not None:
        return "over"
    if alert.acknowledged is not None:
        return f"acknowledged by {alert.acknowledged.by}"
    return "silenced" if alert.silenced is not None else "open"


def _alert(text: str) -> str:
    return short_id(text, "alert", "rollcall alert list")


def _name(text: str) -> str:
    if not text or not set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-"):
        raise UsageError(f"{text!r} is no name of a channel", remedy="see: rollcall alert channels")
    return text
