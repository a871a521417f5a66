"""Helper of the rival's playbook: `run LOG argv…` times a command, `start LOG NODE HOME PORT` starts a
gateway and waits until it is ready, `stop HOME` ends it. Standard library only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 30.0


def write(log: str, seconds: float) -> None:
    with Path(log).open("a") as file:
        file.write(f"{seconds:.4f}\n")


def run(log: str, *argv: str) -> int:
    began = time.monotonic()
    code = subprocess.run(argv, check=False).returncode
    write(log, time.monotonic() - began)
    return code


def start(log: str, node: str, home: str, port: str) -> int:
    began = time.monotonic()
    entry = f"{home}/current/node_modules/.bin/openclaw"
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
        time.sleep(0.02)
    write(log, time.monotonic() - began)
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
        time.sleep(0.02)
    return 0


COMMANDS: dict[str, Callable[..., int]] = {"run": run, "start": start, "stop": stop}

if __name__ == "__main__":
    raise SystemExit(COMMANDS[sys.argv[1]](*sys.argv[2:]))
