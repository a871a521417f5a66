"""`rollcall traffic` as people see it, against a real coordinator."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from typer.testing import CliRunner, Result

from agent.cli.shown import describe
from coordinator.cli import app
from shared.errors import RollcallError, UsageError
from tests.support.coordinatorkit import Running, joined, sync
from tests.unit.test_traffic_api import report, upgraded


async def say(running: Running, *words: str) -> Result:
    file = str(running.settings.paths.client)
    argv = ["traffic", *words, "--config", file]
    return await asyncio.to_thread(CliRunner().invoke, app, argv)


async def test_what_people_are_told(running: Running) -> None:
    layout = await joined(running, "a")
    await sync(layout, upgraded("a", 1))
    async with asyncio.timeout(60):
        while "1 of 5" not in (await say(running, "show")).stdout:
            await asyncio.sleep(0.2)
    columns, row = ((await say(running, "show")).stdout).splitlines()
    assert columns.split("\t")[:5] == ["NODE", "WANTED", "TAKES", "TOLD", "COHORT"]
    cells = row.split("\t")
    assert cells[:6] == ["a", "1 %", "1 %", "1 %", "-", "1 of 5"]
    assert cells[7:10] == ["rollcall", "10.0.0.9", "upgraded"]
    assert re.fullmatch(r"watched at 1 %: \d+ s left of 60 s", cells[10])
    frozen = await say(running, "freeze", "--reason", "a fair is on")
    assert "rollcall traffic unfreeze" in frozen.stderr
    shown = await say(running, "show")
    assert "a fair is on" in shown.stderr
    assert "froze all ratios" in shown.stdout
    assert "a fair is on" in (await say(running, "unfreeze", "--reason", "over")).stderr
    kept = await say(running, "snapshot", "evening")
    assert "rollcall traffic restore evening" in kept.stderr
    said = await say(running, "set", "a", "30", "--reason", "slow disk")
    assert "30 % is wanted of a, which takes 1 %; it stands until --auto" in said.stderr
    tried = await say(running, "restore", "evening", "--reason", "x", "--dry-run")
    assert tried.stdout.splitlines()[1].split("\t")[:3] == ["a", "30 %", "1 %"]
    listed = await say(running, "snapshots")
    assert listed.stdout.splitlines()[1].startswith("evening\t")
    one = await say(running, "snapshots", "evening")
    assert one.stdout.splitlines()[1].split("\t")[:3] == ["a", "1 %", "1 %"]
    history = await say(running, "history", "--limit", "2")
    assert [line.split("\t")[1:3] for line in history.stdout.splitlines()[1:]] == [
        ["a", "30 %"],
        ["all", "-"],
    ]
    answer = json.loads((await say(running, "show", "--json")).stdout)
    assert (answer["nodes"][0]["desired"], answer["nodes"][0]["pinned"]) == (30, True)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["set", "a"], "a percentage, or --auto"),
        (["set", "a", "5", "--auto", "--reason", "x"], "a percentage, or --auto"),
        (["set", "a", "5"], "needs --reason"),
        (["freeze"], "needs --reason"),
        (["restore", "evening"], "needs --reason"),
    ],
)
async def test_what_is_missing_is_named(running: Running, words: list[str], complaint: str) -> None:
    result = await say(running, *words)
    assert isinstance(result.exception, UsageError)
    assert complaint in result.exception.message


async def test_an_unknown_node_is_answered_with_those_there_are(running: Running) -> None:
    await joined(running, "a")
    result = await say(running, "set", "b", "5", "--reason", "x")
    assert isinstance(result.exception, RollcallError)
    assert "no node is called 'b'" in result.exception.message
    assert "there are: a" in str(result.exception)
    assert (await say(running, "set", "a", "101", "--reason", "x")).exit_code == 2


def test_the_agent_says_its_share_while_it_is_not_all() -> None:
    assert not [line for line in describe(report()) if "share" in line]
    less = report(weight=5, weight_wanted=25, weight_waits="waits for its peers")
    assert "  share     5 % of traffic, 25 % is wanted: waits for its peers" in describe(less)
    assert "  share     5 % of traffic" in describe(report(weight=5, weight_wanted=5))
