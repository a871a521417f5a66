from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from agent.service.exits import until_ended
from agent.starting import Asked, plain_run


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


def test_a_daemon_is_started_without_what_only_people_need() -> None:
    """What a service manager starts must not grow by what a command line imports."""
    code = """
import sys
from agent.starting import plain_run
import agent.cli, agent.daemon
print([each for each in ("typer", "rich", "pygments", "greenlet", "json5", "plistlib", "difflib")
       if each in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_only_what_a_service_manager_says_bypasses_the_command_line() -> None:
    assert plain_run(["run", "--home", "/h"]) == Asked(Path("/h"))
    for words in (["run"], ["run", "--home"], ["run", "--home", "--json"], ["run", "--help"], []):
        assert plain_run(words) is None


def test_what_was_kept_out_can_be_imported_afterwards() -> None:
    code = """
import os, ssl, sys
from agent.starting import make_daemon
from shared.lean import no_system_authorities
with no_system_authorities():
    assert ssl.create_default_context().cert_store_stats()["x509_ca"] == 0
    import agent.daemon
assert "SSL_CERT_FILE" not in os.environ and "urllib3" not in sys.modules
import rich, greenlet, structlog, tuf.ngclient.urllib3_fetcher
structlog.get_logger().info("still logs")
"""
    env = {key: value for key, value in os.environ.items() if not key.startswith("SSL_")}
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert "still logs" in done.stdout
