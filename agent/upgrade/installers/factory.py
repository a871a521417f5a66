"""The one place that knows which installer a configuration asks for."""

from __future__ import annotations

from agent.config import AgentConfig, InstallerKind
from agent.layout import Layout
from agent.upgrade.installers.base import Installer
from agent.upgrade.installers.compose import ComposeInstaller
from agent.upgrade.installers.native import NativeInstaller
from agent.upgrade.installers.staged import StagedInstaller
from shared.npm import NodeTools


def make_installer(config: AgentConfig, layout: Layout, tools: NodeTools) -> Installer:
    openclaw, home = config.openclaw, config.gateway.home
    if openclaw.installer is InstallerKind.NATIVE and openclaw.native is not None:
        return NativeInstaller(openclaw.native, layout, tools, home)
    if openclaw.installer is InstallerKind.COMPOSE and openclaw.compose is not None:
        return ComposeInstaller(openclaw.compose, layout, tools, home)
    return StagedInstaller(layout, tools, home)
