"""What is wrong with the fleet, as pure functions of what the coordinator knows (seed 003, 5, and DESIGN.md, 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from coordinator.alerts.model import Finding, Severity
from coordinator.alerts.scene import Scene
from coordinator.alerts.words import day, moment
from coordinator.watched import Watched
from shared.attesting import quorum
from shared.canonical import sha256_hex
from shared.errors import BadInputError
from shared.messages import Verdict
from shared.readiness import CheckStatus
from shared.report import UpgradeReport
from shared.rollout import FINAL, NodeState, Rollout
from shared.versions import OpenClawVersion

OFFLINE_S = 300.0
ERROR_PERCENT = 5.0
HEALTHY = 80
FAILED_FOR_S = 86400.0
"""A failed upgrade is told for so long; who looks later finds it in the node's history."""
UNSIGNED_S = 10.0
"""So long a new coordinator waits for its operators before it says that it does."""
METADATA_SOON_S = 14 * 86400.0
CERTIFICATE_SOON_S = 15 * 86400.0
"""They last 30 days and are renewed after a third (DESIGN.md, 8): five more days have gone wrong."""
CERTIFICATE_LAST_S = 3 * 86400.0
AUTHORITY_SOON_S = 90 * 86400.0
FAILED = frozenset({"dropped", "rolled_back", "stuck", "failed"})
OF_THE_HOST = {"disk": "disk", "clock": "clock"}
"""Rules by the readiness check that they follow."""


@dataclass(frozen=True)
class Rule:
    """It must hold for `hold_s` before it is an alert, and be gone for `quiet_s` before that ends."""

    find: Callable[[Scene], Iterator[Finding]]
    says: str
    hold_s: float = 0.0
    quiet_s: float = 60.0


def offline(scene: Scene) -> Iterator[Finding]:
    """Nobody can be heard while the coordinator is away, so its own start counts as a sign of life."""
    for name, node in scene.nodes.items():
        last = max(node.joined if node.heard is None else node.heard, scene.started)
        if scene.now - last > OFFLINE_S:
            words = f"{name} is offline: not heard of since {moment(last)}"
            yield Finding("runtime-offline", name, Severity.CRITICAL, words, last)


def error_rate(scene: Scene) -> Iterator[Finding]:
    for name, node in scene.heard():
        rate = node.said.error_rate
        if rate is not None and rate > ERROR_PERCENT:
            words = f"{name}: {rate:.3g} % of the tasks of the last 15 minutes failed"
            detail = f"the limit is {ERROR_PERCENT:g} %"
            yield Finding("error-rate", name, Severity.HIGH, words, scene.now, detail)


def upgrade_failed(scene: Scene) -> Iterator[Finding]:
    for name, node in scene.nodes.items():
        upgrade = node.said.upgrade
        if upgrade is None or upgrade.outcome not in FAILED or _was_asked_for(upgrade):
            continue
        ended = upgrade.ended or upgrade.began
        if scene.now - ended < FAILED_FOR_S or upgrade.outcome == "stuck":
            words = f"{name}: the upgrade of order {upgrade.order} is {upgrade.outcome}"
            yield Finding(
                "upgrade-failed", name, Severity.HIGH, words, ended, upgrade.reason, upgrade.order
            )


def _was_asked_for(upgrade: UpgradeReport) -> bool:
    """An undo, or an abort. One that gets stuck on its way back is a failure all the same."""
    return upgrade.ordered and upgrade.outcome != "stuck"


def below_minimum(scene: Scene) -> Iterator[Finding]:
    settings = scene.settings
    for name, node in scene.nodes.items():
        running = node.said.version_running or node.said.version_on_disk
        for what, version, least, older in (
            ("OpenClaw", running, settings.min_supported, older_openclaw),
            ("the agent", node.said.agent_version, settings.min_supported_agent, older_agent),
        ):
            if version and least and older(version, least):
                words = f"{name}: {what} {version} is older than {least}, the lowest supported"
                yield Finding(
                    "version-below-minimum", name, Severity.MEDIUM, words, scene.now, key=what
                )


def health_degraded(scene: Scene) -> Iterator[Finding]:
    for name, node in scene.heard():
        if node.health_score is not None and node.health_score < HEALTHY:
            words = f"{name}: its health is {node.health_score} of 100, below {HEALTHY}"
            yield Finding(
                "health-degraded", name, Severity.MEDIUM, words, scene.now, node.said.reason
            )


