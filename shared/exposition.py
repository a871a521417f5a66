"""Metrics as Prometheus reads them, text format 0.0.4, and those of a process itself.

The text is written here and not by prometheus-client: what is told lies in models already, and a registry of
prometheus-client beside them would be a second memory of it. That package would also cost each agent 1.2 MB and
10 ms at its start, measured after the imports that an agent has anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import psutil

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Labels = Mapping[str, str]
Value = tuple[Labels, float]


class Kind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True)
class Process:
    """Of this process itself."""

    cpu_s: float
    resident_bytes: int
    virtual_bytes: int
    started: float
    open_fds: int


def read_process() -> Process:
    """Blocking."""
    me = psutil.Process()
    with me.oneshot():
        cpu, memory = me.cpu_times(), me.memory_info()
        return Process(
            cpu.user + cpu.system, memory.rss, memory.vms, me.create_time(), me.num_fds()
        )


def family(name: str, kind: Kind, help_text: str, values: Iterable[Value]) -> str:
    """One metric with its samples; nothing at all where there is no sample."""
    lines = [f"{name}{_labels(labels)} {_number(value)}\n" for labels, value in values]
    if not lines:
        return ""
    return f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n" + "".join(lines)


def _labels(labels: Labels) -> str:
    said = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
    return f"{{{said}}}" if said else ""


def _number(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(value)


def states(label: str, known: Iterable[str], now: str | None) -> list[Value]:
    """A state as OpenMetrics has it: one sample for each that there is, 1 for the one that holds."""
    return [({label: state}, float(state == now)) for state in known]


def gauge(name: str, help_text: str, value: float) -> str:
    return family(name, Kind.GAUGE, help_text, [({}, value)])


def process_families(process: Process, whose: str) -> Iterator[str]:
    """`whose` as in 'Processor time of the agent.'"""
    yield family(
        "process_cpu_seconds_total",
        Kind.COUNTER,
        f"Processor time of {whose}.",
        [({}, process.cpu_s)],
    )
    yield gauge(
        "process_resident_memory_bytes", f"Resident memory of {whose}.", process.resident_bytes
    )
    yield gauge(
        "process_virtual_memory_bytes", f"Virtual memory of {whose}.", process.virtual_bytes
    )
    yield gauge("process_start_time_seconds", f"When {whose} was started.", process.started)
    yield gauge("process_open_fds", f"Open file descriptors of {whose}.", process.open_fds)
