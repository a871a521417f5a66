"""Judgements of what earlier readings add up to, one a file. Pure: they read the history, and nothing else."""

from agent.readiness.guards.base import Ceiling, Guard, Threshold

__all__ = ["Ceiling", "Guard", "Threshold"]
