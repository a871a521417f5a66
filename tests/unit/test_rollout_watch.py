"""`rollcall rollout watch` on the stream of events: live, over a restart of the coordinator, and without a stream."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from coordinator.cli import app
from coordinator.cli.stream import MAX_EVENT_BYTES, EventParser, StreamEvent
from coordinator.cli.watch import Screen, Watch, is_over, status_line
from shared.clock import SystemClock
from shared.errors import BadInputError, UnavailableError
from shared.fleet import Refusal
from shared.http import RefusedError
from shared.rollout import NodeState, Rollout, RolloutNode, RolloutState
from shared.roster import Role
from tests.support.coordinatorkit import Running
from tests.support.rolloutkit import half_way, play, players, prove

NOW = 1_800_000_000.0


def events_of(*lines: str, last: str = "") -> list[StreamEvent]:
    parser = EventParser(last)
    return [event for line in lines if (event := parser.feed(f"{line}\n")) is not None]


def test_lines_become_events() -> None:
    found = events_of(
        "retry: 2000",
        "",
        "id: 1.0",
        "event: hello",
        "data: {}",
        "",
        ": still here",
        "",
        "event: rollout.progress",
        'data: {"rollout":',
        'data: "x"}',
        "",
    )
    assert found == [
        StreamEvent("1.0", "hello", {}),
        StreamEvent("1.0", "rollout.progress", {"rollout": "x"}),
    ]
    assert events_of("data: {}", "", last="7.7") == [StreamEvent("7.7", "", {})]


@pytest.mark.parametrize("data", ["[]", "{", "x" * (MAX_EVENT_BYTES + 1)])
def test_data_that_is_none_is_refused(data: str) -> None:
    with pytest.raises(BadInputError):
        events_of(f"data: {data}", "")


def rollout(state: RolloutState = RolloutState.RUNNING, **nodes: NodeState) -> Rollout:
    return Rollout(
        id="12345678",
        release="a" * 64,
        label="2026.9.6",
        strategy="canary",
        soak_s=0,
        set_by="alice",
        created=NOW - 60,
        state=state,
        since=NOW - 60,
        eta=NOW + 120,
        nodes=[
            RolloutNode(
                name=name, role=Role.STABLE, wave=0, order="", state=each, since=NOW - 5, phase=""
            )
            for name, each in nodes.items()
        ],
    )


def test_the_status_line_has_progress_eta_and_who_moves() -> None:
    found = status_line(rollout(a=NodeState.DONE, b=NodeState.MOVING), NOW)
    assert found == f"[{'#' * 10}{'.' * 10}] running, 1 of 2 done, about 2 min left; b 5 s moving"
    assert not is_over(rollout(RolloutState.HALTED, a=NodeState.MOVING)), "its node still moves"
    assert is_over(rollout(RolloutState.HALTED, a=NodeState.FAILED))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_at_the_bottom_is_drawn_only_at_a_terminal() -> None:
    words, lines = Terminal(), io.StringIO()
    screen = Screen(lines, words)
    screen.status("[##..] running \x1b[2J")
    screen.line("a done")
    assert words.getvalue() == "\r\x1b[K[##..] running [2J\r\x1b[K"
    assert lines.getvalue() == "a done\n"
    piped = io.StringIO()
    Screen(lines, piped).status("[##..]")
    assert piped.getvalue() == ""


Step = list[StreamEvent] | Exception


class Scripted:
    """Each stream in turn, and what the rollout looks like by then."""

    def __init__(self, *streams: Step, ends_after: int) -> None:
        self._streams, self._ends_after = list(streams), ends_after
        self.resumed: list[str] = []
        self.looks = 0

    async def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        assert (method, path, body) == ("GET", "/v1/rollouts/12345678", None)
        self.looks += 1
        over = self.looks >= self._ends_after and not self._streams
        state = RolloutState.SUCCEEDED if over else RolloutState.RUNNING
        return rollout(state, a=NodeState.DONE if over else NodeState.MOVING).canonical()

    async def events(self, last: str = "") -> AsyncGenerator[StreamEvent]:
        self.resumed.append(last)
        stream = self._streams.pop(0) if self._streams else []
        if isinstance(stream, Exception):
            raise stream
        for event in stream:
            yield event
            await asyncio.sleep(0.3)


async def watched(client: Scripted, patience_s: float | None = 20) -> tuple[Rollout, str, str]:
    lines, words = io.StringIO(), io.StringIO()
    screen = Screen(lines, words)
    found = await Watch(client, "12345678", screen, SystemClock()).run(patience_s)
    return found, lines.getvalue(), words.getvalue()


def node_event(id_: str, node: str, state: str) -> StreamEvent:
    body = {"rollout": "12345678", "node": node, "state": state, "reason": "", "at": NOW}
    return StreamEvent(id_, "rollout.node", body)


async def test_it_goes_on_after_the_event_that_it_had_last() -> None:
    client = Scripted(
        [StreamEvent("1.0", "hello", {}), node_event("2.0", "a", "pending")],
        UnavailableError("no answer"),
        [node_event("3.0", "a", "moving"), StreamEvent("9.0", "reset", {})],
        [],
        ends_after=1,
    )
    found, lines, words = await watched(client)
    assert found.state is RolloutState.SUCCEEDED
    assert client.resumed[:3] == ["", "2.0", "2.0"]
    assert "08:00:00Z  wave 1  a            stable   pending" in lines
    assert lines.splitlines()[-1].split()[1:] == ["wave", "1", "a", "stable", "done"]
    assert "looking anew" in words


async def test_events_of_other_rollouts_and_alerts_are_not_its_own() -> None:
    other = StreamEvent("2.0", "rollout.node", {"rollout": "87654321", "node": "a", "state": "x"})
    alert = StreamEvent("2.1", "alert", {"alert": "x", "change": "firing"})
    client = Scripted([other, alert], ends_after=1)
    _, lines, _ = await watched(client)
    assert " x" not in lines
    assert client.looks == 1


async def test_without_a_stream_it_looks_as_often_as_it_tries() -> None:
    """An older coordinator, or one that has as many streams as it takes."""
    refused = [RefusedError(503, Refusal(detail="64 streams of events are open"))] * 3
    client = Scripted(*refused, ends_after=3)
    found, _, _ = await watched(client)
    assert is_over(found)
    assert client.resumed == [""] * len(client.resumed)


async def test_a_place_that_the_coordinator_cannot_read_is_given_up() -> None:
    bad = RefusedError(400, Refusal(code="bad-input"))
    client = Scripted([StreamEvent("x.y", "hello", {})], bad, [], ends_after=1)
    await watched(client)
    assert client.resumed[:2] == ["", "x.y"]
    assert set(client.resumed[2:]) <= {""}


async def test_who_may_not_see_it_is_told_at_once() -> None:
    client = Scripted(RefusedError(401, Refusal(detail="revoked")), ends_after=9)
    with pytest.raises(RefusedError, match="revoked"):
        await watched(client)


async def test_it_gives_up_when_its_time_is_over() -> None:
    found, _, _ = await watched(Scripted([StreamEvent("1.0", "hello", {})], ends_after=99), 1.5)
    assert not is_over(found)


async def test_an_abort_says_what_comes_of_each_node(running: Running) -> None:
    release = await running.publish()
    nodes = await players(running, "a", "b")
    await half_way(running, nodes, release)
    config = running.settings.paths.client
    tried = await rollcall(config, "rollout", "abort", "--dry-run")
    assert "a            moving       drops its order before its outage" in tried.stderr
    assert (await running.get("/v1/rollouts"))["rollouts"][0]["state"] == "running"
    shown = await rollcall(config, "node", "revoke", "b", "--dry-run")
    assert "would lock out b: stable" in shown.stderr
    assert "its rollout counts it as failed" in shown.stderr
    assert len((await running.get("/v1/nodes"))["nodes"]) == 2
    asked = await rollcall(config, "rollout", "abort")
    assert "drops its order" in asked.stderr, "said before it is asked"
    assert "nobody is here to answer" in str(asked.exception)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.05)


async def test_a_real_rollout_is_watched_over_a_restart_of_the_coordinator(
    running: Running,
) -> None:
    release = await running.publish()
    nodes = await players(running, "a", "b")
    orders = await half_way(running, nodes, release)
    lines, words = io.StringIO(), io.StringIO()
    id_ = next(iter(orders.values())).partition(":")[0]
    watch = Watch(running.client, id_, Screen(lines, words), SystemClock())
    watching = asyncio.create_task(watch.run(60))
    await until(lambda: "moving" in lines.getvalue())
    await running.stop()
    await asyncio.sleep(0.5)
    await running.restart()
    proving = asyncio.create_task(prove(running, nodes, orders, release))
    assert (await watching).state is RolloutState.SUCCEEDED
    await proving
    said = lines.getvalue()
    assert "a            stable   done" in said
    assert f"rollout {id_} succeeded" in said
    assert "2 of 2 done" in words.getvalue()


async def rollcall(config: Path, *arguments: str) -> Result:
    words = [*arguments, "--config", str(config)]
    return await asyncio.to_thread(CliRunner().invoke, app, words)


async def test_the_command_ends_with_the_rollout(running: Running) -> None:
    config = running.settings.paths.client
    none = await rollcall(config, "rollout", "watch")
    assert "there was no rollout yet" in str(none.exception)
    release = await running.publish()
    nodes = await players(running, "a", "b")
    made: dict[str, Any] = await play(running, nodes, release)
    done = await rollcall(config, "rollout", "watch")
    assert done.exit_code == 0, done.output
    named = await rollcall(config, "rollout", "watch", made["id"], "--timeout", "5s", "--json")
    assert Rollout.from_bytes(named.stdout.encode()).id == made["id"]
    wrong = await rollcall(config, "rollout", "watch", "--timeout", "soon")
    assert "--timeout: 'soon' is not a duration" in str(wrong.exception)
