"""Helper of the rival's playbook. Standard library only.

`start NODE TREE HOME PORT` starts a gateway and waits until it is ready; `stop HOME` ends it; `try NODE HOME TREE` does
both on a spare port; `look PORT APART` finds one ready three times, so many seconds apart."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 30.0
POLL_S = 0.02
LOOKS = 3


def start(node: str, tree: str, home: str, port: str) -> int:
    began = time.monotonic()
    entry = f"{tree}/node_modules/.bin/openclaw"
    child = subprocess.Popen(
        [node, entry, "gateway", "--port", port],
        env={**os.environ, "HOME": home},
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    Path(home, "pid").write_text(str(child.pid))
    while not ready(port):
        if child.poll() is not None or time.monotonic() - began > PATIENCE_S:
            return 1
        time.sleep(POLL_S)
    return 0


def attempt(node: str, home: str, tree: str) -> int:
    with socket.create_server(("127.0.0.1", 0)) as spare:
        port = spare.getsockname()[1]
    return start(node, tree, home, str(port)) or stop(home)


def look(port: str, apart: str) -> int:
    for number in range(LOOKS):
        time.sleep(float(apart) if number else 0)
        if not ready(port):
            return 1
    return 0


def ready(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def stop(home: str) -> int:
    pid = int(Path(home, "pid").read_text())
    os.kill(pid, signal.SIGTERM)
    began = time.monotonic()
    while Path(f"/proc/{pid}").exists() and time.monotonic() - began < PATIENCE_S:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        if state == "Z":
            break
        time.sleep(POLL_S)
    return 0


COMMANDS: dict[str, Callable[..., int]] = {
    "start": start,
    "stop": stop,
    "try": attempt,
    "look": look,
}

if __name__ == "__main__":
    raise SystemExit(COMMANDS[sys.argv[1]](*sys.argv[2:]))
