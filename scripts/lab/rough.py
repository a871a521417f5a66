"""`python -m scripts.lab.rough [--delay S] [--copies N] [--shuffle S] PORT...`: a switch that holds every frame back,
carries it several times, and not in order.

In user space, because netem is not in every kernel: one raw socket on each port, all in this network namespace. Says
a line when it has begun; ends with SIGTERM, or when stdin does.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import random
import selectors
import socket
import struct
import sys
import time

ETH_P_ALL = 3
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_VNET_HDR = 263, 1, 15
PACKET_MR_PROMISC = 1
PACKET_OUTGOING = 4
"""All of <linux/if_packet.h>."""
HEAD = 10
"""Bytes of the virtio header before a frame: through it go checksums that are not there yet, and segments that are
not cut yet."""
LONGEST_FRAME = HEAD + (1 << 17)
LONGEST_WAIT_S = 0.2


def listen(port: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    made.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    made.bind((port, ETH_P_ALL))
    everything = struct.pack("iHH8s", socket.if_nametoindex(port), PACKET_MR_PROMISC, 0, b"")
    made.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, everything)
    return made


class Switch:
    """Learns where addresses are, as any switch does."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._delay, self._copies = options.delay, options.copies
        self._shuffle = options.shuffle
        self._ports = [listen(port) for port in options.ports]
        self._where: dict[bytes, socket.socket] = {}
        self._held: list[tuple[float, int, bytes, list[socket.socket]]] = []
        self._number = itertools.count()

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for each in (*self._ports, sys.stdin):
                selector.register(each, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(self._carry_due()):
                    if key.fileobj is sys.stdin:
                        return
                    self._take(next(port for port in self._ports if port is key.fileobj))

    def _carry_due(self) -> float:
        """Seconds until there is something to carry."""
        while self._held:
            due, _, frame, ports = self._held[0]
            if (wait := due - time.monotonic()) > 0:
                return min(wait, LONGEST_WAIT_S)
            heapq.heappop(self._held)
            for port in ports:
                with contextlib.suppress(OSError):
                    port.send(frame)
        return LONGEST_WAIT_S

    def _take(self, port: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, address = port.recvfrom(LONGEST_FRAME)
                if address[2] != PACKET_OUTGOING:
                    self._hold(frame, port)

    def _hold(self, frame: bytes, came: socket.socket) -> None:
        to, sender = frame[HEAD : HEAD + 6], frame[HEAD + 6 : HEAD + 12]
        self._where[sender] = came
        known = self._where.get(to)
        ports = [known] if known else [port for port in self._ports if port is not came]
        for _ in range(self._copies):
            due = time.monotonic() + self._delay + random.uniform(0, self._shuffle)  # noqa: S311
            heapq.heappush(self._held, (due, next(self._number), frame, ports))


def main() -> None:
    parser = argparse.ArgumentParser(prog="rough", description=__doc__)
    parser.add_argument("--delay", type=float, default=0.0, metavar="S", help="of every frame")
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument(
        "--shuffle", type=float, default=0.0, metavar="S", help="up to so much more"
    )
    parser.add_argument("ports", nargs="+", metavar="PORT")
    switch = Switch(parser.parse_args())
    print("ready", flush=True)
    switch.run()


if __name__ == "__main__":
    main()
