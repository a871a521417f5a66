"""A node's status and health score: pure, with the table of docs/decisions/0024."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.health import (
    DEGRADED_BELOW,
    MOST_WHEN_RED,
    MOST_WHEN_UNKNOWN,
    PARTS,
    LastWord,
    health_score,
    node_status,
)
from shared.messages import Verdict
from shared.nodes import NodeHealth, NodeStatus
from shared.report import UpgradeReport

NOW = 1.8e9
WELL = NodeHealth(window_s=86400, uptime=100, ready=100, error_rate=0, start_p95_ms=300, crashes=0)


def word(**changed: object) -> LastWord:
    said: dict[str, object] = {
        "heard": NOW - 5,
        "release": "a" * 64,
        "readiness": Verdict.GREEN,
        "health": WELL,
    }
    return LastWord(**{**said, **changed})  # type: ignore[arg-type]


def upgrade(outcome: str | None) -> UpgradeReport:
    return UpgradeReport(
        order="a" * 8 + ":a", release="a" * 64, phase="proven", outcome=outcome, began=NOW
    )


def score_of(**changed: object) -> int | None:
    return health_score(word(health=WELL.model_copy(update=changed)), NOW)


@pytest.mark.parametrize(
    ("changed", "score"),
    [
        ({}, 100),
        ({"uptime": 99.9, "ready": 99, "error_rate": 1, "start_p95_ms": 2000}, 100),
        ({"uptime": 95}, 70),
        ({"ready": 90}, 75),
        ({"error_rate": 10}, 80),
        ({"error_rate": 5.5}, 90),
        ({"start_p95_ms": 8000}, 85),
        ({"crashes": 5}, 90),
        ({"crashes": 1}, 98),
        ({"uptime": 0, "ready": 0, "error_rate": 100, "start_p95_ms": 1e6, "crashes": 99}, 0),
        ({"error_rate": None, "start_p95_ms": None, "uptime": 95}, 54),
    ],
)
def test_the_score_by_the_table(changed: dict[str, object], score: int) -> None:
    """Each part costs what it weighs; what was not measured leaves the others heavier."""
    assert score_of(**changed) == score


@pytest.mark.parametrize(
    ("changed", "score"),
    [
        ({"heard": None}, None),
        ({"heard": NOW - 31}, 0),
        ({"readiness": Verdict.RED}, MOST_WHEN_RED),
        ({"readiness": Verdict.UNKNOWN}, MOST_WHEN_UNKNOWN),
        ({"readiness": Verdict.UNKNOWN, "health": None}, MOST_WHEN_UNKNOWN),
        ({"readiness": Verdict.RED, "health": NodeHealth(window_s=10, uptime=0, ready=0)}, 15),
        ({"health": None}, None),
        ({"health": NodeHealth()}, None),
    ],
)
def test_what_is_so_now_counts_more_than_the_day(
    changed: dict[str, object], score: int | None
) -> None:
    assert health_score(word(**changed), NOW) == score


percents = st.none() | st.floats(0, 100)


@given(
    st.builds(
        NodeHealth,
        window_s=st.floats(1, 1e6),
        uptime=percents,
        ready=percents,
        error_rate=percents,
        start_p95_ms=st.none() | st.floats(0, 1e9),
        crashes=st.integers(0, 1000),
    ),
    st.sampled_from(Verdict),
)
def test_it_stays_in_its_bounds(health: NodeHealth, readiness: Verdict) -> None:
    found = health_score(word(health=health, readiness=readiness), NOW)
    assert found is not None
    assert 0 <= found <= 100


def test_the_weights_are_a_hundred() -> None:
    assert sum(part.weight for part in PARTS) == 100


@pytest.mark.parametrize(
    ("changed", "score", "status"),
    [
        ({"heard": None}, None, NodeStatus.PROVISIONING),
        ({"release": None}, 100, NodeStatus.PROVISIONING),
        ({"heard": NOW - 31, "readiness": Verdict.RED}, 0, NodeStatus.OFFLINE),
        ({"upgrade": upgrade(None), "readiness": Verdict.RED}, 40, NodeStatus.UPGRADING),
        ({"readiness": Verdict.RED}, 40, NodeStatus.ERROR),
        ({"upgrade": upgrade("stuck")}, 100, NodeStatus.ERROR),
        ({"upgrade": upgrade("rolled_back")}, 100, NodeStatus.ONLINE),
        ({"readiness": Verdict.UNKNOWN}, 70, NodeStatus.DEGRADED),
        ({}, DEGRADED_BELOW - 1, NodeStatus.DEGRADED),
        ({}, DEGRADED_BELOW, NodeStatus.ONLINE),
        ({}, None, NodeStatus.ONLINE),
    ],
)
def test_the_status_is_the_first_that_holds(
    changed: dict[str, object], score: int | None, status: NodeStatus
) -> None:
    assert node_status(word(**changed), score, NOW) is status
