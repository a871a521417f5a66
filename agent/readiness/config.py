"""`[probes]` and `[guards]` of agent.toml: how often what is read, and where too much begins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from agent.section import Section
from shared.durations import Duration
from shared.sizes import Watermark, WatermarkText

GIB = 1 << 30
MIB = 1 << 20


class SourceConfig(Section):
    """Where a probe's reading comes from, where it is not the gateway itself (seed 000's script)."""

    kind: Literal["http", "command"]
    url: (
        Annotated[str, Field(pattern=r"^http://(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?/")]
        | None
    ) = None
    """Of this host only: a probe reads the node that it is on."""
    argv: Annotated[list[str], Field(max_length=32)] = []
    timeout: Duration = 3.0

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.kind == "http" and (self.url is None or self.argv):
            raise ValueError('kind = "http" needs url, and no argv')
        if self.kind == "command" and (not self.argv or self.url is not None):
            raise ValueError('kind = "command" needs argv, and no url')
        return self


class ProbeConfig(Section):
    gateway_every: Duration = 2.0
    memory_every: Duration = 5.0
    queue_every: Duration = 15.0
    tasks_every: Duration = 15.0
    tree_every: Duration = 60.0
    tree_sweep_every: Duration = 900.0
    """How long at most until every file of the tree was looked at (not read). It is done as often as it costs
    less than a two-thousandth of a core: each `tree_every` for a small tree, some five minutes for 41,000 files."""
    doctor_every: Duration = 3600.0
    plugins_every: Duration = 3600.0
    host_every: Duration = 10.0
    disk_every: Duration = 60.0
    clock_every: Duration = 30.0
    loop_every: Duration = 1.0
    logs_every: Duration = 10.0
    log_files: Annotated[list[Path], Field(max_length=8)] = []
    """Besides the places where OpenClaw logs by itself: its `logging.file`, where that was set."""
    queue: SourceConfig | None = None
    """Instead of the gateway's own queue: a JSON object whose `depth`, `counts.queueSize` or `counts.totalActive` is
    the depth."""
    digest: SourceConfig | None = None
    """Instead of the gateway's channels, deliveries and plugins: any JSON."""
    red_after: Duration = 10.0
    """How long readiness must have failed before the node calls itself red."""
    unknown_after: Duration = 300.0
    """How long it may be anything but green before that counts as failed: a gateway that hangs."""
    mismatch_after: Duration = 90.0
    """How long a peer on the same release may have another `ready_probe_sha256` before that is a red."""


class GuardConfig(Section):
    """Seed 001's limits where it names one. Each is judged with hysteresis."""

    memory_bytes: int = Field(default=4 * GIB, gt=0)
    memory_percent: float = Field(default=75, gt=0, le=100)
    """Of the host's memory in use."""
    memory_growth: float = Field(default=3.0, gt=1)
    """Times the baseline that was taken before the upgrade. OpenClaw 2026.7.35 idles at 0.7 GiB and a busy 2026.9.6
    with its helpers was seen at 1.4: twice as much is a release, and no leak."""
    leak_warmup: Duration = 90.0
    """What the gateway uses in its first moments says nothing of a leak."""
    leak_window: Duration = 150.0
    """The shortest time over which a slope is believed."""
    leak_horizon: Duration = 7200.0
    """A leak that reaches the ceiling sooner than this is a failure; a slower one is a warning."""
    throughput_per_minute: float = Field(default=100, ge=0)
    """The floor, while at least as many tasks a minute are asked for; 0 switches it off."""
    throughput_fraction: float = Field(default=0.5, ge=0, le=1)
    """Of what the same hour of earlier days had, where there is history and as much demand."""
    queue_depth: int = Field(default=500, gt=0)
    p95_ms: float = Field(default=2000, gt=0)
    """Of the time from a task's creation to its start: the gateway's own part of a response."""
    loop_p99_ms: float = Field(default=2000, gt=0)
    agent_loop_ms: float = Field(default=1000, gt=0)
    disk_free: WatermarkText = Watermark(percent=5)
    disk_latency_ms: float = Field(default=2000, gt=0)
    """Of one small write that is synced."""
    clock_skew: Duration = 30.0
    """Against the median of the peers."""
    new_errors: int = Field(default=10, ge=1)
    """So many lines of error forms that the release before did not have are a failure; fewer, a warning."""
    new_errors_for: Duration = 86400.0
    """How long after an upgrade they are judged; later what is new has other causes."""
