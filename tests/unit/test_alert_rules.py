"""What is an alert, by the rules: no network, no clock, no database."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.alerts.model import Severity
from coordinator.alerts.rules import RULES, findings, older_agent
from coordinator.alerts.scene import Broken, Scene
from coordinator.health import HEARD_WITHIN_S, LastWord, health_score
from coordinator.watched import NOTHING_SAID, Said, Watched, watch
from shared.fleetsettings import FleetSettings
from shared.messages import Verdict
from shared.nodes import NodeHealth
from shared.readiness import CheckStatus
from shared.report import Concern, NodeReport, ReadinessSummary, UpgradeReport
from shared.rollout import NodeState, RedView, Rollout, RolloutNode
from shared.roster import Role

NAMES = ("canary", "stable", "witness")
ID, RELEASE = "a1b2c3d4", "a" * 64
NOW = 1000.0
DAY = 86400.0
SIGNED = {"root": NOW + 365 * DAY, "targets": NOW + 180 * DAY}
HASH, OTHER = "1" * 64, "2" * 64


def view(**changes: Any) -> Watched:
    """A healthy node, just heard of."""
    said: dict[str, Any] = {"status": Verdict.GREEN, "release": "b" * 64, **changes}
    node: dict[str, Any] = {"joined": 0.0, "heard": NOW, "health_score": None}
    node |= {name: said.pop(name) for name in Watched._fields if name in changes}
    return Watched(**node, said=Said(**said))


def make() -> Rollout:
    nodes = [
        RolloutNode(name=name, role=Role.STABLE, wave=number, order=f"{ID}:{name}", since=0)
        for number, name in enumerate(NAMES)
    ]
    return Rollout.from_value(
        {
            "id": ID,
            "release": RELEASE,
            "label": "x",
            "strategy": "rolling",
            "soak_s": 5,
            "set_by": "op",
            "created": 0,
            "nodes": [each.model_dump(mode="json") for each in nodes],
        }
    )


def scene(now: float = NOW, **changes: Any) -> Scene:
    nodes = {name: view(heard=now) for name in NAMES}
    values: dict[str, Any] = {"now": now, "started": 0.0, "nodes": nodes, "metadata": SIGNED}
    return Scene(**{**values, **changes})


def told(seen: Scene) -> list[tuple[str, str, str]]:
    return sorted((each.rule, each.subject, each.severity.value) for each in findings(seen))


def with_node(now: float = NOW, **changes: Any) -> Scene:
    base = scene(now)
    node = view(**{"heard": now, **changes})
    return scene(now, nodes={**base.nodes, "stable": node})


def upgraded(outcome: str | None, phase: str = "", **changes: Any) -> UpgradeReport:
    values = {"order": f"{ID}:stable", "release": RELEASE, "began": NOW - 60, **changes}
    return UpgradeReport(phase=phase or outcome or "", outcome=outcome, reason="why", **values)


def test_a_fleet_without_trouble_has_no_alerts() -> None:
    assert told(scene()) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"heard": NOW - 299}, None),
        ({"heard": NOW - 301}, ("runtime-offline", "critical")),
        ({"heard": None, "joined": NOW - 301}, ("runtime-offline", "critical")),
        ({"error_rate": 5}, None),
        ({"error_rate": 5.1}, ("error-rate", "high")),
        ({"upgrade": upgraded("done")}, None),
        ({"upgrade": upgraded("rolled_back")}, ("upgrade-failed", "high")),
        ({"upgrade": upgraded("rolled_back", ordered=True)}, None),
        ({"upgrade": upgraded("dropped")}, ("upgrade-failed", "high")),
        ({"upgrade": upgraded("dropped", ordered=True)}, None),
        ({"upgrade": upgraded("stuck", ordered=True)}, ("upgrade-failed", "high")),
        ({"upgrade": upgraded("stuck")}, ("upgrade-failed", "high")),
        ({"upgrade": upgraded("failed", began=NOW - 2 * DAY)}, None),
        ({"upgrade": upgraded("stuck", began=NOW - 2 * DAY)}, ("upgrade-failed", "high")),
        ({"health_score": 80}, None),
        ({"health_score": 79}, ("health-degraded", "medium")),
        ({"certificate_expires": NOW + 16 * DAY}, None),
        ({"certificate_expires": NOW + 14 * DAY}, ("certificate-expiring", "medium")),
        ({"certificate_expires": NOW + 2 * DAY}, ("certificate-expiring", "high")),
        ({"certificate_expires": NOW - 1}, ("certificate-expiring", "critical")),
        ({"alerts": ["somebody claims its name"]}, ("node-alert", "medium")),
    ],
)
def test_what_a_node_says_of_itself(
    changes: dict[str, Any], expected: tuple[str, str] | None
) -> None:
    rule, severity = expected or ("", "")
    assert told(with_node(**changes)) == ([(rule, "stable", severity)] if expected else [])


@pytest.mark.parametrize("check", ["disk", "clock"])
@pytest.mark.parametrize(
    ("status", "severity"),
    [(CheckStatus.WARN, "medium"), (CheckStatus.FAIL, "high"), (CheckStatus.UNKNOWN, None)],
)
def test_disk_and_clock_follow_the_readiness_checks(
    check: str, status: CheckStatus, severity: str | None
) -> None:
    concern = Concern(id=check, status=status, reason="3 % free")
    expected = [(check, "stable", severity)] if severity else []
    assert told(with_node(concerns=[concern])) == expected


def test_what_an_old_report_said_is_not_known_to_hold() -> None:
    """Silent for two minutes, and not offline yet: nothing is said of it."""
    old = with_node(heard=NOW - 120, error_rate=50, health_score=1, alerts=["x"])
    assert told(old) == []


def test_nobody_is_offline_because_the_coordinator_was_away() -> None:
    base = with_node(heard=NOW - 5000)
    assert told(base) == [("runtime-offline", "stable", "critical")]
    again = Scene(now=NOW, started=NOW - 299, nodes=base.nodes, metadata=SIGNED)
    assert told(again) == []


def test_versions_below_the_minimum() -> None:
    settings = FleetSettings(min_supported="2026.9.6", min_supported_agent="0.2")
    nodes = {
        "old": view(version_running="2026.7.1-2", agent_version="0.2.0"),
        "older": view(version_on_disk="2026.9.6-beta.1", agent_version="0.1.9"),
        "strange": view(version_running="main-abc", agent_version="0.10"),
    }
    found = findings(scene(nodes=nodes, settings=settings))
    assert sorted(each.summary for each in found) == [
        "old: OpenClaw 2026.7.1-2 is older than 2026.9.6, the lowest supported",
        "older: OpenClaw 2026.9.6-beta.1 is older than 2026.9.6, the lowest supported",
        "older: the agent 0.1.9 is older than 0.2, the lowest supported",
    ]
    assert older_agent("0.1.0.dev3", "0.1.1")
    assert not older_agent("1.0+local.2", "1.0")


def test_a_rollout_that_does_not_move_is_stalled_and_a_soak_is_not() -> None:
    rollout = make().model_copy(update={"soak_s": 7200.0})
    assert told(scene(3600, rollout=rollout)) == []
    assert told(scene(3601, rollout=rollout)) == [("rollout-stalled", ID, "medium")]
    assert told(scene(3601, rollout=rollout.model_copy(update={"ended": 10.0}))) == []
    soaking = upgraded(None, "soaking", order=f"{ID}:canary")
    nodes = {"canary": view(heard=3601.0, upgrade=soaking)}
    assert told(scene(3601, rollout=rollout, nodes=nodes)) == []
    late = {"canary": view(heard=10_801.0, upgrade=soaking)}
    assert told(scene(10_801, rollout=rollout, nodes=late)) == [("rollout-stalled", ID, "medium")]


def test_a_wave_that_is_watched_is_no_stall() -> None:
    rollout = make().model_copy(update={"soak_s": 7200.0})
    first = rollout.nodes[0].model_copy(update={"state": NodeState.DONE})
    between = rollout.model_copy(update={"nodes": [first, *rollout.nodes[1:]]})
    assert told(scene(10_800, rollout=between)) == []
    assert told(scene(10_801, rollout=between)) == [("rollout-stalled", ID, "medium")]


def test_a_stalled_rollout_says_what_each_node_waits_for() -> None:
    rollout = make()
    nodes = [node.model_copy(update={"reason": "waits for canary"}) for node in rollout.nodes]
    (found,) = findings(scene(3601, rollout=rollout.model_copy(update={"nodes": nodes})))
    assert "stable: waits for canary" in found.detail


def test_each_open_red_is_an_alert_of_its_own() -> None:
    reds = [
        RedView(
            key=f"canary:1:{number}",
            origin="canary",
            kind="stuck",
            reason="why",
            issued=5.0,
            open=number < 3,
            acked_by=[],
        )
        for number in (1, 2, 3)
    ]
    found = findings(scene(reds=reds))
    assert [(each.rule, each.severity, each.since) for each in found] == [
        ("red-open", Severity.CRITICAL, 5.0)
    ] * 2
    assert len({each.fingerprint for each in found}) == 2


def test_a_missing_attestation_is_an_alert_while_its_rollout_goes_on() -> None:
    rollout = make()
    nodes = [
        node.model_copy(update={"state": NodeState.MOVING}) if node.name == "canary" else node
        for node in rollout.nodes
    ]
    moving = rollout.model_copy(update={"nodes": nodes})
    views = dict(scene().nodes)
    done = upgraded("done", order=f"{ID}:canary")
    canary = view(upgrade=done, attested_by=["stable"])
    lacking = {**views, "canary": canary}
    (found,) = findings(scene(rollout=moving, nodes=lacking))
    assert (found.rule, found.summary) == (
        "attestation-missing",
        "canary lacks attestations of witness",
    )
    whole = {**views, "canary": canary._replace(attested_by=["stable", "witness"])}
    assert told(scene(rollout=moving, nodes=whole)) == []
    over = moving.model_copy(update={"ended": NOW})
    assert told(scene(rollout=over, nodes=lacking)) == []


@pytest.mark.parametrize(("left", "severity"), [(14.1, None), (13.9, "medium"), (-0.1, "critical")])
def test_metadata_is_to_be_signed_in_time(left: float, severity: str | None) -> None:
    seen = scene(metadata={"root": NOW + left * DAY})
    assert told(seen) == ([("metadata-expiring", "root", severity)] if severity else [])
    if severity:
        (found,) = findings(seen)
        assert found.detail == "sign it anew: rollcall keys renew"


def test_a_fleet_that_nobody_has_signed_says_so() -> None:
    assert told(scene(metadata={})) == [("metadata-expiring", "fleet", "medium")]


def test_an_authority_that_ends_is_told_long_before() -> None:
    assert told(scene(authorities=[NOW + 89 * DAY])) == [
        ("certificate-expiring", "authority", "medium")
    ]


def running(release: str, hashed: str, platform: str = "darwin-arm64", **changes: Any) -> Watched:
    return view(
        version_running="2026.9.6",
        release=release,
        ready_probe_sha256=hashed,
        platform=platform,
        **changes,
    )


@pytest.mark.parametrize(
    ("other", "moves", "is_split"),
    [
        (running(RELEASE, HASH), False, False),
        (running(RELEASE, OTHER), False, True),
        (running(RELEASE, OTHER, "linux-x64"), False, False),
        (running("c" * 64, OTHER), False, True),
        (running("c" * 64, OTHER), True, False),
        (running(RELEASE, OTHER, status=Verdict.RED), False, False),
    ],
    ids=["same", "another hash", "another platform", "another release", "under way", "red anyway"],
)
def test_one_version_with_two_trees(other: Watched, moves: bool, is_split: bool) -> None:
    nodes = {"a": running(RELEASE, HASH), "b": other}
    seen = scene(nodes=nodes, rollout=make() if moves else None)
    assert [rule for rule, _, _ in told(seen)] == ["split-versions"] * is_split


def test_the_same_words_with_other_numbers_are_one_alert() -> None:
    first, second = (
        findings(with_node(alerts=[f"the disk fills in {hours} h"])) for hours in (7, 16)
    )
    assert first[0].fingerprint == second[0].fingerprint
    assert len(findings(with_node(alerts=["no 1", "no 2", "yes"]))) == 2


def test_a_channel_that_fails_is_told_on_the_others() -> None:
    seen = scene(broken={"ops": Broken(5.0, "no answer")})
    assert told(seen) == [("channel-failing", "ops", "high")]


def test_every_finding_names_a_rule_that_there_is() -> None:
    worst = with_node(heard=NOW - 400, upgrade=upgraded("stuck"))
    assert {each.rule for each in findings(worst)} <= RULES.keys()


def test_the_score_of_a_node_is_that_of_its_last_word_while_it_is_heard_of() -> None:
    ready = ReadinessSummary(status=Verdict.GREEN, ready_probe_sha256=HASH)
    health = NodeHealth(window_s=3600, error_rate=5.5, uptime=100)
    report = NodeReport(
        node="a", agent_version="1", readiness=ready, release=RELEASE, health=health
    )
    said = Said.of(report)
    word = LastWord(NOW, RELEASE, Verdict.GREEN, None, health)
    assert said.score == health_score(word, NOW)
    assert (said.error_rate, said.release, said.status) == (5.5, RELEASE, Verdict.GREEN)
    assert watch(0, NOW, said, NOW + HEARD_WITHIN_S).health_score == said.score
    assert watch(0, NOW, said, NOW + HEARD_WITHIN_S + 1).health_score == 0
    assert watch(0, None, NOTHING_SAID, NOW).health_score is None
