"""What is looked at before a rollout begins: on each node, and in the fleet as a whole. Pure.

A check that fails is a refusal, with what to do about it; one that is in doubt is shown.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from coordinator.rollout.facts import Fleet
from coordinator.rollout.skew import check_protocols, check_trains, core_of
from shared.errors import BadInputError
from shared.freezing import By
from shared.messages import Verdict
from shared.protocol import ProtocolRange
from shared.readiness import CheckStatus
from shared.release import Release
from shared.report import UpgradeReport, WayBack
from shared.rollout import (
    NodeView,
    RedView,
    Rollout,
    RolloutNode,
    RolloutOptions,
    WaveKind,
)
from shared.rolloutplan import PlanCheck, PlanWave, Refusal
from shared.versions import OpenClawVersion
from shared.wire import short

LEAST_SOAK_S = 1800.0


@dataclass(frozen=True)
class Checked:
    checks: list[PlanCheck]
    refusals: list[Refusal]


def check_fleet(
    release: Release, fleet: Fleet, options: RolloutOptions, speaks: ProtocolRange, now: float
) -> list[Refusal]:
    """What keeps any rollout to this release from beginning."""
    found = [
        *_nodes(fleet, options),
        *_reds(fleet.open_reds()),
        *_frozen(fleet),
        *_stranded(fleet),
    ]
    if now >= release.manifest.expires:
        found.append(
            Refusal(
                gate="expired",
                reason=f"release {release.label} has expired",
                remedy="freeze it anew under another name: rollcall release create",
            )
        )
    if blocked := blocked_words(release.id, fleet):
        found.append(
            Refusal(
                gate="blocked",
                reason=f"release {release.label} is blocked: {blocked}",
                remedy=f"freeze a corrected release, or lift it: rollcall release unblock {release.id[:12]}",
            )
        )
    apart = options.stop_the_world
    found += check_protocols(release.manifest.agent, fleet, speaks, apart=apart)
    return found if apart else found + check_trains(release, fleet)


def check_undo(
    undone: Rollout, fleet: Fleet, options: RolloutOptions, moving: Collection[str]
) -> list[Refusal]:
    """Reds that are open now do not count: they may be why it is undone. `moving` are the nodes that would go back."""
    found = [*_nodes(fleet, options), *_frozen(fleet)]
    if not moving and undone.ended is not None:
        found.append(
            Refusal(
                gate="nothing",
                reason=f"there is nothing to undo: none of these nodes was moved by rollout {undone.id}",
                remedy="see what each node did: rollcall rollout history " + undone.id,
            )
        )
    if undone.ended is None:
        found.append(
            Refusal(
                gate="running",
                reason=f"rollout {undone.id} is {undone.state}",
                remedy=f"end it first: rollcall rollout abort {undone.id}",
            )
        )
    return found


def failed_before(node: NodeView, release: str) -> Refusal | None:
    """The node's own blocklist: it drops an order to such a release."""
    if release not in node.blocked:
        return None
    return Refusal(
        gate="blocklist",
        node=node.name,
        reason=f"release {release[:12]} failed on {node.name} before",
        remedy="freeze a corrected release under a new name, or allow it again on that node:"
        f" rollcall-agent blocklist clear {release[:12]}",
    )


def blocked_words(release: str, fleet: Fleet) -> str:
    count, limit = fleet.rollbacks.get(release, 0), fleet.settings.block_after
    times = "once" if count == 1 else f"{count} times"
    return f"it was rolled back {times} (block_after is {limit})" if count >= limit else ""


def _nodes(fleet: Fleet, options: RolloutOptions) -> list[Refusal]:
    if not fleet.nodes:
        return [
            Refusal(
                gate="nodes",
                reason="no node has joined",
                remedy="join one: rollcall node token create",
            )
        ]
    return [
        Refusal(
            gate="only",
            reason=f"no node is called {name!r}",
            remedy=f"there are: {', '.join(sorted(fleet.nodes)[:20])}",
        )
        for name in options.only
        if name not in fleet.nodes
    ]


def _reds(reds: list[RedView]) -> list[Refusal]:
    return [
        Refusal(
            gate="red",
            reason=short(f"red of {red.origin}: {short(red.reason, 1500)} [{red.key}]"),
            remedy="when it is over clear it on that node: rollcall-agent clear KEY; or for all of them:"
            " rollcall red clear KEY",
        )
        for red in reds[:10]
    ]


def _frozen(fleet: Fleet) -> list[Refusal]:
    if not fleet.settings.frozen:
        return []
    return [
        Refusal(
            gate="frozen",
            reason=f"the fleet is frozen: {fleet.settings.frozen}",
            remedy='when that is over: rollcall config set frozen ""',
        )
    ]


def _stranded(fleet: Fleet) -> list[Refusal]:
    if fleet.settings.validation != "fail":
        return []
    return [
        Refusal(
            gate="cohorts",
            reason=short(words),
            remedy="bring a worker of that build up; or: rollcall config set validation warn",
        )
        for words in fleet.stranded[:10]
    ]


