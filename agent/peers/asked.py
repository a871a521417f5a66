"""What peers may ask of this node, whichever way they ask, and how often."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from shared.clock import Clock
from shared.errors import RollcallError
from shared.ratelimit import RateLimit

Operation = Callable[[str, Mapping[str, str], bytes], Awaitable[bytes]]
"""Who asks, the parameters, the body; the bytes of the answer."""

Operations = Mapping[tuple[str, str], tuple[Operation, int]]
"""By method and path, each with the most bytes of a question's body."""

ASKED = 100
"""Of one peer, in so many seconds."""
ASKED_WINDOW_S = 10.0


class BusyError(RollcallError):
    """Asked more often than anybody needs to."""

    code = "busy"
    http_status = 429


class Patience:
    """With each peer, for what costs this node something."""

    def __init__(self, clock: Clock) -> None:
        self._asked = RateLimit(clock, failures=ASKED, window_s=ASKED_WINDOW_S)

    def has(self, peer: str) -> bool:
        """Whether there is some left; then it is less by one."""
        if self._asked.allowed(peer) > 0:
            return False
        self._asked.failed(peer)
        return True

    def spend(self, peer: str) -> None:
        """Raises BusyError where none is left."""
        if not self.has(peer):
            raise BusyError(f"{peer} asks more than {ASKED} times in {ASKED_WINDOW_S:g} s")
