"""How many nodes may be out at once, and which come next. Pure (P7). Who is out for an order of another kind counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.rollout.facts import Fleet
from coordinator.rollout.observe import is_out, listed
from shared.fleetsettings import how_many
from shared.messages import Verdict
from shared.rollout import NodeState, NodeView, Rollout, RolloutNode


@dataclass(frozen=True)
class Turn:
    """`spare` nodes are out of service anyway: to move them takes nothing away, so they use up no slot."""

    begin: bool
    spare: bool = False
    reason: str = ""
    waits_for: tuple[str, ...] = ()


def turns(
    rollout: Rollout, nodes: Sequence[RolloutNode], wave: int, fleet: Fleet
) -> dict[str, Turn]:
    """For each waiting node of the wave, whether it is its turn, else for whom it waits."""
    options = rollout.options
    limit = how_many(options.max_unavailable, max(1, len(fleet.nodes)))
    out = [node for node in nodes if is_out(node) and not node.spare]
    names = [node.name for node in out]
    names += sorted(fleet.held & fleet.nodes.keys() - set(names))
    sites = Counter(fleet.nodes[name].site for name in names if name in fleet.nodes)
    found: dict[str, Turn] = {}
    for node in nodes:
        if node.wave != wave or node.state is not NodeState.WAITING:
            continue
        view = fleet.nodes.get(node.name)
        if view is None or is_spare(view):
            found[node.name] = Turn(True, spare=True)
        elif len(names) >= limit:
            reason = f"{len(names)} of at most {limit} are out: waits for {listed(names)}"
            found[node.name] = Turn(False, reason=reason, waits_for=tuple(names))
        elif options.max_per_site and sites[node.site] >= options.max_per_site:
            here = tuple(name for name in names if _site(name, fleet) == node.site)
            where = node.site or "its site"
            reason = (
                f"{sites[node.site]} of {where} are out, the most there: waits for {listed(here)}"
            )
            found[node.name] = Turn(False, reason=reason, waits_for=here)
        else:
            found[node.name] = Turn(True)
            names.append(node.name)
            sites[node.site] += 1
    return found


def _site(name: str, fleet: Fleet) -> str | None:
    return fleet.nodes[name].site if name in fleet.nodes else None


def is_spare(view: NodeView) -> bool:
    """It serves nothing: nothing is installed, or it is red by its own word."""
    return view.release is None or view.status is Verdict.RED
