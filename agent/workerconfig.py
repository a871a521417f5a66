"""`[worker]` of agent.toml."""

from __future__ import annotations

from agent.section import Section
from shared.nodes import Word


class WorkerConfig(Section):
    """The cohort of workers that this node's gateway belongs to (seed 004)."""

    queue: Word
    build_id: Word | None = None
    """Which build's work it takes; the first 12 digits of the release when absent."""
