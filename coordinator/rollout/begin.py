"""A plan as the rollout that follows it. Pure."""

from __future__ import annotations

from coordinator.rollout.verbs import order_id
from shared.rollout import NodeState, Rollout, RolloutNode, RolloutState, RolloutWave
from shared.rolloutplan import Plan, PlanNode


def rollout_of(plan: Plan, id_: str, who: str, now: float, epoch: int = 0) -> Rollout:
    """Nodes that stay although they were asked for are in it, as done or skipped, each with its reason."""
    return Rollout(
        id=id_,
        kind=plan.kind,
        undoes=plan.undoes,
        release=plan.release,
        label=plan.label,
        strategy=plan.options.strategy,
        soak_s=plan.options.soak,
        options=plan.options,
        plan=plan.sha256,
        epoch=epoch,
        waves=[
            RolloutWave(kind=wave.kind, soak_s=wave.soak_s, estimated_s=wave.estimated_s)
            for wave in plan.waves
        ],
        set_by=who,
        created=now,
        expires=plan.expires,
        state=RolloutState.RUNNING,
        since=now,
        eta=round(now + plan.estimated_s, 1),
        nodes=_nodes(plan, id_, now),
    )


def _nodes(plan: Plan, id_: str, now: float) -> list[RolloutNode]:
    """In the order in which they move."""
    places = {name: at for at, name in enumerate(n for wave in plan.waves for n in wave.nodes)}
    ordered = sorted(plan.nodes, key=lambda node: (places.get(node.name, -1), node.name))
    return [_node(node, id_, now) for node in ordered]


def _node(node: PlanNode, id_: str, now: float) -> RolloutNode:
    stays = NodeState.DONE if node.there else NodeState.SKIPPED
    return RolloutNode(
        name=node.name,
        role=node.role,
        class_=node.class_,
        site=node.site,
        wave=node.wave or 0,
        order=order_id(id_, node.name, 1),
        release=node.release,
        previous=node.previous,
        undoes=node.undoes,
        state=NodeState.WAITING if node.wave is not None else stays,
        reason=node.stays,
        since=now,
        way_back=node.way_back,
    )
