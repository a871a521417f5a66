"""The door that only reads: what load balancers, Prometheus and people get of the document."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient

from agent.metrics import render
from agent.readiness.history import History
from agent.readiness.publishing import Published
from agent.reading_api import reading_app
from agent.upgrade.phases import Phase
from scripts.debian import need
from shared.comparing import verify
from shared.exposition import Process
from shared.freezing import By, Freeze
from shared.messages import Verdict
from shared.readiness import (
    SCHEMA_ID,
    Check,
    CheckStatus,
    ReadinessDocument,
    evidence_sha256,
    read_document,
)
from shared.report import Absence, NodeReport, ReadinessSummary, UpgradeReport
from tests.unit.test_document import published

EVIDENCE = {"tree": b"\x00tree", "gateway": b'{"ready":true}', "memory": b""}
CHECKS = [
    Check(id="gateway", status=CheckStatus.PASS, observed="ready", at=1.8e9, age_s=0.4),
    Check(
        id="memory",
        status=CheckStatus.WARN,
        observed=5.5e8,
        unit="bytes",
        limit=4.5e9,
        at=1.8e9,
        age_s=1.0,
        reason="it grows",
    ),
    Check(id="doctor", status=CheckStatus.FAIL, reason="core/doctor/x:\nbroken", age_s=9.0),
    Check(id="queue", status=CheckStatus.UNKNOWN, reason="no answer within 60 s"),
]
FAILING = {"checks": CHECKS, "status": Verdict.RED, "reason": "doctor: broken"}


class Node:
    """What the door asks of a daemon."""

    def __init__(self) -> None:
        self.percent, self.now = 100, published(evidence_sha256=evidence_sha256(EVIDENCE))
        self.told: list[tuple[str | None, str]] = []
        self.history = History()

    def published(self) -> Published:
        return Published(self.now.document, EVIDENCE)

    def weight(self) -> int:
        return self.percent

    def told_readiness(self, address: str | None, told: str) -> None:
        self.told.append((address, told))

    async def report(self) -> NodeReport:
        return NodeReport(
            node="a",
            agent_version="0.1.0",
            release="a" * 64,
            version_on_disk="2026.9.6",
            version_running="2026.9.6",
            readiness=ReadinessSummary(status=self.now.document.status),
            upgrade=UpgradeReport(order="00000000:a", release="a" * 64, phase="soaking", began=0.0),
            open_reds=["a: x [a:1:1]", "b: y [b:1:1]", "b: z [b:1:2]"],
            frozen_by=["b:1:1"],
            freezes=[
                Freeze(by=By.RED, who="b", why="y", since=0.0, key="b:1:1", kind="stuck", node="a")
            ],
            peers={"b": "mdns", "c": "", "d": "static", "e": "static"},
            away={"c": Absence(since=1.0), "d": Absence(since=2.0, left=True)},
            dropped={"stale": 3, "bad-signature": 1},
        )

    async def roll_back(self, reason: str) -> NodeReport:
        return await self.report()

    async def clear(self, key: str, reason: str) -> None: ...

    async def change_keys(self) -> str:
        return ""


Client = TestClient[web.Request, web.Application]
Clients = Callable[[web.Application], Awaitable[Client]]


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
async def client(node: Node, aiohttp_client: Clients) -> Client:
    return await aiohttp_client(reading_app(node))


async def value_of(answer: ClientResponse) -> Any:
    return json.loads(await answer.read())


async def test_who_has_the_document_already_is_told_so(client: Client, node: Node) -> None:
    first = await client.get("/v1/readiness")
    etag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "no-cache"
    assert await first.read() == node.now.body
    for known in (etag, f'"x", {etag}', etag.removeprefix("W/"), "*"):
        again = await client.get("/v1/readiness", headers={"If-None-Match": known})
        assert (again.status, again.headers["ETag"], await again.read()) == (304, etag, b"")
    node.now = published(status=Verdict.RED, reason="x")
    changed = await client.get("/v1/readiness", headers={"If-None-Match": etag})
    assert (changed.status, (await value_of(changed))["status"]) == (200, "red")


async def test_a_verbose_document_proves_its_own_evidence(client: Client) -> None:
    raw = await (await client.get("/v1/readiness?verbose")).read()
    value, document = read_document(raw)
    found = verify(value, document)
    assert "evidence_sha256" in found.checked
    assert not any("evidence" in each for each in found.differences)


async def test_a_nonce_comes_back_and_is_bounded(client: Client) -> None:
    answer = await client.get("/v1/readiness", params={"nonce": "f" * 64})
    assert (await value_of(answer))["nonce"] == "f" * 64
    assert "ETag" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"
    assert (await client.get("/v1/readiness", params={"nonce": "f" * 65})).status == 400


async def test_checks_can_be_left_out_of_the_verdict(client: Client, node: Node) -> None:
    node.now = published(**FAILING)
    answer = await client.get("/v1/readiness?exclude=doctor&exclude=queue")
    value = await value_of(answer)
    assert (value["status"], value["excluded"]) == ("green", ["doctor", "queue"])
    wrong = await client.get("/v1/readiness?exclude=docter")
    assert wrong.status == 400
    said = await value_of(wrong)
    assert "no check is called 'docter'" in said["detail"]
    assert said["remedy"] == "one of doctor, gateway, memory, queue"


async def test_readyz_is_ready_only_when_green_and_open(client: Client, node: Node) -> None:
    answer = await client.get("/readyz")
    assert (answer.status, await value_of(answer)) == (200, {"ready": True})
    node.percent = 0
    answer = await client.get("/readyz")
    assert (answer.status, (await value_of(answer))["reason"]) == (503, "drained")
    assert (await client.get("/readyz?exclude=traffic")).status == 200
    node.percent, node.now = 1, published(**FAILING)
    answer = await client.get("/readyz")
    assert (answer.status, (await value_of(answer))["reason"]) == (503, "doctor: broken")
    assert (await client.get("/readyz?exclude=doctor")).status == 503, "the queue is unknown"
    assert (await client.get("/readyz?exclude=doctor&exclude=queue")).status == 200
    assert (await client.get("/readyz?exclude=nothing")).status == 400


async def test_readyz_says_a_line_a_check(client: Client, node: Node) -> None:
    node.now = published(**FAILING)
    answer = await client.get("/readyz?verbose&exclude=queue")
    assert (answer.status, answer.content_type) == (503, "text/plain")
    assert (await answer.text()).splitlines() == [
        "[+]gateway ok",
        "[+]memory warns: it grows",
        "[-]doctor failed: core/doctor/x: broken",
        "[+]queue excluded: unknown",
        "[+]traffic ok",
        "readyz check failed",
    ]


async def test_readyz_speaks_health_json_to_who_accepts_it(client: Client, node: Node) -> None:
    node.now = published(**FAILING)
    for accept in ("application/json", "text/html;q=0.1, application/health+json"):
        answer = await client.get("/readyz?verbose", headers={"Accept": accept})
        assert (answer.status, answer.content_type) == (503, "application/health+json")
        value = await value_of(answer)
        assert (value["status"], value["output"]) == ("fail", "doctor: broken")
        assert {name: found[0]["status"] for name, found in value["checks"].items()} == {
            "gateway": "pass",
            "memory": "warn",
            "doctor": "fail",
            "queue": "fail",
            "traffic": "pass",
        }
        assert value["checks"]["memory"][0]["observedUnit"] == "bytes"
        assert value["checks"]["gateway"][0]["time"] == "2027-01-15T08:00:00Z"
    relaxed = await client.get(
        "/readyz?verbose&exclude=doctor&exclude=queue", headers={"Accept": "application/json"}
    )
    assert (await value_of(relaxed))["status"] == "warn"


async def test_the_schema_is_at_the_door(client: Client) -> None:
    answer = await client.get("/v1/readiness/schema")
    assert answer.content_type == "application/schema+json"
    assert (await value_of(answer))["$id"] == SCHEMA_ID


async def test_prometheus_accepts_the_metrics(client: Client, node: Node) -> None:
    await asyncio.to_thread(need, "promtool", "prometheus")
    node.now = published(**FAILING)
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    raw = await answer.read()
    checked = await asyncio.to_thread(
        subprocess.run, ["promtool", "check", "metrics"], input=raw, capture_output=True
    )
    assert (checked.returncode, checked.stderr + checked.stdout) == (0, b"")
    lines = raw.decode().splitlines()
    for line in (
        'rollcall_build_info{version="0.1.0",python=',
        'rollcall_readiness{status="red"} 1',
        'rollcall_readiness{status="green"} 0',
        'rollcall_check_status{check="doctor",status="fail"} 1',
        'rollcall_check_status{check="doctor",status="pass"} 0',
        'rollcall_check_value{check="memory",unit="bytes"} 550000000',
        'rollcall_check_limit{check="memory",unit="bytes"} 4500000000',
        'rollcall_check_age_seconds{check="gateway"} 0.4',
        'rollcall_upgrade_phase{phase="soaking"} 1',
        'rollcall_upgrade_phase{phase="done"} 0',
        'rollcall_open_reds{origin="own"} 1',
        'rollcall_open_reds{origin="peer"} 2',
        "rollcall_frozen 1",
        'rollcall_freezes{by="hand"} 0',
        'rollcall_freezes{by="red"} 1',
        'rollcall_peers{found="static"} 2',
        'rollcall_peers{found="none"} 1',
        'rollcall_away_peers{how="silent"} 1',
        'rollcall_away_peers{how="left"} 1',
        'rollcall_dropped_messages_total{reason="stale"} 3',
        "rollcall_traffic_weight_ratio 1",
        "process_resident_memory_bytes ",
        "process_open_fds ",
    ):
        assert any(each.startswith(line) for each in lines), line


async def test_labels_are_escaped_and_every_state_is_there(node: Node) -> None:
    report = (await node.report()).model_copy(
        update={"dropped": {'a"b\\c\nd': 1}, "upgrade": None, "peers": {}}
    )
    document: ReadinessDocument = published(checks=[]).document
    text = render(report, document, 25, Process(1.5, 1, 2, 3.25, 4))
    assert r'rollcall_dropped_messages_total{reason="a\"b\\c\nd"} 1' in text
    assert "rollcall_traffic_weight_ratio 0.25" in text
    assert "rollcall_check" not in text, "no family without samples"
    for phase in Phase:
        assert f'rollcall_upgrade_phase{{phase="{phase}"}} 0\n' in text
