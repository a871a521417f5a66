"""What the real gateways said, in health and in sickness, and the verdict that comes of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from agent.openclaw.tasks import Task, Tasks, parse_tasks
from agent.readiness.history import History
from agent.readiness.monitor import Monitor
from agent.readiness.probes.digest import DigestProbe
from agent.readiness.probes.gateway import GatewayProbe
from agent.readiness.probes.p95 import P95Probe, p95, runs_ms, waits_ms
from agent.readiness.probes.plugins import PluginProbe, judge_plugins
from agent.readiness.probes.queue import QueueProbe
from agent.readiness.probes.tasks import TaskReader
from agent.readiness.probes.throughput import Rates, ThroughputProbe, is_low, rates_of
from agent.readiness.reading import Probe
from agent.service.base import Pid
from shared.errors import CommandError
from shared.npm import NodeTools
from shared.readiness import Check, CheckStatus
from tests.conftest import ManualClock
from tests.support.gatewaystub import GatewayStub

SAMPLES = Path(__file__).parent / "samples"
OLD, NEW = "2026.7.35", "2026.9.6"
PREFLIGHT = "gateway.restart.preflight"
NOW = 1_795_000_000.0


def sample(version: str, name: str) -> Any:
    return json.loads((SAMPLES / version / f"{name}.json").read_bytes())


class Node:
    """A node whose gateway says what the samples say."""

    def __init__(self, stub: GatewayStub, client: aiohttp.ClientSession, home: Path) -> None:
        self.stub, self.clock = stub, ManualClock()
        tools = NodeTools(Path("/usr/bin/false"), Path("/usr/bin/false"))
        self.openclaw = OpenClaw(tools, home, home)
        self.started = self.clock.now() - 3600
        stub.configure(self.openclaw.state)
        gateway = self.gateway = Gateway(client, stub.port, self.clock.monotonic)
        tasks = TaskReader(gateway, self.current, self.alive, self.clock, warmup_s=90)
        self.history = History()
        probes: list[Probe] = [
            GatewayProbe(gateway, self.current, 2.0, 2000),
            QueueProbe(gateway, self.current, 15.0, 500),
            DigestProbe(gateway, self.current, 15.0),
            ThroughputProbe(tasks, 15.0, 100),
            P95Probe(tasks, 15.0, 2000),
        ]
        self.monitor = Monitor(
            "a", probes, self.clock, lambda: None, history=self.history, guards=[]
        )

    def current(self) -> OpenClaw:
        return self.openclaw

    async def alive(self) -> Pid | None:
        return Pid(1, self.started)

    async def read(self, *ids: str) -> dict[str, Check]:
        document = await self.monitor.refresh(ids)
        return {check.id: check for check in document.checks}

    def says(self, version: str, **names: str) -> None:
        """The samples of these names, by method with `_` for dots."""
        for method, name in names.items():
            self.stub.answers[method.replace("_", ".")] = sample(version, name)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with GatewayStub() as stub, aiohttp.ClientSession() as client:
        yield Node(stub, client, tmp_path)


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_an_idle_gateway_passes(node: Node, version: str) -> None:
    node.stub.ready = 200, (SAMPLES / version / "readyz-ready.json").read_bytes()
    node.says(version, gateway_restart_preflight="call-preflight", health="call-health")
    node.stub.answers["tasks.list"] = {"tasks": []}
    checks = await node.read("gateway", "queue", "digest", "throughput", "p95")
    for name in ("gateway", "queue", "digest", "throughput", "p95"):
        assert checks[name].status is CheckStatus.PASS, checks[name]
    assert checks["queue"].observed == 0.0
    assert "too few" in checks["p95"].reason
    assert node.history.since("loop_p99_ms", 0)
    assert [each.value for each in node.history.since("queue_depth", 0)] == [0.0]


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_a_busy_gateway_passes_and_its_work_is_counted(node: Node, version: str) -> None:
    node.says(version, gateway_restart_preflight="call-preflight-busy")
    checks = await node.read("queue")
    assert (checks["queue"].status, checks["queue"].observed) == (CheckStatus.PASS, 3.0)


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_what_people_asked_for_is_no_evidence(node: Node, version: str) -> None:
    node.says(version, gateway_restart_preflight="call-preflight-busy")
    assert "wait 0" in json.dumps(node.stub.answers)
    reading = await QueueProbe(node.gateway, node.current, 15.0, 500).read()
    assert b"wait 0" not in reading.raw


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("readyz-suspended", 503, "suspended"),
        ("readyz-draining-after-sigterm.503", 503, "ends its work"),
        ("readyz-starting.503", 503, "it is starting (startup-sidecars)"),
    ],
)
async def test_a_gateway_that_takes_no_traffic_says_why(
    node: Node, name: str, status: int, said: str
) -> None:
    node.stub.ready = status, (SAMPLES / NEW / f"{name}.json").read_bytes()
    check = (await node.read("gateway"))["gateway"]
    assert check.status is CheckStatus.FAIL
    assert said in check.reason


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_what_the_cli_prints_of_a_gateway_that_is_down_is_no_health(
    node: Node, version: str
) -> None:
    for name in ("health-json-gwdown", *(["health-json-suspended"] if version == NEW else [])):
        node.stub.answers["health"] = {**sample(version, name), "error": None}
        del node.stub.answers["health"]["error"]
        check = (await node.read("digest"))["digest"]
        assert (check.status, check.reason != "") == (CheckStatus.UNKNOWN, True)


def test_a_plugin_that_did_not_load_is_a_failure_with_its_words() -> None:
    health = sample(NEW, "call-health")
    assert judge_plugins(health, {"memory-core"}).status is CheckStatus.PASS
    missing = judge_plugins(health, {"memory-core", "discord"})
    assert (missing.status, "not loaded: discord" in missing.reason) == (CheckStatus.WARN, True)
    wrong = [{"id": "discord", "error": "Cannot find package"}, *["x"] * 4]
    broken = judge_plugins({**health, "plugins": {"loaded": [], "errors": wrong}}, set())
    assert broken.status is CheckStatus.FAIL
    assert broken.reason == "plugins in error: discord (Cannot find package), x, x, and 2 more"
    others: list[Any] = [None, [], {}, {"loaded": []}, {"errors": "none", "loaded": []}]
    for plugins in others:
        reading = judge_plugins({**health, "plugins": plugins}, set())
        assert reading.status is CheckStatus.UNKNOWN


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"safe": True},
        {"safe": "yes", "counts": {"queueSize": 0, "totalActive": 0}},
        {"safe": True, "counts": {"queueSize": "0", "totalActive": 0}},
        {"safe": True, "counts": {"queueSize": True, "totalActive": 0}},
    ],
)
async def test_a_queue_of_another_form_is_unknown(node: Node, answer: dict[str, Any]) -> None:
    node.stub.answers[PREFLIGHT] = answer
    check = (await node.read("queue"))["queue"]
    assert (check.status, "unknown form" in check.reason) == (CheckStatus.UNKNOWN, True)


@pytest.mark.parametrize("version", [OLD, NEW])
def test_the_cli_and_the_socket_list_tasks_alike(version: str) -> None:
    printed = parse_tasks(sample(version, "tasks-list"))
    assert all(task.ended and task.started for task in printed if task.status == "succeeded")
    waiting = [task.status for task in parse_tasks(sample(version, "rpc-tasks-busy"))]
    assert waiting == ["running", "queued", "completed"], "one waits behind another of its session"


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"tasks": {}},
        {"tasks": ["x"]},
        {"tasks": [{"status": "running"}]},
        {"tasks": [{"createdAt": 1}]},
        {"tasks": [{"createdAt": "yesterday", "status": "running"}]},
        {"tasks": [{"createdAt": 1, "status": "running", "startedAt": True}]},
    ],
)
def test_tasks_of_another_form_are_an_error(value: dict[str, Any]) -> None:
    with pytest.raises(CommandError):
        parse_tasks(value)


def task(
    number: int,
    created: float,
    wait: float | None = 0.1,
    run: float | None = 5.0,
    *,
    session: str = "",
    status: str = "completed",
) -> Task:
    """Seconds before NOW that it was created, how long it waited and ran; None for what is not over."""
    made = NOW - created
    started = None if wait is None else made + wait
    ended = None if started is None or run is None else started + run
    if status == "completed" and ended is None:
        status = "queued" if started is None else "running"
    updated = ended or started or made
    return Task(f"t{number}", session or f"s{number}", status, made, updated, started, ended)


def tasks(listed: list[Task], minutes: float = 10) -> Tasks:
    waiting = tuple(each for each in listed if each.status == "queued")
    return Tasks(NOW, NOW - 60 * minutes, tuple(listed), waiting)


def even(count: int, first: int = 0, **how: Any) -> list[Task]:
    """Spread over 10 minutes."""
    return [task(first + number, 600 - number * 600 / count, **how) for number in range(count)]


def test_rates_of_a_gateway_that_keeps_up() -> None:
    rates = rates_of(tasks(even(1500)))
    assert (round(rates.asked), 145 <= rates.done <= 150) == (150, True)
    assert not is_low(rates, 100, False)


def test_a_gateway_that_does_less_than_the_floor_fails_only_while_more_is_asked() -> None:
    rates = rates_of(tasks([*even(900), *even(600, first=900, wait=None)]))
    assert is_low(rates, 100, False)
    assert not is_low(rates, 0, False), "0 switches it off"
    quiet = rates_of(tasks(even(300)))
    assert not is_low(quiet, 100, False), "nobody asks for more"


def test_just_at_the_floor_with_long_tasks_on_their_way_is_healthy() -> None:
    """Demand that has just risen: what began a minute ago is missed by nobody."""
    rising = [task(number, 60 - number * 0.05, run=None) for number in range(1100)]
    assert not is_low(rates_of(tasks(rising)), 100, False)
    stuck = [task(number, 500 - number * 0.1, run=None) for number in range(1100)]
    assert is_low(rates_of(tasks(stuck)), 100, False), "what has run for minutes is not on its way"


def test_what_failed_is_not_done() -> None:
    failed = [task(number, 590 - number * 0.3, status="failed") for number in range(1500)]
    assert is_low(rates_of(tasks(failed)), 100, False)


def test_once_low_only_a_clear_return_counts() -> None:
    almost = Rates(done=102, asked=150, due=150)
    assert (is_low(almost, 100, False), is_low(almost, 100, True)) == (False, True)
    assert not is_low(Rates(done=106, asked=150, due=150), 100, True)


def test_p95_is_the_nearest_rank() -> None:
    assert p95(range(1, 21)) == 19
    assert p95([7.0]) == 7.0


def test_a_wait_behind_ones_own_session_is_the_models_time() -> None:
    first = task(1, 100, wait=0.05, run=40, session="agent:main:main")
    second = task(2, 95, wait=35.1, run=5, session="agent:main:main")
    stranger = task(3, 95, wait=35.1, run=5)
    waits = waits_ms(tasks([first, second, stranger]), 2000)
    assert [round(wait) for wait in sorted(waits)] == [50, 50, 35100]
    running = task(4, 50, wait=0.05, run=None, session="b")
    behind = task(5, 45, wait=None, session="b")
    assert [round(wait) for wait in waits_ms(tasks([running, behind]), 2000)] == [50]


def test_a_queue_that_stands_still_is_no_quick_one() -> None:
    quick, stuck = even(30), [task(100 + n, 60, wait=None) for n in range(10)]
    assert p95(waits_ms(tasks([*quick, *stuck]), 2000)) == 60_000
    assert len(runs_ms(tasks([*quick, *stuck]))) == 30


async def test_a_full_page_is_judged_over_the_time_that_it_covers(node: Node) -> None:
    """At 300 tasks a minute the 500 that moved last are of the last 100 s."""
    now = node.clock.now()
    page = [
        {
            "taskId": str(number),
            "status": "completed",
            "createdAt": (now - number / 5 - 0.5) * 1000,
            "startedAt": (now - number / 5 - 0.4) * 1000,
            "endedAt": (now - number / 5) * 1000,
            "updatedAt": (now - number / 5) * 1000,
        }
        for number in range(500)
    ]
    node.stub.answers["tasks.list"] = {"tasks": page}
    checks = await node.read("throughput", "p95")
    assert 295 <= float(checks["throughput"].observed or 0) <= 305
    assert checks["throughput"].status is CheckStatus.PASS
    assert checks["p95"].observed == 100.0


async def test_slow_starts_fail_and_few_do_not(node: Node) -> None:
    now = node.clock.now()

    def listed(count: int, wait: float) -> dict[str, Any]:
        made = [now - 300 + number for number in range(count)]
        return {
            "tasks": [
                {
                    "taskId": str(number),
                    "sessionKey": str(number),
                    "status": "completed",
                    "createdAt": at * 1000,
                    "startedAt": (at + wait) * 1000,
                    "endedAt": (at + wait + 1) * 1000,
                    "updatedAt": (at + wait + 1) * 1000,
                }
                for number, at in enumerate(made)
            ]
        }

    node.stub.answers["tasks.list"] = listed(19, 9.0)
    assert "too few" in (await node.read("p95"))["p95"].reason
    node.clock.advance(15)
    node.stub.answers["tasks.list"] = listed(40, 9.0)
    check = (await node.read("p95", "throughput"))["p95"]
    assert check.status is CheckStatus.FAIL
    assert "9000 ms" in check.reason
    assert [round(each.value) for each in node.history.since("start_p95_ms", 0)] == [9000]
    assert [round(each.value) for each in node.history.since("run_p95_ms", 0)] == [1000]
    assert node.stub.calls.count("tasks.list") == 4, "both probes share one reading"
    node.clock.advance(15)
    node.started = now - 60
    checks = await node.read("p95", "throughput")
    assert "too early" in checks["throughput"].reason
    assert "too few" in checks["p95"].reason


async def test_versions_of_plugins_are_compared_once_for_each_process(
    node: Node, tmp_path: Path
) -> None:
    """That costs a CLI; whether they are loaded is asked each time."""
    script = f'echo run >> {tmp_path}/runs; echo \'{{"pluginVersionDrift": {{"drifts": []}}}}\''
    node.openclaw = replace(node.openclaw, program=("/bin/sh", "-c", script))
    probe = PluginProbe(
        node.gateway, node.current, node.alive, tmp_path / "tree", node.clock, 15.0, 3600.0
    )

    def runs() -> int:
        return len((tmp_path / "runs").read_text().splitlines())

    node.says(NEW, health="call-health")
    for _ in range(3):
        assert (await probe.read()).status is CheckStatus.PASS
    assert runs() == 1
    node.started += 60
    await probe.read()
    assert runs() == 2, "another process may be another core"
    node.clock.advance(3601)
    await probe.read()
    assert runs() == 3
    health = sample(NEW, "call-health")
    node.stub.answers["health"] = {**health, "plugins": {"loaded": [], "errors": ["discord"]}}
    assert (await probe.read()).status is CheckStatus.FAIL
    assert runs() == 3


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize("name", ["call-status", "call-status-busy"])
async def test_the_running_version_where_only_the_cli_is_let_in(
    node: Node, version: str, name: str
) -> None:
    node.stub.refusal = {"code": "INVALID_REQUEST", "message": "device identity required"}
    script = f"cat {SAMPLES / version / name}.json"
    openclaw = replace(node.openclaw, program=("/bin/sh", "-c", script))
    assert await node.gateway.running_version(openclaw) == version
    node.stub.refusal, node.stub.version = None, "2026.8.1"
    node.clock.advance(3600)
    assert await node.gateway.running_version(openclaw) == "2026.8.1", "the greeting says it too"
