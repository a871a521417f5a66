"""Everything that the rules look at, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.watched import Watched
from shared.fleetsettings import FleetSettings
from shared.rollout import RedView, Rollout

FRESH_S = 60.0


@dataclass(frozen=True)
class Broken:
    """A channel whose receiver does not take alerts."""

    since: float
    reason: str


@dataclass(frozen=True)
class Scene:
    """`metadata` is when what operators signed expires, by role, empty before they have signed; `authorities` when
    the fleet's certificate authorities end. `started` is when this coordinator began to listen."""

    now: float
    started: float
    nodes: Mapping[str, Watched]
    reds: Sequence[RedView] = ()
    witnesses: Sequence[str] = ()
    rollout: Rollout | None = None
    settings: FleetSettings = field(default_factory=FleetSettings)
    metadata: Mapping[str, float] = field(default_factory=dict)
    authorities: Sequence[float] = ()
    broken: Mapping[str, Broken] = field(default_factory=dict)

    def heard(self) -> Iterator[tuple[str, Watched]]:
        """Nodes whose last report is fresh: what an older one said is not known to hold. That it is old is
        `runtime-offline`, which comes later."""
        for name, node in self.nodes.items():
            if node.heard is not None and self.now - node.heard <= FRESH_S:
                yield name, node
