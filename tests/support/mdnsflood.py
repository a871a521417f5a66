"""`python -m tests.support.mdnsflood TAG COUNT ADDRESS NAME`: multicasts answers that nobody asked for, as anyone on
the network can: COUNT nodes that no roster names, and as many addresses of NAME that all lead to ADDRESS. TAG is the
fleet's, as it stands in names of instances."""

from __future__ import annotations

import socket
import sys
import time

from zeroconf import DNSAddress, DNSOutgoing, DNSPointer, DNSService, DNSText
from zeroconf.const import _CLASS_IN, _FLAGS_QR_RESPONSE, _TYPE_A, _TYPE_PTR, _TYPE_SRV, _TYPE_TXT

from agent.peers.mdns import SERVICE

GROUP = ("224.0.0.251", 5353)
IN_ONE = 10
PAUSE_S = 0.005
PORTS = (20_000, 40_000)


def answer(names: list[str], ports: list[int], address: str) -> list[bytes]:
    out = DNSOutgoing(_FLAGS_QR_RESPONSE)
    for name, port in zip(names, ports, strict=True):
        alias = f"{name}.{SERVICE}"
        for record in (
            DNSPointer(SERVICE, _TYPE_PTR, _CLASS_IN, 4500, alias),
            DNSService(alias, _TYPE_SRV, _CLASS_IN, 120, 0, 0, port, "evil.local."),
            DNSText(alias, _TYPE_TXT, _CLASS_IN, 4500, b"\0"),
            DNSAddress("evil.local.", _TYPE_A, _CLASS_IN, 120, socket.inet_aton(address)),
        ):
            out.add_answer_at_time(record, 0)
    return out.packets()


def main(tag: str, count: int, address: str, name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        sender.bind((address, 5353))
        for start in range(0, count, IN_ONE):
            numbers = range(start, start + IN_ONE)
            ports = [PORTS[0] + number % (PORTS[1] - PORTS[0]) for number in numbers]
            strangers = [f"x{number}-{tag}" for number in numbers]
            claimed = [f"{name}-{tag}" if number % 2 else f"{name}-{tag}-2" for number in numbers]
            for names in (strangers, claimed):
                for packet in answer(names, ports, address):
                    sender.sendto(packet, GROUP)
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
