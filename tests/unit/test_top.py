"""What `rollcall-agent top` makes of a node's answers, at a terminal and in a pipe."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from rich.console import Console

from agent.cli.watched import Watched, check_rows, plain, screen, series_rows
from agent.history_api import PATH, history_route
from agent.layout import Layout
from agent.readiness.history import History
from shared.http import application
from shared.readiness import ReadinessDocument

T0 = 1_800_000_000.0
ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30


def check(name: str, status: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "status": status, **more}


DOCUMENT = {
    "node": "canary",
    "status": "red",
    "reason": "leak: memory grows",
    "at": T0,
    "checks": [
        check("tree", "pass", observed="a" * 64, age_s=3.0),
        check("memory", "pass", observed=float(GIB), unit="bytes", limit=4.0 * GIB, age_s=1.2),
        check("leak", "fail", observed=1048576.0, unit="bytes/s", at=T0 - 7, reason="it grows"),
        check("queue", "warn", reason="long"),
    ],
    "comparable": {
        "release": None,
        "core_on_disk": None,
        "core_running": None,
        "plugins": {},
        "lock_sha256": None,
        "tree_sha256": None,
        "doctor": [],
        "config_schema": None,
    },
    "ready_probe_sha256": "b" * 64,
    "evidence_sha256": "c" * 64,
}
REPORT = {
    "node": "canary",
    "agent_version": "0.1.0",
    "version_running": "2026.9.6",
    "readiness": {"status": "red"},
    "weight": 25,
    "waiting": "frozen by a red",
    "peers": {"stable": "mdns", "witness": ""},
    "open_reds": ["canary: leak [canary:1:1]"],
    "upgrade": {
        "order": "a1b2c3d4:canary",
        "release": "a" * 64,
        "phase": "soaking",
        "detail": "soaking on: leak has seen 40 s of 150 s",
        "began": T0,
    },
}


def history() -> History:
    made = History()
    for place in range(720):
        at = T0 - 3600 + place * 5
        made.note("memory_bytes", at, GIB + place * (1 << 20))
        made.note("queue_depth", at, float(place % 7))
    return made


class Answers:
    """An agent's answers; `asked` is what was asked for."""

    def __init__(self) -> None:
        self.history, self.asked = history(), list[str]()

    async def __call__(self, path: str) -> bytes:
        self.asked.append(path)
        if path == "/v1/readiness":
            return json.dumps(DOCUMENT).encode()
        if path == "/v1/status":
            return json.dumps(REPORT).encode()
        since = float(path.partition("since=")[2] or 0)
        found = {
            name: [[each.at, each.value] for each in self.history.since(name, since)]
            for name in self.history.names()
        }
        return json.dumps({"samples": found}).encode()


async def watched() -> tuple[Watched, Answers]:
    seen, answers = Watched(), Answers()
    await seen.refresh(answers)
    return seen, answers


def test_what_needs_a_person_comes_first() -> None:
    rows = check_rows(ReadinessDocument.from_value(DOCUMENT))
    assert [row[1] for row in rows] == ["leak", "queue", "tree", "memory"]
    assert rows[0] == ["fail", "leak", "1.0 MiB/s", "", "7 s", "it grows"]
    assert rows[2][2] == "a" * 19 + "…"
    assert rows[3][2:5] == ["1024 MiB", "4096 MiB", "1 s"]


async def test_a_pipe_gets_everything_in_columns() -> None:
    seen, _ = await watched()
    lines = plain(seen)
    assert lines[0] == "canary  OpenClaw 2026.9.6  red  weight 25 %"
    assert "upgrade  soaking, soaking on: leak has seen 40 s of 150 s" in lines
    assert "waits    frozen by a red" in lines
    assert "peers    stable (mdns), witness (not found)" in lines
    assert "red      canary: leak [canary:1:1]" in lines
    assert "fail\tleak\t1.0 MiB/s\t\t7 s\tit grows" in lines
    assert not any("\x1b" in line for line in lines)


