"""The demo's command line. Exit codes: 0 succeeded, 1 failed, 2 usage, 4 halted, 130 interrupted."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import Any

from coordinator.cli.client import load_client_config
from scripts.minifleet.breakage import How, break_release
from scripts.minifleet.fleet import BIN, REAL, STANDIN, MiniFleet, together
from scripts.minifleet.multicast import multicast_works
from scripts.minifleet.report import build_report, print_summary
from scripts.minifleet.view import View
from scripts.minifleet.workspace import Workspace
from scripts.pagescripts import fetch
from shared.errors import BadInputError, RollcallError
from shared.rollout import FleetView
from shared.roster import Role
from shared.terminal import EXIT_HALTED, EXIT_INTERRUPTED, print_json, say
from shared.versions import check_version

FROM, TO = "2026.7.35", "2026.9.6"
"""The newest extended-stable and the newest stable line that install plainly."""

SETTLE_S = 30.0
SOAK_S, STANDIN_SOAK_S, LEAK_SOAK_S = 5.0, 3.0, 30.0


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="Move three OpenClaw gateways from one release to the next, canary first.",
        epilog="Exit codes: 0 succeeded, 1 failed, 2 usage, 4 halted, 130 interrupted.",
    )
    parser.add_argument("--from", dest="before", default=FROM, metavar="VERSION")
    parser.add_argument("--to", dest="after", default=TO, metavar="VERSION")
    parser.add_argument("--json", action="store_true", help="the report as JSON on stdout")
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C")
    parser.add_argument("--stand-in", action="store_true", help="a small stand-in for OpenClaw")
    parser.add_argument(
        "--break",
        dest="broken",
        choices=[role.value for role in Role],
        help="the new release turns out bad on this node",
    )
    parser.add_argument(
        "--how",
        choices=[how.value for how in How],
        default="ready",
        help="in which way: doctor fails in the rehearsal, ready in service, leak in the soak (default: ready)",
    )
    parser.add_argument("--static", action="store_true", help="static peers instead of mDNS")
    options = parser.parse_args(argv)
    for name in ("before", "after"):
        try:
            check_version(getattr(options, name))
        except BadInputError as error:
            parser.error(str(error))
    if options.before == options.after:
        parser.error("--from and --to are the same version")
    return options


class Demo:
    def __init__(self, options: argparse.Namespace, view: View) -> None:
        self._options, self._view = options, view
        self._began = time.monotonic()

    async def run(self) -> int:
        options = self._options
        mdns = not options.static and await multicast_works()
        if options.keep:
            await fetch()
        workspace = Workspace()
        fleet = MiniFleet(
            workspace, STANDIN if options.stand_in else REAL, standin=options.stand_in, mdns=mdns
        )
        try:
            report = await self._move(fleet, mdns=mdns)
            self._view.clear()
            if options.json:
                print_json(report)
                print_summary(report, sys.stderr)
            else:
                print_summary(report)
            if options.keep:
                await self._keep(fleet)
        finally:
            await _undisturbed(fleet.close())
        return {"succeeded": 0, "halted": EXIT_HALTED}.get(report["outcome"], 1)

    async def _move(self, fleet: MiniFleet, *, mdns: bool) -> dict[str, Any]:
        options, view = self._options, self._view
        what = "a stand-in for OpenClaw" if options.stand_in else "the real OpenClaw"
        view.say(f"a coordinator and three agents with {what}, in {fleet.root}")
        _, releases = await together(fleet.open(), self._freeze_when_open(fleet))
        view.say(
            "agents are up; looking for each other over " + ("mDNS" if mdns else "static peers")
        )
        view.show(await fleet.until_found())
        view.say(f"installing {options.before} on all three")
        first = await fleet.set_target(releases[0], strategy="immediate", soak_s=0)
        seen = await fleet.until_ended(first, view.show)
        if seen.rollout is None or seen.rollout.state != "succeeded":
            raise RollcallError(f"{options.before} could not be installed: {_why(seen)}")
        soak = STANDIN_SOAK_S if options.stand_in else SOAK_S
        if options.broken and options.how == How.LEAK:
            soak = LEAK_SOAK_S
        view.say(f"target set: {options.after}, canary first, each soaked for {soak:.0f} s")
        second = await fleet.set_target(releases[1], strategy="canary", soak_s=soak)
        await fleet.until_ended(second, view.show)
        seen = await self._settle(fleet)
        return build_report(
            seen,
            before=options.before,
            after=options.after,
            seconds=time.monotonic() - self._began,
            standin=options.stand_in,
        )

    async def _freeze_when_open(self, fleet: MiniFleet) -> tuple[str, str]:
        """Both releases at once, as soon as there is a coordinator to publish them to."""
        options, view = self._options, self._view
        breakage = None
        await fleet.answering.wait()
        if options.broken:
            how = How(options.how)
            breakage = await break_release(fleet.npm, Role(options.broken), how, fleet.packages)
            view.say(f"the new release will turn out bad on {options.broken}: {how}")
        view.say(f"freezing {options.before} and {options.after} into signed releases")
        before, after = await together(
            fleet.freeze(options.before), fleet.freeze(options.after, breakage=breakage)
        )
        view.say(f"releases {before[:12]} and {after[:12]} are signed and published")
        return before, after

    async def _settle(self, fleet: MiniFleet) -> FleetView:
        """After the end: until every red is acked by all peers and every node has said its last word."""
        ends = time.monotonic() + SETTLE_S
        while True:
            view = await fleet.watch()
            self._view.show(view)
            peers = len(view.nodes) - 1
            still = [
                node
                for node in view.nodes
                if node.upgrade is not None and node.upgrade.outcome is None
            ]
            quiet = all(len(red.acked_by) >= peers for red in view.reds) and not still
            open_reds = [red for red in view.reds if red.open]
            frozen = all(
                node.frozen_by
                for node in view.nodes
                for red in open_reds
                if red.origin != node.name
            )
            calm = all(node.status == "green" for node in view.nodes)
            if (quiet and frozen and calm) or time.monotonic() > ends:
                return view
            await asyncio.sleep(0.3)

    async def _keep(self, fleet: MiniFleet) -> None:
        say(f"\nleft running; Ctrl-C ends it and removes {fleet.root}")
        say(f"  export ROLLCALL_CONFIG={fleet.config}")
        say("  rollcall node list; rollcall rollout status; rollcall release list")
        for line in await asyncio.to_thread(page_words, fleet.config):
            say(f"  {line}")
        for node in fleet.nodes:
            say(f"  {node.name:8} readiness http://127.0.0.1:{node.api_port}/v1/readiness")
            say(f"           rollcall-agent status --home {node.home}")
        say(f"  processes: {fleet.supervisor.pids()}")
        await asyncio.Event().wait()


def page_words(config: Path) -> list[str]:
    """Where the admin page is, and the two ways in."""
    client = load_client_config(config)
    return [
        f"the page  {client.url}",
        f"           opened and signed in by: {BIN / 'rollcall'} open --config {config}",
        f"           or with the token in {client.token_file}",
        "           your browser does not know this fleet's authority and warns: `open` says what to compare",
    ]


def _why(view: FleetView) -> str:
    return view.rollout.reason if view.rollout is not None else "no rollout"


async def _undisturbed(work: Any) -> None:
    """Cleaning up goes on through a second Ctrl-C."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            say("cleaning up; a moment")


async def run(options: argparse.Namespace) -> int:
    loop = asyncio.get_running_loop()
    with View(sys.stderr if options.json else sys.stdout) as view:
        work = asyncio.ensure_future(Demo(options, view).run())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, work.cancel)
        try:
            return await work
        except asyncio.CancelledError:
            say("interrupted; nothing is left behind")
            return EXIT_INTERRUPTED


def main() -> None:
    options = parse(sys.argv[1:])
    try:
        code = asyncio.run(run(options))
    except RollcallError as error:
        say(f"demo: {error}")
        code = 1
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    raise SystemExit(code)


if __name__ == "__main__":
    main()
