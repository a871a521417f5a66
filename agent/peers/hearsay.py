"""What nodes ask and tell each other about third ones, with the bounds of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shared.wire import NodeName, Wire

TRY = "/v1/peer/try"
UNREACHED = "/v1/peer/unreached"
LEAVING = "/v1/peer/leaving"
MAX_BYTES = 16 << 10
MAX_NAMES = 128
"""Of one statement: where more are away at once, the others follow."""

Age = Annotated[float, Field(ge=0, le=10 * 366 * 86400)]
"""Seconds ago. Two nodes' clocks are never compared."""


class Try(Wire):
    peer: NodeName


class Tried(Wire):
    """`reached` is None where it could not be tried: no address of the peer is known there."""

    reached: bool | None


class Unreached(Wire):
    """The names that do not answer the node that says so, nor those it has asked, and how long ago its last look at
    each began; `doubted` are those that it has only begun to look for; `reached` those that it has reached since
    the other side's look began; `unsure`: it doubts itself, and takes nothing back by what it leaves out."""

    unreached: Annotated[dict[NodeName, Age], Field(max_length=MAX_NAMES)] = {}
    doubted: Annotated[list[NodeName], Field(max_length=MAX_NAMES)] = []
    reached: Annotated[list[NodeName], Field(max_length=MAX_NAMES)] = []
    unsure: bool = False
