"""Asks one gateway every 20 ms whether it is ready, from a process of its own, and writes down what came
back: nothing that is measured can slow it down, and every side has the same.

`prober PORT FILE` runs until it is killed. A new connection each time, as a load balancer's check makes.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from pathlib import Path

from scripts.benchmarks.outages import Answer

PERIOD_S = 0.02
PATIENCE_S = 1.0


def ask(port: int) -> Answer:
    """Blocking, at most about `PATIENCE_S`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        raw = response.read(1 << 16)
    except ConnectionRefusedError:
        return Answer.REFUSED
    except (OSError, http.client.HTTPException):
        return Answer.BROKEN
    finally:
        connection.close()
    return judge(response.status, response.headers.get_content_type(), raw)


def judge(status: int, kind: str, raw: bytes) -> Answer:
    try:
        value = json.loads(raw) if kind == "application/json" else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return Answer.STRANGE
    return Answer.GOOD if status == 200 and value.get("ready") is True else Answer.UNREADY


def main(port: int, file: Path) -> None:
    due = time.monotonic()
    with file.open("w", buffering=1) as out:
        while True:
            answer = ask(port)
            now = time.monotonic()
            out.write(f"{now:.6f} {answer}\n")
            due = max(due + PERIOD_S, now)
            time.sleep(due - now)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
