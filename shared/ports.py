"""A TCP port for something that is started a moment later."""

from __future__ import annotations

import random
import socket

from shared.errors import UnavailableError

BELOW_EPHEMERAL = range(20_000, 32_000)
"""Below what Linux (32768) and macOS (49152) give to outgoing connections: a port that the kernel hands out for
"any" can be some client's by the time that it is used."""
ATTEMPTS = 64


def free_port() -> int:
    """A port on which nothing of this host's loopback listens now. Raises UnavailableError."""
    for port in random.sample(BELOW_EPHEMERAL, ATTEMPTS):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise UnavailableError(
        f"no port between {BELOW_EPHEMERAL[0]} and {BELOW_EPHEMERAL[-1]} is free",
        remedy="stop what listens there",
    )
