"""`rollcall-agent adopt` and `versions`: the launcher and the agent's own environments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from agent.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from agent.config import OwnConfig
from agent.layout import Layout
from shared.errors import ConfigError, UsageError
from shared.terminal import print_json, print_table, run_async, say

app = typer.Typer()


@app.command()
def adopt(
    wheel: Annotated[Path, typer.Option(help="The agent's wheel, as it goes with releases.")],
    wheels: Annotated[
        Path | None,
        typer.Option(help="A folder with its dependencies; without it pip asks its index."),
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option(
            help="The interpreter to make it with, and to run the launcher: a private one."
        ),
    ] = None,
    new_launcher: Annotated[
        bool, typer.Option("--new-launcher", help="Replace the launcher that is there.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Put the launcher and this version of the agent into the home, so that the agent can upgrade itself.

    Then have it started as HOME/launcher run. Made the same way as a self-upgrade makes the next version;
    what is active already stays the one to go back to.
    """
    import logging

    from agent.config import load_config
    from agent.environments import Environments, base_python, write_launcher
    from shared import logs
    from shared.wheel import read_agent_wheel

    if not home.is_dir():
        raise ConfigError(f"{home} does not exist", remedy="join first: rollcall-agent join TOKEN")
    if not wheel.is_file():
        raise UsageError(f"--wheel {wheel} does not exist")
    logs.configure(level=logging.WARNING)
    layout = Layout(home.absolute())
    own = load_config(layout.config).agent if layout.config.exists() else OwnConfig()
    own = own.model_copy(update={"python": python or own.python or base_python()})
    version = read_agent_wheel(wheel.name, wheel.read_bytes()).version
    say(f"building agent {version}")
    run_async(_build(layout, own, version, wheel.absolute(), wheels))
    if new_launcher or not layout.launcher.exists():
        write_launcher(layout.home, own.python or base_python())
    Environments(layout).activate(version)
    if as_json:
        print_json({"version": version, "launcher": str(layout.launcher)})
    else:
        say(f"agent {version} is active from its next start on: '{layout.launcher}' run")


async def _build(
    layout: Layout, own: OwnConfig, version: str, wheel: Path, wheels: Path | None
) -> None:
    """Unless this very wheel was built there before."""
    import asyncio

    from agent.builder import Builder, PipSettings
    from agent.environments import Environments, base_python
    from shared.canonical import sha256_hex
    from shared.clock import SystemClock
    from shared.durable import private_directory

    environments = Environments(layout)
    sha256 = sha256_hex(await asyncio.to_thread(wheel.read_bytes))
    built = await asyncio.to_thread(environments.built, version)
    if built is not None and built.sha256 == sha256:
        return
    if built is not None and environments.active == version:
        raise UsageError(
            f"agent {version} is active, and was built from another wheel",
            remedy="give the new wheel a version of its own",
        )
    await asyncio.to_thread(private_directory, layout.versions)
    pip = PipSettings(own.python or base_python(), own.pip_config, own.build_timeout)
    builder = Builder(environments, pip, SystemClock())
    await builder.build(version, sha256, wheel, None if wheels is None else wheels.absolute())


@app.command()
def versions(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """List the agent's own versions on this node: active, last good, failed and why."""
    from agent.environments import Environments

    found = Environments(Layout(home)).listing()
    if as_json:
        print_json({"versions": [_as_json(each) for each in found]})
        return
    rows = [
        [each.version, each.state, "yes" if each.healthy else "no", each.why or "-"]
        for each in found
    ]
    print_table(
        ["VERSION", "STATE", "HEALTHY", "WHY"],
        rows,
        empty="no version; this agent has no launcher: rollcall-agent adopt --wheel FILE",
    )


def _as_json(listed: Any) -> dict[str, Any]:
    return {
        "version": listed.version,
        "state": str(listed.state),
        "healthy": listed.healthy,
        "why": listed.why,
    }
