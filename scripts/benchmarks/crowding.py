"""A coordinator's home in which many nodes have joined and been heard already, and what these nodes send.

Made by the coordinator's own functions, without its API: thousands of joins would take longer than what is to be
measured.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import insert

from coordinator.ca import Authority
from coordinator.home import HomePaths, KeyRing, open_home
from coordinator.store.database import Database
from coordinator.store.tables import heartbeats, nodes
from scripts.benchmarks.beats import AUTHORITY
from shared.durable import private_directory
from shared.envelope import ROSTER, open_envelope
from shared.keys import SigningKey
from shared.messages import Verdict
from shared.nodes import NodeHealth
from shared.protocol import HEADER, SPOKEN
from shared.report import (
    NodeReport,
    ReadinessSummary,
    SyncAnswer,
    SyncRequest,
    Trend,
)
from shared.roster import COORDINATOR_HOST, MAX_ROSTER_BYTES, Roster
from shared.tls import key_pem, make_key

PEERS = 9
"""Of each node: a mesh of ten."""
SERIES = (
    ("memory_bytes", "bytes"),
    ("tasks_per_minute", "tasks/min"),
    ("start_p95_ms", "ms"),
    ("queue_depth", "tasks"),
    ("loop_p99_ms", "ms"),
)
POINTS = 30
SAME = 5
"""A node that has nothing to say speaks every 12 s, and what it has measured changes once a minute."""


def names(count: int) -> list[str]:
    return [f"node-{number:04}" for number in range(count)]


def report_of(name: str, minute: int) -> NodeReport:
    """What an agent says of a gateway that is well."""
    chance = random.Random(f"{name} {minute}")  # noqa: S311 - the same numbers each time, and nothing secret
    number = int(name.rpartition("-")[2])
    first = number - number % (PEERS + 1)
    peers = {f"node-{first + each:04}": "mdns" for each in range(PEERS + 1)}
    peers.pop(name)
    return NodeReport(
        node=name,
        agent_version="0.9.0",
        protocol=SPOKEN,
        release=_hash("release"),
        version_on_disk="2026.7.35",
        version_running="2026.7.35",
        readiness=ReadinessSummary(
            status=Verdict.GREEN,
            ready_probe_sha256=_hash("ready"),
            evidence_sha256=_hash(f"evidence {name} {minute}"),
        ),
        peers=peers,
        addresses=[f"10.0.{number >> 8}.{number & 255}:7465"],
        urls={"readiness": f"http://10.0.{number >> 8}.{number & 255}:7464"},
        roster_epoch=1,
        certificate_expires=2e9,
        weight=100,
        health=NodeHealth(
            window_s=3600 + 60.0 * minute,
            uptime=99.9,
            ready=99.5,
            error_rate=round(chance.uniform(0, 1), 2),
            start_p95_ms=round(chance.uniform(100, 900), 1),
        ),
        trends=[
            Trend(
                name=series,
                unit=unit,
                values=[_digits(chance.uniform(1, 900)) for _ in range(POINTS)],
            )
            for series, unit in SERIES
        ],
    )


async def make_home(paths: HomePaths, count: int) -> KeyRing:
    """Keys, authority and a database with so many nodes, each heard once."""
    now = time.time()
    private_directory(paths.root)
    ring = open_home(paths, "bench", now)
    rows = [
        {
            "name": name,
            "role": "stable",
            "key": SigningKey.generate().public.ed25519,
            "joined": 0.0,
            "report": report_of(name, 0).model_dump(mode="json"),
        }
        for name in names(count)
    ]
    database = await Database.open(paths.database)
    try:
        async with database.write() as db:
            await db.execute(insert(nodes), rows)
            heard = [{"name": row["name"], "at": now} for row in rows]
            await db.execute(insert(heartbeats), heard)
    finally:
        await database.close()
    return ring


def make_identities(folder: Path, authority: Authority, wanted: Sequence[str]) -> None:
    """`NAME.pem` for each, and the authority. Blocking."""
    private_directory(folder)
    now = datetime.datetime.now(datetime.UTC)
    (folder / AUTHORITY).write_text(authority.pem)
    for name in wanted:
        key = make_key()
        pem = authority.issue(name, key.public_key(), now)
        (folder / f"{name}.pem").write_bytes(key_pem(key) + pem.encode())


def write_requests(
    folder: Path, wanted: Sequence[str], known: SyncAnswer, number: tuple[int, int], wait_s: float
) -> None:
    """What each node sends, again and again: two minutes, each heartbeat of which it says the same. They know
    already what `known` says: nothing in it is news. Blocking."""
    for name in wanted:
        said = [
            as_http(
                SyncRequest(
                    report=report_of(name, minute),
                    wait_s=wait_s,
                    roster=number,
                    repository=known.repository,
                    addresses="" if known.addresses is None else known.addresses.tag,
                    traffic="" if known.traffic is None else known.traffic.tag,
                    orders="",
                )
            )
            for minute in (1, 2)
        ]
        requests = [text for text in said for _ in range(SAME)]
        (folder / f"{name}.requests").write_text(json.dumps(requests))


def as_http(request: SyncRequest) -> str:
    body = request.model_dump_json()
    head = (
        f"POST /v1/sync HTTP/1.1\r\nHost: {COORDINATOR_HOST}\r\nContent-Type: application/json\r\n"
        f"Accept-Encoding: identity\r\n{HEADER}: {SPOKEN.header}\r\n"
        f"Content-Length: {len(body.encode())}\r\n\r\n"
    )
    return head + body


def roster_number(ring: KeyRing, raw: str) -> tuple[int, int]:
    opened = open_envelope(
        raw.encode(), ROSTER, [ring.current.roster.public], max_bytes=MAX_ROSTER_BYTES
    )
    return Roster.from_bytes(opened.payload, max_bytes=MAX_ROSTER_BYTES).number


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _digits(value: float) -> float:
    """Three of them, as an agent has them."""
    return float(f"{value:.3g}")
