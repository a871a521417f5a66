"""The one place that knows which installer a configuration asks for, and loads no other."""

from __future__ import annotations

from agent.config import AgentConfig, InstallerKind
from agent.layout import Layout
from agent.upgrade.installers.base import Installer
from shared.npm import NodeTools


def make_installer(config: AgentConfig, layout: Layout, tools: NodeTools) -> Installer:
    openclaw, home = config.openclaw, config.gateway.home
    if openclaw.installer is InstallerKind.NATIVE and openclaw.native is not None:
        from agent.upgrade.installers.native import NativeInstaller

        return NativeInstaller(openclaw.native, layout, tools, home)
    if openclaw.installer is InstallerKind.COMPOSE and openclaw.compose is not None:
        from agent.upgrade.installers.compose import ComposeInstaller

        return ComposeInstaller(openclaw.compose, layout, tools, home)
    from agent.upgrade.installers.staged import StagedInstaller

    return StagedInstaller(layout, tools, home)
