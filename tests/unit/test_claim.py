"""What a node refuses before it begins, whatever the coordinator asks for (P8)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.upgrade.context import Context, StepFailed
from agent.upgrade.steps.claim import Claim
from shared.release import Release, parse_release
from tests.conftest import ManualClock
from tests.unit.test_release import manifest

RELEASE: Release = parse_release(manifest().canonical())


class Node:
    """`blocks` is its blocklist, `freeze` what keeps it as it is."""

    def __init__(self, blocks: dict[str, str], freeze: str | None = None) -> None:
        self.blocks, self.freeze = blocks, freeze

    async def blocked(self, release: str) -> str | None:
        return self.blocks.get(release)

    def frozen(self) -> str | None:
        return self.freeze

    def context(self) -> Context:
        clock = ManualClock(RELEASE.manifest.expires - 1)
        deps: Any = SimpleNamespace(alarm=self, clock=clock)
        return Context(deps, cast(Any, None), RELEASE)


async def test_a_release_that_failed_here_before_is_not_taken_again() -> None:
    with pytest.raises(StepFailed, match="failed on this node before: it leaks") as told:
        await Claim().act(Node({RELEASE.id: "it leaks"}).context())
    assert f"rollcall-agent blocklist clear {RELEASE.id[:12]}" in str(told.value.remedy)


async def test_a_frozen_node_begins_nothing() -> None:
    with pytest.raises(StepFailed, match="this node is frozen by a red of stable"):
        await Claim().act(Node({"b" * 64: "another"}, "a red of stable").context())
