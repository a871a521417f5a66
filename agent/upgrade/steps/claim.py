"""claimed: everything that can be refused is refused here, while nothing has been touched."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from typing import ClassVar

import agent
from agent.openclaw.engines import stamp_of
from agent.openclaw.settings import RELEASE_PLACE, last_touched_version
from agent.openclaw.tree import core_version, read_seal, room_for_tree
from agent.upgrade.context import Context, StepFailed
from agent.upgrade.lastgood import read_last_good
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from shared.command import run_command
from shared.errors import BadInputError
from shared.release import check_floor, check_for_agent, check_unexpired, same_gateway
from shared.untrusted import Folder
from shared.versions import OpenClawVersion

STATE_COPIES = 2
UNKNOWN_TREE_BYTES = 700 << 20
FITS = """\
process.stdout.write(process.version);
const [semver, range] = process.argv.slice(1);
process.exitCode = require(semver).satisfies(process.version, range) ? 0 : 1;
"""


class Claim:
    phase: ClassVar = Phase.CLAIMED

    async def done(self, context: Context) -> Evidence | None:
        return None

    async def act(self, context: Context) -> Evidence:
        release = context.signed()
        deps = context.deps
        check_unexpired(release, deps.clock.now())
        if reason := await deps.alarm.blocked(release.id):
            raise StepFailed(
                f"release {release.label} failed on this node before: {reason}",
                remedy="freeze a corrected release under a new name, or allow it again on that"
                f" node: rollcall-agent blocklist clear {release.id[:12]}",
            )
        check_for_agent(release, agent.__version__)
        if reason := deps.alarm.frozen():
            raise StepFailed(f"this node is frozen by {reason}")
        good = await asyncio.to_thread(read_last_good, deps.layout.home)
        check_floor(release, None if good is None else good.bound)
        await asyncio.to_thread(self._check_links, context)
        await self._check_engine(context, release.manifest.node_engine)
        self._check_direction(context)
        await deps.trees.prepare(release.id)
        await asyncio.to_thread(self._check_space, context)
        before = await asyncio.to_thread(self._before, context)
        return {**before, "moves": await self._moves(context, before["previous"])}

    async def _moves(self, context: Context, previous: str | None) -> bool:
        """False for a release that differs in nothing that the gateway loads, such as another agent: it
        then runs on, and only the link moves. An overlay that names the tree is another in each tree."""
        deps, manifest = context.deps, context.signed().manifest
        if previous is None or await deps.service.alive() is None:
            return True
        kept = await deps.releases.kept(previous)
        placed = RELEASE_PLACE in json.dumps(manifest.overlay)
        return kept is None or placed or not same_gateway(kept.manifest, manifest)

    def _check_links(self, context: Context) -> None:
        """A link could not be saved and put back. Raises UntrustedError."""
        gateway = context.deps.config.gateway
        for path in (gateway.state, *gateway.workspaces):
            with contextlib.suppress(FileNotFoundError), Folder.guarded(path):
                pass

    async def _check_engine(self, context: Context, wanted: str) -> None:
        """npm's own semver judges the range: OpenClaw's engines use forms that PEP 440 lacks."""
        tools, engines = context.deps.tools, context.deps.engines
        if await asyncio.to_thread(engines.fits, tools.node, wanted):
            return
        semver = tools.npm_cli.parents[1] / "node_modules" / "semver"
        stamp = await asyncio.to_thread(stamp_of, tools.node)
        fits = await run_command(
            [str(tools.node), "-e", FITS, str(semver), wanted],
            env=tools.environment(context.deps.layout.home),
            timeout_s=30,
            account=tools.account,
        )
        if fits.code != 0:
            version = fits.stdout.decode("utf-8", "replace").strip()
            raise StepFailed(
                f"the release needs Node {wanted}; {tools.node} is {version or 'not runnable'}",
                remedy="install a fitting Node and name it in agent.toml as openclaw.node",
            )
        engines.keep(stamp, wanted)

    def _check_direction(self, context: Context) -> None:
        """State moves forward only (OPENCLAW.md, law 1): an older core cannot start on it."""
        current = context.deps.layout.current
        touched = last_touched_version(context.deps.config.gateway.state)
        if touched is None and current.exists():
            touched = core_version(current.resolve())
        target = context.signed().manifest.openclaw
        try:
            older = touched is not None and OpenClawVersion(target) < OpenClawVersion(touched)
        except BadInputError:
            older = False
        if older:
            raise StepFailed(
                f"OpenClaw {target} cannot start on state that {touched} has written",
                remedy="to go back to the release before, use: rollcall-agent rollback",
            )

    def _check_space(self, context: Context) -> None:
        """For the tree, if it is not there yet, and for the copies of the state: the bookmark's and the
        rehearsal's. Where both lie on one disk both must fit."""
        deps = context.deps
        layout, gateway = deps.layout, deps.config.gateway
        needs = {layout.releases: 0, layout.home: 0}
        if read_seal(context.tree) is None:
            seal = read_seal(layout.current.resolve()) if layout.current.exists() else None
            needs[layout.releases] += room_for_tree(seal.bytes if seal else UNKNOWN_TREE_BYTES)
        if layout.current.exists():
            size = deps.snapshots.measure([gateway.state, *gateway.workspaces])
            needs[layout.home] += STATE_COPIES * size
        together = layout.releases.stat().st_dev == layout.home.stat().st_dev
        for place, needed in needs.items():
            wanted = sum(needs.values()) if together else needed
            free = shutil.disk_usage(place).free
            if free < wanted:
                raise StepFailed(
                    f"{place} has {free >> 20} MiB free; the upgrade needs {wanted >> 20} MiB",
                    remedy="make room and set the target again",
                )

    def _before(self, context: Context) -> Evidence:
        current = context.deps.layout.current
        if not current.exists():
            return {"previous": None, "version_before": None}
        tree = current.resolve()
        return {
            "previous": tree.name,
            "version_before": core_version(tree),
        }
