"""Children: bounded, and ended with whoever ran them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from shared.command import CHILD_OF, end_children_of, run_command
from shared.errors import CommandError

ENV = {"PATH": "/usr/bin:/bin"}


async def test_output_code_and_the_last_words() -> None:
    done = await run_command(
        ["/bin/sh", "-c", "echo out; echo why >&2; exit 3"], env=ENV, timeout_s=10
    )
    assert (done.code, done.stdout, done.last_line()) == (3, b"out\n", "why")


async def test_a_child_that_prints_without_end_is_ended() -> None:
    with pytest.raises(CommandError, match="more than"):
        await run_command(["/usr/bin/yes"], env=ENV, timeout_s=30, max_output=1 << 16)


async def test_what_cannot_be_started_says_so() -> None:
    with pytest.raises(CommandError, match="cannot run /nowhere"):
        await run_command(["/nowhere"], env=ENV, timeout_s=1)


async def test_a_cancelled_call_leaves_no_child(tmp_path: Path) -> None:
    argv = ["/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 300"]
    call = asyncio.create_task(run_command(argv, env=ENV, timeout_s=300))
    async with asyncio.timeout(60):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            await asyncio.sleep(0.02)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_children_of_a_killed_agent_are_ended_and_nobody_elses(tmp_path: Path) -> None:
    """P4: a `doctor --fix` must not go on writing while the next agent rolls back."""
    argv = [sys.executable, "-c", "import time; time.sleep(300)"]
    ours = subprocess.Popen(argv, env={**ENV, CHILD_OF: str(tmp_path)}, start_new_session=True)
    other = subprocess.Popen(argv, env={**ENV, CHILD_OF: f"{tmp_path}-2"}, start_new_session=True)
    try:
        while psutil.Process(ours.pid).environ().get(CHILD_OF) is None:
            pass
        assert end_children_of(str(tmp_path)) == 1
        assert not psutil.pid_exists(ours.pid)
        assert other.poll() is None
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()
