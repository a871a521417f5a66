"""Why a node is frozen, and what would lift it: the same words on the node and at the coordinator."""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import StringConstraints

from shared.messages import KindWord, RedKind
from shared.wire import NodeName, RedKey, Wire

MAX_FREEZES = 16
"""That a report tells of: one freezes as well as all."""
WHY_CHARS = 500


class By(StrEnum):
    """Who froze: an administrator of the node, or a peer's red."""

    HAND = "hand"
    RED = "red"


Who = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Why = Annotated[str, StringConstraints(max_length=WHY_CHARS)]


class Freeze(Wire):
    """`who` is the account at the node, or the red's origin; `since` in seconds since the epoch. `key` and
    `kind` are the red's. Whatever names no red is lifted by hand."""

    by: By
    who: Who
    why: Why
    since: float
    key: RedKey | None = None
    kind: KindWord | None = None
    node: NodeName
    """Which node is frozen."""

    @property
    def words(self) -> str:
        if self.by is By.RED:
            return f"frozen by a red of {self.who} ({self.kind}: {self.why}): {self.lifted_by}"
        return f"frozen since {_moment(self.since)} by hand ({self.why}): {self.lifted_by}"

    @property
    def lifted_by(self) -> str:
        """What ends it, in words for people."""
        if self.by is By.RED:
            ends = _ENDS.get(self.kind or "", "it is cleared on {who}").format(who=self.who)
            return f"ends when {ends}, or an operator clears it: rollcall red clear {self.key}"
        return f"lift with rollcall-agent unfreeze on {self.node}"


_ENDS: Mapping[str, str] = {
    RedKind.READINESS: "{who} is green again",
    RedKind.MISMATCH: "{who} is what its peers are again",
}
"""The reds that their origin ends by itself; all others wait for somebody."""


def _moment(at: float) -> str:
    """Of any machine that shows it, so in UTC."""
    return time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(at))