def check_options(options: RolloutOptions, waves: list[PlanWave]) -> list[Refusal]:
    canaries = any(wave.kind is WaveKind.CANARY for wave in waves)
    if not canaries or options.soak >= LEAST_SOAK_S or options.yes_really:
        return []
    return [
        Refusal(
            gate="soak",
            reason=f"canaries would be watched for {options.soak:.0f} s; {LEAST_SOAK_S / 60:.0f}"
            " minutes are the least",
            remedy="a longer --soak, or --yes-really",
        )
    ]


def check_node(node: NodeView, release: Release, way: WayBack | None, now: float) -> Checked:
    """Of a node that is to move forward to `release`."""
    found = [
        _heard(node, now),
        _readiness(node),
        _hand(node),
        _way_back(way),
        _agent(node, release),
    ]
    refusals = []
    if (failed := failed_before(node, release.id)) is not None:
        found.append(PlanCheck(id="blocklist", status=CheckStatus.FAIL, reason=failed.reason))
        refusals.append(failed)
    if way is not None and not way.possible:
        refusals.append(
            Refusal(
                gate="way-back",
                node=node.name,
                reason=f"there would be no way back: {'; '.join(way.reasons)}",
                remedy="make that good on the node, or leave it out: --only",
            )
        )
    if (older := _downgrade(node, release)) is not None:
        found.append(PlanCheck(id="direction", status=CheckStatus.FAIL, reason=older))
        refusals.append(
            Refusal(
                gate="direction",
                node=node.name,
                reason=older,
                remedy="to go back to what it ran before: rollcall rollout undo",
            )
        )
    return Checked(found, refusals)


def check_undone(node: NodeView, moved: RolloutNode, now: float) -> Checked:
    """Of a node that is to go back from the order that `moved` had."""
    reason = _cannot_undo(node.upgrade, moved)
    status = CheckStatus.FAIL if reason else CheckStatus.PASS
    found = [
        _heard(node, now),
        _hand(node),
        PlanCheck(id="way-back", status=status, reason=reason or "its own bookmark"),
    ]
    if not reason:
        return Checked(found, [])
    refusal = Refusal(
        gate="way-back",
        node=node.name,
        reason=reason,
        remedy="leave it out: --only names the others",
    )
    return Checked(found, [refusal])


def _cannot_undo(last: UpgradeReport | None, moved: RolloutNode) -> str:
    if moved.previous is None:
        return "it ran nothing before"
    if last is None or last.order != moved.order:
        other = "none" if last is None else last.order
        return f"only a node's last upgrade can be undone, which is {other}"
    if last.outcome != "done":
        return f"its upgrade is {last.outcome or last.phase}, not done"
    return ""


def _heard(node: NodeView, now: float) -> PlanCheck:
    if node.heard is None:
        return PlanCheck(id="heard", status=CheckStatus.UNKNOWN, reason="never heard of")
    age = now - node.heard
    status = CheckStatus.PASS if age <= 30 else CheckStatus.WARN
    return PlanCheck(id="heard", status=status, reason=f"{age:.0f} s ago")


def _readiness(node: NodeView) -> PlanCheck:
    if node.status is Verdict.GREEN:
        return PlanCheck(id="readiness", status=CheckStatus.PASS, reason="green")
    last = node.upgrade
    if last is not None and last.outcome is None:
        words = f"its upgrade is under way ({last.phase})"
        return PlanCheck(id="readiness", status=CheckStatus.WARN, reason=words)
    installed = node.release is not None
    reason = f"{node.status}: {node.reason}" if installed else "nothing is installed yet"
    return PlanCheck(
        id="readiness",
        status=CheckStatus.WARN if installed else CheckStatus.UNKNOWN,
        reason=short(reason),
    )


def _hand(node: NodeView) -> PlanCheck:
    by_hand = [each.words for each in node.freezes if each.by is By.HAND]
    status = CheckStatus.WARN if by_hand else CheckStatus.PASS
    return PlanCheck(id="freeze", status=status, reason="; ".join(by_hand) or "not frozen by hand")


def _way_back(way: WayBack | None) -> PlanCheck:
    if way is None:
        return PlanCheck(
            id="way-back",
            status=CheckStatus.UNKNOWN,
            reason="the node has not said what it would need",
        )
    status = CheckStatus.PASS if way.possible else CheckStatus.FAIL
    return PlanCheck(id="way-back", status=status, reason=short("; ".join(way.reasons)))


def _agent(node: NodeView, release: Release) -> PlanCheck:
    agent = release.manifest.agent
    if agent is None or agent.version == node.agent_version:
        return PlanCheck(
            id="agent", status=CheckStatus.PASS, reason=node.agent_version or "unknown"
        )
    reason = f"agent {node.agent_version or 'unknown'} becomes {agent.version} first"
    return PlanCheck(id="agent", status=CheckStatus.PASS, reason=reason)


def _downgrade(node: NodeView, release: Release) -> str | None:
    core, target = core_of(node), release.manifest.openclaw
    try:
        older = core is not None and OpenClawVersion(target) < OpenClawVersion(core)
    except BadInputError:
        return None
    return f"OpenClaw {target} cannot start on state that {core} has written" if older else None
