"""What the sides of `scripts/bench rollout` say of themselves, read without running them."""

from __future__ import annotations

import pytest

from scripts.benchmarks.moving import Moved, roles_of, spent_on
from scripts.benchmarks.serial import deltas
from scripts.minifleet.fleet import named
from shared.report import UpgradeReport
from shared.roster import Role

PRINTED = """\
TASK [staged] ******************************************************************
changed: [n0] => {"changed": true, "cmd": ["node"], "delta": "0:00:01.250000", "rc": 0}

TASK [switched] ****************************************************************
changed: [n0] => {"changed": true, "dest": "/x"}

TASK [staged] ******************************************************************
ok: [n1] => {"changed": false, "delta": null, "msg": "Did not run"}

TASK [green] *******************************************************************
changed: [n1] => {"changed": true, "delta": "0:01:00.500000"}
changed: [n2] => {"changed": true, "delta": "1:00:00.000000"}
"""


def test_ansibles_commands_are_added_up_by_task() -> None:
    assert deltas(PRINTED) == {"staged": 1.25, "green": 3660.5}


def test_the_work_of_all_nodes_is_told_from_the_rest() -> None:
    def upgrade(name: str, **spent: float) -> UpgradeReport:
        order = f"{'a' * 8}:{name}"
        return UpgradeReport(order=order, release="b" * 64, phase="done", began=1.0, spent_s=spent)

    work, other = spent_on([upgrade("a", staged=2, good=0.5), upgrade("b", staged=1, proven=3)])
    assert (work, other) == ({"staged": 3, "proven": 3}, {"good": 0.5})
    assert Moved(10.0, work, other).overhead_s == pytest.approx(4.0)


def test_nodes_of_one_role_have_names_of_their_own() -> None:
    assert named(roles_of(4)) == [
        ("canary", Role.CANARY),
        ("stable", Role.STABLE),
        ("stable-2", Role.STABLE),
        ("witness", Role.WITNESS),
    ]
