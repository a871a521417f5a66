from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from agent.service.exits import until_ended


async def test_the_end_of_a_process_is_told_at_once() -> None:
    child = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-c", "input()"], stdin=subprocess.PIPE
    )
    assert not await until_ended(child.pid, 0.05)
    waiting = asyncio.create_task(until_ended(child.pid, 30))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    child.kill()
    assert await waiting
    assert time.monotonic() - began < 5
    assert await until_ended(child.pid, 30), "a zombie has ended"
    await asyncio.to_thread(child.communicate)
    assert await until_ended(child.pid, 30), "and so has one that is gone"
