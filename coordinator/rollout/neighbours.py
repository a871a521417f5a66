"""Who stands next to whom, and who may not have all of its traffic yet (P7). Pure.

Two neighbours on different cores never both serve at full ratio (docs/decisions/0023). Neighbours are the nodes
before and after in the order of names within a site, and those that the label `neighbours` names instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from shared.rollout import NodeView
from shared.roster import NodeClass

LABEL = "neighbours"
"""Names with commas between them; `-` for a node that has none."""


def neighbours(nodes: Mapping[str, NodeView]) -> dict[str, set[str]]:
    """For each gateway its neighbours. It goes both ways: whoever is named by another is its neighbour too."""
    gateways = sorted(
        (node for node in nodes.values() if node.class_ is NodeClass.GATEWAY),
        key=lambda node: (node.site, node.name),
    )
    found: dict[str, set[str]] = {node.name: set() for node in gateways}
    for before, after in pairwise(gateways):
        if before.site == after.site and LABEL not in before.labels and LABEL not in after.labels:
            _pair(found, before.name, after.name)
    for node in gateways:
        for name in _named(node):
            if name in found and name != node.name:
                _pair(found, node.name, name)
    return found


def _pair(found: dict[str, set[str]], a: str, b: str) -> None:
    found[a].add(b)
    found[b].add(a)


def _named(node: NodeView) -> list[str]:
    words = [each.strip() for each in node.labels.get(LABEL, "").split(",")]
    return [each for each in words if each]


def below_full(
    name: str,
    nodes: Mapping[str, NodeView],
    near: Mapping[str, set[str]],
    moved: frozenset[str],
) -> list[str]:
    """The neighbours for whose sake this node is given less than all of its traffic: gateways that serve another
    core. `near` is what `neighbours` says of all of them. Of a pair on different cores the one in `moved`, which has
    just been upgraded, is the one that is held back, so that capacity is not lost twice. A node that serves nothing
    yet counts for nobody."""
    core = _core(nodes, name)
    if core is None or name not in moved:
        return []
    others = near.get(name, set()) - moved
    return sorted(other for other in others if _core(nodes, other) not in (None, core))


def _core(nodes: Mapping[str, NodeView], name: str) -> str | None:
    node = nodes.get(name)
    return None if node is None else node.version_running or node.version_on_disk
