"""A TCP port for something that is started a moment later."""

from __future__ import annotations

import os
import random
import socket

from shared.errors import UnavailableError

BELOW_EPHEMERAL = range(20_000, 32_000)
"""Below what Linux (32768) and macOS (49152) give to outgoing connections: a port that the kernel hands out for
"any" can be some client's by the time that it is used."""
ATTEMPTS = 64
VARIABLE = "ROLLCALL_PORTS"
"""Of the environment: the ports to choose from, with commas between them. Several agents on one host, as in tests,
each have their own."""


def free_port() -> int:
    """A port on which nothing of this host's loopback listens now. Raises UnavailableError."""
    named = [int(each) for each in os.environ.get(VARIABLE, "").split(",") if each.isdigit()]
    candidates = named or BELOW_EPHEMERAL
    for port in random.sample(candidates, min(ATTEMPTS, len(candidates))):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise UnavailableError(
        f"no port between {min(candidates)} and {max(candidates)} is free",
        remedy="stop what listens there",
    )