def stalled(scene: Scene) -> Iterator[Finding]:
    """Nothing of a rollout that is not over has changed for so long; a soak is no stall."""
    rollout = scene.rollout
    if rollout is None or rollout.ended is not None:
        return
    last = max([rollout.created, *(node.since for node in rollout.nodes)])
    soaks = _is_between(rollout) or any(
        _soaks(rollout, name, node) for name, node in scene.nodes.items()
    )
    longest = max([rollout.soak_s, *(wave.soak_s for wave in rollout.waves)])
    limit = scene.settings.stalled_after + (longest if soaks else 0.0)
    if scene.now - last > limit:
        waits = [f"{each.name}: {each.reason}" for each in rollout.nodes if each.state not in FINAL]
        words = f"rollout {rollout.id} to {rollout.label} has not moved since {moment(last)}"
        detail = "; ".join([*([rollout.reason] if rollout.reason else []), *waits])
        yield Finding("rollout-stalled", rollout.id, Severity.MEDIUM, words, last, detail)


def _is_between(rollout: Rollout) -> bool:
    """Some are done, and nobody moves: a wave is watched before the next one begins."""
    ended = [node.state in FINAL for node in rollout.nodes]
    return any(ended) and all(
        over or node.state is NodeState.WAITING
        for over, node in zip(ended, rollout.nodes, strict=True)
    )


def _soaks(rollout: Rollout, name: str, node: Watched) -> bool:
    mine = rollout.find(name)
    upgrade = node.said.upgrade
    return (
        mine is not None
        and upgrade is not None
        and (upgrade.order, upgrade.phase) == (mine.order, "soaking")
        and upgrade.outcome is None
    )


def red_open(scene: Scene) -> Iterator[Finding]:
    for red in scene.reds:
        if red.open:
            words = f"{red.origin} is red ({red.kind}) since {moment(red.issued)}"
            detail = f"{red.reason} [{red.key}]"
            yield Finding(
                "red-open", red.origin, Severity.CRITICAL, words, red.issued, detail, red.key
            )


def attestation_missing(scene: Scene) -> Iterator[Finding]:
    """An upgraded node of a rollout that is not over waits for peers to sign that it is green."""
    rollout = scene.rollout
    if rollout is None or rollout.ended is not None:
        return
    for mine in rollout.nodes:
        view = scene.nodes.get(mine.name)
        upgrade = None if view is None else view.said.upgrade
        if view is None or upgrade is None or upgrade.order != mine.order:
            continue
        waits = upgrade.phase == "attested" and upgrade.outcome is None
        ended = upgrade.outcome == "done" and mine.state is NodeState.MOVING
        if not waits and not ended:
            continue
        missing = set(quorum(mine.name, scene.nodes, scene.witnesses)) - set(view.attested_by)
        if missing:
            words = f"{mine.name} lacks attestations of {', '.join(sorted(missing))}"
            yield Finding(
                "attestation-missing", mine.name, Severity.HIGH, words, scene.now, key=mine.order
            )


def metadata_expiring(scene: Scene) -> Iterator[Finding]:
    if not scene.metadata and scene.now - scene.started > UNSIGNED_S:
        words = "no operator has signed this fleet yet"
        yield Finding(
            "metadata-expiring",
            "fleet",
            Severity.MEDIUM,
            words,
            scene.started,
            "rollcall keys init",
        )
    for name, ends in scene.metadata.items():
        over = ends <= scene.now
        if ends - scene.now < METADATA_SOON_S:
            state = "has expired: no node installs anything" if over else f"expires on {day(ends)}"
            severity = Severity.CRITICAL if over else Severity.MEDIUM
            remedy = "sign it anew: rollcall keys renew"
            words = f"{name} metadata {state}"
            yield Finding(
                "metadata-expiring", name, severity, words, ends - METADATA_SOON_S, remedy
            )


def certificate_expiring(scene: Scene) -> Iterator[Finding]:
    found = [
        (name, node.said.certificate_expires, CERTIFICATE_SOON_S) for name, node in scene.heard()
    ]
    authority = [("authority", ends, AUTHORITY_SOON_S) for ends in scene.authorities]
    for name, ends, soon in [*found, *authority]:
        if ends is None or ends - scene.now >= soon:
            continue
        over, late = ends <= scene.now, ends - scene.now < CERTIFICATE_LAST_S
        severity = Severity.CRITICAL if over else Severity.HIGH if late else Severity.MEDIUM
        words = f"the certificate of {name} {'ended' if over else 'ends'} on {day(ends)}"
        key = str(int(ends)) if name == "authority" else ""
        yield Finding("certificate-expiring", name, severity, words, ends - soon, key=key)


def host(scene: Scene) -> Iterator[Finding]:
    for name, node in scene.heard():
        for each in node.said.concerns:
            rule = OF_THE_HOST.get(each.id)
            if rule is not None and each.status is not CheckStatus.UNKNOWN:
                severity = Severity.HIGH if each.status is CheckStatus.FAIL else Severity.MEDIUM
                words = f"{name}: {each.id}: {each.reason or each.status}"
                yield Finding(rule, name, severity, words, scene.now)


