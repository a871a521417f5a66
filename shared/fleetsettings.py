"""What operators set for the whole fleet: `rollcall config get|set|list` (seeds 002 and 003). Nested sections are
named with a dot, `sla.every_seconds`."""

from __future__ import annotations

import re
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from shared.cron import check_cron
from shared.durations import Duration
from shared.release import ReleaseName
from shared.textforms import split_at, split_window, without_percent
from shared.versions import VersionText
from shared.wire import NodeName, Wire

AMOUNT = r"^([1-9][0-9]{0,4}|([1-9][0-9]?|100)%)$"


class Strategy(StrEnum):
    IMMEDIATE = "immediate"
    ROLLING = "rolling"
    CANARY = "canary"


def how_many(amount: str, total: int) -> int:
    """`3` is three, `10%` is a share of the total, rounded down; at least one."""
    share = total * int(amount[:-1]) // 100 if amount.endswith("%") else int(amount)
    return max(1, share)


def _amount(value: Any) -> str:
    text = str(value)
    if re.fullmatch(AMOUNT, text) is None:
        raise ValueError(f"{text!r} is neither a number of nodes nor a share such as 10%")
    return text


def rising_to_all(steps: list[int]) -> list[int]:
    """Shares of traffic, each above the one before, up to all of it. Raises ValueError."""
    if steps != sorted(set(steps)) or steps[-1] != 100:
        raise ValueError("the steps rise, and the last is 100")
    return steps


AmountText = Annotated[str, AfterValidator(_amount)]
Percent = Annotated[float, BeforeValidator(without_percent), Field(ge=0, le=100)]
Zone = Annotated[
    str, Field(max_length=64, pattern=r"^[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}$")
]
"""A name of the time zone database."""


class Window(Wire):
    """When upgrades may begin: from each time of `cron` (five fields) for `duration_s`, in the zone `tz`."""

    cron: Annotated[str, Field(max_length=100), AfterValidator(check_cron)]
    duration_s: Annotated[Duration, Field(gt=0, le=7 * 86400)]
    tz: Zone = "UTC"

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return split_window(value)


class SlaSettings(Wire):
    """Seed 002's safe profile is what stands here when nothing is set."""

    enabled: bool = True
    every_seconds: Annotated[int, Field(ge=10, le=86400)] = 300
    record_only: bool = True
    max_messages_per_sweep: Annotated[int, Field(ge=0, le=1000)] = 3
    fyi_agents: Annotated[list[NodeName], BeforeValidator(split_at(",")), Field(max_length=64)] = []
    claim_within: Annotated[Duration, Field(ge=10, le=30 * 86400)] = 300.0
    """An order that its node has not claimed by then is late."""
    update_within: Annotated[Duration, Field(ge=10, le=30 * 86400)] = 900.0
    """A node that has claimed says at least so often how far it is."""
    complete_within: Annotated[Duration, Field(ge=60, le=30 * 86400)] = 14400.0
    """And is done by then, unless it promised a later ETA."""


class FleetSettings(Wire):
    """Read anew for each decision: what an operator sets counts from the next look."""

    latest: ReleaseName | None = None
    """The release that nodes are expected to run."""
    min_supported: VersionText | None = None
    """The lowest OpenClaw version that is not alerted about."""
    min_supported_agent: Annotated[str, Field(max_length=64)] | None = None
    strategy: Strategy = Strategy.CANARY
    batch: AmountText = "1"
    """How many nodes of a rolling wave move together."""
    max_unavailable: AmountText = "1"
    """Never more than so many nodes out at once (P7)."""
    max_per_site: Annotated[int, Field(ge=0, le=10000)] = 0
    """Never more than so many of one site out at once; 0 is no limit."""
    soak: Annotated[Duration, Field(ge=0, le=7 * 86400)] = 7200.0
    """How long canaries are watched."""
    settle: Annotated[Duration, Field(ge=0, le=86400)] = 60.0
    """How long the nodes of every other wave are watched before the next begins."""
    steps: Annotated[
        list[Annotated[int, Field(ge=1, le=100)]],
        BeforeValidator(split_at(",")),
        Field(min_length=1, max_length=20),
    ] = [
        1,
        5,
        25,
        50,
        100,
    ]
    """The shares of traffic that an upgraded node is given, one after the other."""
    step_for: Annotated[Duration, Field(ge=0, le=86400)] = 60.0
    """How long each share is watched."""
    failure_pause: Percent = 5.0
    failure_halt: Percent = 20.0
    """Percent of a wave that failed: above it the rollout pauses, or halts."""
    health_floor: Percent = 95.0
    """Percent of the fleet that must be healthy before the next wave."""
    block_after: Annotated[int, Field(ge=1, le=100)] = 3
    """So many rollbacks of one release, anywhere, block it for the fleet."""
    stalled_after: Annotated[Duration, Field(ge=60, le=30 * 86400)] = 3600.0
    windows: Annotated[list[Window], BeforeValidator(split_at(";")), Field(max_length=32)] = []
    """Upgrades may begin at any time when there is none."""
    blackouts: Annotated[list[date], BeforeValidator(split_at(",")), Field(max_length=366)] = []
    """Days, in the zone of each window, on which nothing begins."""
    frozen: Annotated[str, Field(max_length=500)] = ""
    """Why no rollout begins or goes on; empty when they may."""
    validation: Literal["warn", "fail"] = "warn"
    """What happens to work whose build no live worker has (seed 004)."""
    sla: SlaSettings = SlaSettings()

    @field_validator("steps")
    @classmethod
    def _rise_to_all(cls, steps: list[int]) -> list[int]:
        return rising_to_all(steps)

    @model_validator(mode="after")
    def _pauses_before_it_halts(self) -> FleetSettings:
        if self.failure_pause > self.failure_halt:
            raise ValueError("failure_pause is above failure_halt")
        return self
