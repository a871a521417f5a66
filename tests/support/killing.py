"""One scene of changes at a coordinator, played undisturbed and played again while it is killed: what is in its home
afterwards, and what it has answered, must be the same."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from agent.layout import Layout
from shared.failpoint import REACHED
from tests.support.coordinatorkit import Reply
from tests.support.mortal import Mortal

LEFT_OUT = {
    "alembic_version",
    "alerts",
    "alert_deliveries",
    "heartbeats",
    "meta",
    "rosters",
    "sqlite_sequence",
}
"""Tables that a start or the passing of time changes."""
BY_ITSELF = "alert_events"
"""Alerts begin and end by themselves; what people did to them counts."""
SAID_ANEW = re.compile(r'"reason": "(pending|[^"]*; waits for [^"]*)"')
"""What a run of gates says of an order that waits, with its next look at it."""
HEX = re.compile(r"[0-9a-f]{8,}")
TEXT = re.compile(r"[A-Za-z0-9_=-]{30,}")
DIGITS = re.compile(r"\d+(\.\d+)?")
TRIES, BEAT_S = 50, 5.0


@dataclass
class Asked:
    """One request under a key: what came of it, and where the coordinator died."""

    action: str
    killed: list[str]
    points: list[str]
    status: int
    body: Any


@dataclass
class Trial:
    """`armed` says at which places the coordinator is killed during the n-th request. `beat` has the nodes say that
    they are there, now and then: each start takes its time, and who is silent counts as away."""

    mortal: Mortal
    beat: Callable[[], Awaitable[None]]
    armed: Callable[[int], Sequence[str]] = lambda _: ()
    asked: list[Asked] = field(default_factory=list)
    beaten: float = -float("inf")

    async def change(
        self,
        action: str,
        path: str,
        body: Any = None,
        *,
        node: Layout | None = None,
        match: str | None = None,
    ) -> Any:
        """Sends it until it is answered, under one key. Returns the answer's body."""
        method, mortal = action.split(maxsplit=1)[0], self.mortal
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        token = None if node is not None else mortal.settings.paths.token.read_text()
        await self._beat()
        armed = self.armed(len(self.asked))
        mortal.mother.arm(*armed)
        headers = {"Idempotency-Key": f"key-{len(self.asked)}"}
        if match is not None:
            headers["If-Match"] = match
        reply = await self._until_answered(method, path, token, node, raw, headers)
        killed = [each for each in armed if each not in mortal.mother.left()]
        points = self._points()
        mortal.mother.arm()
        again = await mortal.reply(method, path, token=token, node=node, body=raw, headers=headers)
        assert (again.status, again.body) == (reply.status, reply.body), action
        assert again.headers["Idempotency-Replayed"] == "true"
        self.asked.append(Asked(action, killed, points, reply.status, reply.body))
        assert reply.status < 300, (action, reply.body)
        return reply.body

    async def _beat(self) -> None:
        if time.monotonic() - self.beaten > BEAT_S:
            await self.beat()
            self.beaten = time.monotonic()

    async def _until_answered(
        self,
        method: str,
        path: str,
        token: str | None,
        node: Layout | None,
        raw: bytes,
        headers: dict[str, str],
    ) -> Reply:
        for _ in range(TRIES):
            try:
                return await self.mortal.reply(
                    method, path, token=token, node=node, body=raw, headers=headers
                )
            except (aiohttp.ClientError, ConnectionError):
                await self.mortal.live_again()
        raise AssertionError(f"{method} {path} was never answered")

    def _points(self) -> list[str]:
        """Every place that was reached, `name#2` the second time."""
        seen: Counter[str] = Counter()
        found = []
        for name in (self.mortal.mother.folder / REACHED).read_text().split():
            seen[name] += 1
            found.append(f"{name}#{seen[name]}")
        return found


def put_back(prepared: Path, home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(prepared, home)


def remains(home: Path) -> dict[str, Counter[str]]:
    """What a coordinator that is dead has left: rows by table, names of files, without what differs each time."""
    found = {}
    with sqlite3.connect(home / "coordinator.db") as db:
        db.row_factory = sqlite3.Row
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        for table in sorted(set(tables) - LEFT_OUT):
            rows = [dict(row) for row in db.execute(f'SELECT * FROM "{table}"')]  # noqa: S608
            if table == BY_ITSELF:
                rows = [row for row in rows if row["by"]]
            said = (json.dumps(plain(row), sort_keys=True) for row in rows)
            found[table] = Counter(SAID_ANEW.sub('"reason": ""', text) for text in said)
    db.close()
    for folder in ("blobs", "tuf/targets"):
        names = [path.name for path in (home / folder).iterdir()]
        found[folder] = Counter(plain(name) for name in names)
    return found


def plain(value: Any, key: str = "") -> Any:
    """Without times, ids, hashes and secrets."""
    if key in ("sha256", "prev", "id", "number", "generation", "revision", "body_sha256"):
        return None
    if isinstance(value, dict):
        return {name: plain(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, bytes):
        return len(value) > 0
    if isinstance(value, float) or (isinstance(value, int) and value > 10**6):
        return 0
    if not isinstance(value, str):
        return value
    if value[:1] == "{":
        return plain(json.loads(value))
    return DIGITS.sub("0", TEXT.sub("#", HEX.sub("#", value)))


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two JSON values differ, and how."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        return [
            each
            for key in keys
            for each in differences(one.get(key), other.get(key), f"{place}.{key}")
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [each for at, pair in pairs for each in differences(*pair, f"{place}[{at}]")]
    return [] if one == other else [f"{place}: {one!r} != {other!r}"]