def split_versions(scene: Scene) -> Iterator[Finding]:
    """Nodes that say that they run the same OpenClaw and do not run the same: other releases of one version while
    nothing moves, or one release with other comparable parts. Trees differ between platforms, so those are apart."""
    moves = scene.rollout is not None and scene.rollout.ended is None
    trees: dict[str, dict[str, list[str]]] = {}
    for name, node in scene.heard():
        said = node.said
        if said.status is not Verdict.GREEN or said.version_running is None:
            continue
        if not moves:
            trees.setdefault(said.version_running, {}).setdefault(
                f"release {(said.release or 'of no')[:12]}", []
            ).append(name)
        if said.release is not None and said.ready_probe_sha256 is not None:
            one = f"{said.version_running} {said.release[:12]} {said.platform or ''}".rstrip()
            hashed = f"ready probe {said.ready_probe_sha256[:12]}"
            trees.setdefault(one, {}).setdefault(hashed, []).append(name)
    for what, groups in trees.items():
        if len(groups) > 1:
            version = what.split(" ", maxsplit=1)[0]
            parts = [f"{group}: {', '.join(sorted(groups[group]))}" for group in sorted(groups)]
            words = f"OpenClaw {version} is not the same everywhere: {len(groups)} trees"
            yield Finding(
                "split-versions", version, Severity.HIGH, words, scene.now, "; ".join(parts), what
            )


def node_alerts(scene: Scene) -> Iterator[Finding]:
    """What a node says itself. The same words with other numbers are the same alert."""
    for name, node in scene.heard():
        for text in node.said.alerts:
            key = sha256_hex("".join(each for each in text if not each.isdigit()).encode())[:16]
            yield Finding(
                "node-alert", name, Severity.MEDIUM, f"{name}: {text}", scene.now, text, key
            )


def undelivered(scene: Scene) -> Iterator[Finding]:
    for name, broken in scene.broken.items():
        words = f"alerts do not reach channel {name} since {moment(broken.since)}"
        yield Finding("channel-failing", name, Severity.HIGH, words, broken.since, broken.reason)


RULES: Mapping[str, Rule] = {
    "runtime-offline": Rule(offline, "a node was not heard of for more than 5 minutes"),
    "error-rate": Rule(error_rate, "more than 5 % of the tasks of 15 minutes failed", 0, 300),
    "upgrade-failed": Rule(upgrade_failed, "a node's last upgrade failed, within a day", 0, 0),
    "version-below-minimum": Rule(below_minimum, "older than min_supported", 60, 60),
    "health-degraded": Rule(health_degraded, "a node's health score is below 80", 60, 300),
    "rollout-stalled": Rule(stalled, "nothing of a rollout moved for stalled_after", 0, 60),
    "red-open": Rule(red_open, "a node's red is open", 0, 0),
    "attestation-missing": Rule(attestation_missing, "peers have not signed for 5 minutes", 300),
    "metadata-expiring": Rule(metadata_expiring, "operators must sign metadata anew", 0, 0),
    "certificate-expiring": Rule(certificate_expiring, "a certificate is not renewed", 60, 60),
    "disk": Rule(host, "a node's disk check warns or fails", 60, 300),
    "clock": Rule(host, "a node's clock check warns or fails", 60, 300),
    "split-versions": Rule(split_versions, "one OpenClaw version with different trees", 300, 60),
    "node-alert": Rule(node_alerts, "what a node itself says that people must see to", 30, 60),
    "channel-failing": Rule(undelivered, "alerts cannot be delivered", 60, 60),
}
UNKNOWN_RULE = Rule(lambda _: iter(()), "a rule that this version does not have")


def rule_of(name: str) -> Rule:
    """Of a version that had other rules there may be alerts yet: nothing finds them any more, and they end."""
    return RULES.get(name, UNKNOWN_RULE)


def findings(scene: Scene) -> list[Finding]:
    """Each fingerprint once: the worst of it."""
    worst: dict[str, Finding] = {}
    for find in dict.fromkeys(rule.find for rule in RULES.values()):
        for found in find(scene):
            before = worst.get(found.fingerprint)
            if before is None or found.severity.rank < before.severity.rank:
                worst[found.fingerprint] = found
    return list(worst.values())


def older_openclaw(version: str, least: str) -> bool:
    """False for a version of another form, which cannot be compared."""
    try:
        return OpenClawVersion(version) < OpenClawVersion(least)
    except BadInputError:
        return False


def older_agent(version: str, least: str) -> bool:
    return _numbers(version) < _numbers(least)


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of `1.2.3.dev4`; a part that is none ends them."""
    found: list[int] = []
    for part in version.replace("+", ".").replace("-", ".").split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)
