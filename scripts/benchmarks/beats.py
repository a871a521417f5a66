"""The nodes of `sync`, as little of each as can be: one kept connection over mutual TLS, and requests that were
written beforehand. `beats PORT FOLDER HOST [hold]` connects once for each `NAME.pem` in FOLDER, whose requests are in
`NAME.requests`, and prints how many connections it has. Then, for each line `run SECONDS` on its standard input,
every node sends its next request as soon as it has an answer, until the seconds are over and the last answers
have come; what came of it is printed as one line of JSON. Each sends its first request as soon as it is connected: who
says nothing is turned away. With `hold` it goes on asking from then on.
"""

from __future__ import annotations

import itertools
import json
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.benchmarks.reply import missing_bytes

LAST_S = 60.0
"""For the last answers: a poll that waits takes 25 s at most."""
AUTHORITY = "ca.crt"
CHUNK = 1 << 16


class Node:
    """`waits` from the request's last byte to the answer's."""

    def __init__(self, port: int, folder: Path, identity: Path, host: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(folder / AUTHORITY)
        context.load_cert_chain(identity)
        plain = socket.create_connection(("127.0.0.1", port), LAST_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname=host)
        self.socket.setblocking(False)
        written = json.loads(identity.with_suffix(".requests").read_text())
        self._requests: Iterator[bytes] = itertools.cycle([each.encode() for each in written])
        self._answer = b""
        self.waits = False

    def send(self) -> None:
        self.socket.sendall(next(self._requests))
        self.waits = True

    def take(self) -> bool:
        """Read what there is; whether an answer is complete. Raises OSError for one that is no 200."""
        try:
            while chunk := self.socket.recv(CHUNK):
                self._answer += chunk
            raise ConnectionResetError("the server ended the connection")
        except ssl.SSLWantReadError:
            pass
        if not self.waits or missing_bytes(self._answer) != 0:
            return False
        self._answer, self.waits = b"", False
        return True


def turn(selector: selectors.BaseSelector, patience_s: float, *, again: bool) -> int:
    """Take what has come; with `again` those nodes ask anew. Returns how many answers were complete."""
    answers = 0
    for key, _ in selector.select(patience_s):
        if key.data.take():
            answers += 1
            if again:
                key.data.send()
    return answers


def run(nodes: list[Node], selector: selectors.BaseSelector, seconds: float) -> dict[str, float]:
    began, answers = time.monotonic(), 0
    ends = began + seconds
    for node in nodes:
        if not node.waits:
            node.send()
    while (now := time.monotonic()) < ends:
        answers += turn(selector, ends - now, again=True)
    waiting = sum(node.waits for node in nodes)
    while waiting:
        found = turn(selector, LAST_S, again=False)
        if time.monotonic() > ends + LAST_S:
            raise TimeoutError(f"{waiting} nodes had no answer for {LAST_S:g} s")
        answers, waiting = answers + found, waiting - found
    return {"answers": answers, "seconds": time.monotonic() - began}


def main() -> None:
    port, folder, host, holds = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
    selector = selectors.DefaultSelector()
    nodes = []
    for each in sorted(folder.glob("*.pem")):
        node = Node(port, folder, each, host)
        nodes.append(node)
        selector.register(node.socket, selectors.EVENT_READ, node)
        node.send()
        turn(selector, 0, again=bool(holds))
    _say({"connected": len(nodes)})
    for line in sys.stdin:
        _say(run(nodes, selector, float(line.removeprefix("run "))))


def _say(value: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
