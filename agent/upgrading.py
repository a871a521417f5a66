"""What moves a node, put together: the agent's own version, and the conductor with what it keeps."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import agent
from agent.alarm import Alarms
from agent.builder import Builder, PipSettings
from agent.changes import Changes
from agent.conductor import Conductor
from agent.config import OwnConfig
from agent.environments import Environments, base_python, launched_version
from agent.freezes import Freezes
from agent.health import Health, Senses, is_serving
from agent.layout import Layout
from agent.peers.mesh import Mesh
from agent.readiness.monitor import Monitor
from agent.self_upgrade import Files, Node, SelfUpgrade
from agent.standing import Outlook
from agent.store import Store
from agent.upgrade.bookmark import Keeping
from agent.upgrade.context import Deps
from agent.upgrade.journal import Journal
from agent.upgrade.keeper import Keeper
from shared.clock import Clock


@dataclass(frozen=True)
class OwnVersion:
    """The agent as something that is upgraded itself."""

    health: Health
    upgrade: SelfUpgrade


def own_version(
    config: OwnConfig,
    layout: Layout,
    senses: Senses,
    clock: Clock,
    files: Files,
    alarms: Alarms,
    say: Callable[[str], None],
) -> OwnVersion:
    environments = Environments(layout)
    version = launched_version(layout, os.environ, sys.prefix)
    health = Health(version, environments, senses, clock, config.healthy_timeout)
    pip = PipSettings(config.python or base_python(), config.pip_config, config.build_timeout)
    node = Node(
        agent.__version__,
        version is not None,
        lambda: health.settled,
        lambda: is_serving(senses.document()),
    )
    builder = Builder(environments, pip, clock)
    return OwnVersion(health, SelfUpgrade(node, environments, builder, files, alarms, say))


class Upgrading:
    """OpenClaw's upgrades: who conducts them, what they leave behind, and what the next one would meet."""

    def __init__(
        self,
        deps: Deps,
        store: Store,
        mesh: Mesh,
        alarms: Alarms,
        freezes: Freezes,
        monitor: Monitor,
        changes: Changes,
        own: OwnVersion,
    ) -> None:
        layout, limits = deps.layout, deps.config.upgrade
        journal = Journal(layout.journal / "upgrade.log")
        self.keeper = Keeper(
            deps.bookmarks,
            store,
            layout,
            deps.clock,
            lambda: journal.record,
            Keeping(limits.keep_bookmarks, limits.keep_bookmark_days),
            changes.notify,
        )
        self.outlook = Outlook(layout, deps.config.gateway, deps.snapshots, deps.clock, changes)
        self.conductor = Conductor(
            deps, journal, mesh, alarms, freezes, monitor, changes, own.upgrade
        )