async def test_memory_has_its_slope_and_its_ceiling() -> None:
    seen, _ = await watched()
    memory = series_rows(seen, 24)[0]
    assert memory[0] == "memory"
    assert (len(memory[1]), memory[1][0], memory[1][-1]) == (24, "▁", "█")
    assert memory[2] == "1743 MiB"
    assert memory[3] == "12 MiB/min, ceiling 4096 MiB"
    assert seen.as_json()["series"]["memory_bytes"]["slope_per_s"] == pytest.approx(209715.2)


async def test_only_what_is_new_is_asked_for_again() -> None:
    seen, answers = await watched()
    before = len(seen.series["memory_bytes"])
    answers.history.note("memory_bytes", T0 + 5, 1.0)
    await seen.refresh(answers)
    assert answers.asked[2] == f"{PATH}?points=600"
    assert answers.asked[5].startswith(f"{PATH}?points=600&since=")
    assert len(seen.series["memory_bytes"]) == before + 1
    assert seen.series["memory_bytes"][-1].value == 1.0


async def test_the_screen_says_when_nobody_answers() -> None:
    seen, _ = await watched()
    console = Console(width=100, record=True, file=StringIO())
    console.print(screen(seen, 100))
    assert "Ctrl-C ends" in console.export_text()
    seen.away = "no agent is running"
    console.print(screen(seen, 100))
    shown = console.export_text()
    assert "no answer: no agent is running" in shown
    assert "leak" in shown


@pytest.fixture
async def agent_home(tmp_path: Path) -> AsyncIterator[Path]:
    """A home whose socket answers as an agent does."""
    home = tmp_path / "agent"
    home.mkdir()

    async def readiness(_: web.Request) -> web.Response:
        return web.json_response(DOCUMENT)

    async def status(_: web.Request) -> web.Response:
        return web.json_response(REPORT)

    measured = History()
    for place in range(720):
        measured.note("memory_bytes", time.time() - 3600 + place * 5, GIB + place * (1 << 20))
    app = application()
    app.router.add_get("/v1/readiness", readiness)
    app.router.add_get("/v1/status", status)
    app.router.add_get(PATH, history_route(measured))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, str(Layout(home).socket)).start()
    yield home
    await runner.cleanup()


def argv(home: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "agent", "top", "--home", str(home), *words]


async def test_ctrl_c_ends_it_and_gives_the_terminal_back(agent_home: Path) -> None:
    code, shown = await asyncio.to_thread(interrupt, agent_home)
    assert code == 0, shown.decode(errors="replace")
    for on, off in ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h")):
        assert shown.count(on) == shown.count(off) == 1
    assert b"Traceback" not in shown


def interrupt(home: Path) -> tuple[int, bytes]:
    """Exit code and everything that it wrote to a terminal on which Ctrl-C was pressed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(  # noqa: S606
            sys.executable, argv(home), {**os.environ, "TERM": "xterm-256color"}
        )
    shown, ends = b"", time.monotonic() + 60
    while b"Ctrl-C ends" not in shown and time.monotonic() < ends:
        shown += read(terminal)
    os.write(terminal, b"\x03")
    while more := read(terminal, patience=20):
        shown += more
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown


def read(terminal: int, patience: float = 1.0) -> bytes:
    """What it shows next; nothing when it has ended."""
    if not select.select([terminal], [], [], patience)[0]:
        return b""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


async def test_in_a_pipe_it_shows_everything_once(agent_home: Path) -> None:
    async def run(*words: str) -> str:
        done = await asyncio.to_thread(
            subprocess.run, argv(agent_home, *words), cwd=ROOT, capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return str(done.stdout.decode())

    assert (await run()).startswith("canary  OpenClaw 2026.9.6  red")
    value = json.loads(await run("--json"))
    assert (value["schemaVersion"], value["report"]["weight"]) == (1, 25)
    assert set(value["series"]) == {"memory_bytes"}


def test_where_no_agent_runs_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        argv(tmp_path, "--once"), cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert b"no agent is running" in done.stderr
