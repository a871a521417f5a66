"""Alerts at a real coordinator: found, acknowledged, silenced and told, by API and CLI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from agent.layout import Layout
from coordinator.cli import app
from shared.durable import write_durable
from shared.errors import ConfigError, RollcallError
from shared.messages import Verdict
from shared.nodes import NodeHealth
from shared.readiness import CheckStatus
from shared.report import Concern, NodeReport, ReadinessSummary
from shared.webhook import verify_webhook
from tests.support.alertkit import SECRET, Receiver, receiving
from tests.support.coordinatorkit import Running, joined, run_coordinator, sync
from tests.unit.test_red_api import red_of


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


async def with_hook(running: Running, receiver: Receiver) -> None:
    """The coordinator again, with one channel."""
    home = running.settings.paths.root
    text = (
        f'[[channel]]\nname = "ops"\ntype = "webhook"\nurl = "{receiver.url}"\n'
        'secret_file = "ops.secret"\n'
    )
    await asyncio.to_thread(write_durable, home / "ops.secret", SECRET)
    await asyncio.to_thread(write_durable, home / "alerts.toml", text.encode())
    await running.restart()


async def rollcall(running: Running, *arguments: str) -> Result:
    config = ["--config", str(running.settings.paths.client)]
    return await asyncio.to_thread(CliRunner().invoke, app, ["alert", *arguments, *config])


async def go_red(running: Running) -> Layout:
    layout = await joined(running, "a")
    red = await asyncio.to_thread(red_of, layout)
    await sync(layout, messages=[red.raw])
    return layout


async def firing(running: Running, number: int = 1) -> list[dict[str, Any]]:
    async with asyncio.timeout(30):
        while len(found := (await running.get("/v1/alerts"))["alerts"]) < number:
            await asyncio.sleep(0.05)
    return list(found)


async def test_a_red_is_an_alert_that_is_told_acknowledged_and_over(
    running: Running, receiver: Receiver
) -> None:
    await with_hook(running, receiver)
    await go_red(running)
    (alert,) = await firing(running)
    assert (alert["rule"], alert["subject"], alert["severity"]) == ("red-open", "a", "critical")
    listed = await rollcall(running, "list")
    assert f"{alert['id']}\tcritical\tred-open\ta\t2027-01-15 08:00:00Z\topen" in listed.stdout
    taken = await rollcall(running, "ack", alert["id"], "--reason", "on it")
    assert (taken.exit_code, "is acknowledged: a is red" in taken.stderr) == (0, True)
    twice = await rollcall(running, "ack", alert["id"])
    assert twice.exit_code == 1
    assert "has acknowledged" in str(twice.exception)
    shown = json.loads((await rollcall(running, "show", alert["id"], "--json")).stdout)
    assert [(each["change"], each["reason"]) for each in shown["history"]] == [
        ("firing", ""),
        ("acknowledged", "on it"),
    ]
    assert shown["says"] == "a node's red is open"
    assert "acknowledged by first [" in (await rollcall(running, "show", alert["id"])).stdout
    await running.post("/v1/nodes/a/revoke", {"reason": "broken"})
    events = [got.json for got in await receiver.until(3)]
    assert [each["type"].rpartition(".")[2] for each in events] == [
        "firing",
        "acknowledged",
        "resolved",
    ]
    assert {each["data"]["id"] for each in events} == {alert["id"]}
    for got in receiver.received:
        verify_webhook(SECRET, got.headers, got.body, float(got.headers["Rollcall-Timestamp"]))
    history = await rollcall(running, "history", "--json")
    assert [each["id"] for each in json.loads(history.stdout)["alerts"]] == [alert["id"]]
    assert alert["id"] in (await rollcall(running, "history")).stdout


async def test_what_is_known_is_known_after_a_restart_and_is_not_told_twice(
    running: Running, receiver: Receiver
) -> None:
    await with_hook(running, receiver)
    await go_red(running)
    (before,) = await firing(running)
    await receiver.until(1)
    await running.restart()
    await running.post("/v1/alert-channels/ops/test", {})
    (after,) = await firing(running)
    assert after == before
    assert [got.json["type"].rpartition(".")[2] for got in receiver.received] == ["firing", "test"]


async def test_a_silence_is_made_listed_and_lifted(running: Running, receiver: Receiver) -> None:
    await with_hook(running, receiver)
    made = await rollcall(
        running, "silence", "--subject", "a", "--for", "1h", "--reason", "repair", "--json"
    )
    silence = json.loads(made.stdout)
    assert (silence["subject"], silence["by"].split()[0]) == ("a", "first")
    assert round(silence["ends"] - silence["begins"]) == 3600
    await go_red(running)
    (alert,) = await firing(running)
    assert alert["silenced"] == silence["id"]
    assert "\tsilenced\t" in (await rollcall(running, "list")).stdout
    assert "repair" in (await rollcall(running, "silences")).stdout
    assert receiver.received == []
    lifted = await rollcall(running, "unsilence", silence["id"])
    assert "is over" in lifted.stderr
    (got,) = await receiver.until(1)
    assert got.json["data"]["id"] == alert["id"]
    again = await rollcall(running, "unsilence", silence["id"])
    assert "is over" in str(again.exception)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("silence", "--reason", "x"), "a silence of everything is not made"),
        (("silence", "--reason", "x", "--rule", "rain"), "no rule is called 'rain'"),
        (("silence", "--reason", "x", "--subject", "a", "--for", "soon"), "is not a duration"),
        (("silence", "--reason", "", "--subject", "a"), "reason"),
        (("silence", "--reason", "x", "--subject", "a", "--for", "90d"), "for_s"),
        (("show", "../nodes"), "is no alert's id"),
        (("show", "00000000"), "there is no alert 00000000"),
        (("ack", "00000000"), "there is no alert 00000000"),
        (("unsilence", "00000000"), "there is no silence 00000000"),
        (("test", "fax"), "no channel is called 'fax'"),
        (("test", "../x"), "is no name of a channel"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_a_reason(
    running: Running, arguments: tuple[str, ...], error: str
) -> None:
    result = await rollcall(running, *arguments)
    assert isinstance(result.exception, RollcallError)
    assert error in str(result.exception)


async def test_a_channel_is_tried_and_says_why_it_fails(
    running: Running, receiver: Receiver
) -> None:
    await with_hook(running, receiver)
    good = await rollcall(running, "test", "ops")
    assert (good.exit_code, good.stderr.startswith("ops took a test in ")) == (0, True)
    receiver.answers = [500]
    bad = await rollcall(running, "test", "ops")
    assert bad.exit_code == 1
    assert "HTTP 500" in str(bad.exception)
    listed = await rollcall(running, "channels")
    assert listed.stdout == "NAME\tTYPE\tQUEUED\tSTATE\nops\twebhook\t0\tok\n"


async def test_the_api_hands_out_no_secret_and_takes_no_channel(
    running: Running, receiver: Receiver
) -> None:
    await with_hook(running, receiver)
    assert receiver.url not in json.dumps(await running.get("/v1/alert-channels"))
    admin = running.settings.paths.token.read_text()
    reply = await running.reply("POST", "/v1/alert-channels", token=admin, body=b"{}")
    assert reply.status == 405


async def test_a_viewer_reads_alerts_and_changes_none(running: Running) -> None:
    token = (await running.operator("viewer"))["token"]
    for path in ("alerts", "alert-history", "alert-silences", "alert-channels"):
        assert (await running.reply("GET", f"/v1/{path}", token=token)).status == 200
    body = json.dumps({"subject": "a", "for_s": 60, "reason": "x"}).encode()
    for path in ("alerts/00000000/ack", "alert-silences", "alert-channels/ops/test"):
        assert (await running.reply("POST", f"/v1/{path}", token=token, body=body)).status == 403


async def test_what_a_node_reports_reaches_the_rules(running: Running) -> None:
    layout = await joined(running, "a")
    concern = Concern(id="disk", status=CheckStatus.WARN, reason="9 % free")
    ready = ReadinessSummary(status=Verdict.GREEN, platform="linux-x64", concerns=[concern])
    await sync(
        layout,
        NodeReport(node="a", agent_version="0", readiness=ready, health=NodeHealth(error_rate=20)),
    )
    (alert,) = await firing(running)
    assert alert["summary"] == "a: 20 % of the tasks of the last 15 minutes failed"
    (node,) = (await running.get("/v1/nodes"))["nodes"]
    assert node["concerns"] == [concern.model_dump(mode="json")]


async def test_a_coordinator_does_not_start_with_half_of_its_channels(tmp_path: Path) -> None:
    async with run_coordinator(tmp_path, signed=False) as running:
        await asyncio.to_thread(
            write_durable, running.settings.paths.alerts, b'[[channel]]\nname = "ops"\n'
        )
        with pytest.raises(ConfigError, match=r"alerts\.toml: channel\.0"):
            await running.restart()
