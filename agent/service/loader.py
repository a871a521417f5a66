"""Getting launchd to take a job, and to let go of it: the waiting that its codes call for (MACOS.md, 4 and 5)."""

from __future__ import annotations

from pathlib import Path

from agent.service.launchctl import Answer, Launchctl, Target
from shared.clock import Clock
from shared.errors import CommandError, UnavailableError

LOAD_S = 60.0
"""A label stays taken for some seconds after its process has gone, and longer while that one drains."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0


class Loader:
    """One job and its plist. Raises NoSessionError where the job's domain does not exist."""

    def __init__(self, target: Target, plist: Path, launchctl: Launchctl, clock: Clock) -> None:
        self._target, self._plist = target, plist
        self._launchctl, self._clock = launchctl, clock

    async def enable(self) -> None:
        """Whoever disabled it, a bootstrap would fail with 5."""
        answer = await self._launchctl.enable(self._target)
        if not answer.ok:
            raise CommandError(f"launchctl enable {self._target} failed: {answer.said}")

    async def load(self, *, reload: bool) -> None:
        """Until launchd has taken it: loaded anew where it is not loaded or holds another definition,
        kickstarted where it is loaded. 5 and 37 mean "not now" as long as there is time. Raises
        UnavailableError."""
        ends = self._clock.monotonic() + LOAD_S
        pause, booted_out = FIRST_PAUSE_S, False
        while True:
            job = await self._launchctl.job(self._target)
            if job is None:
                answer = await self._launchctl.bootstrap(self._target, self._plist)
                reload = False
            elif reload and not booted_out:
                answer = await self._launchctl.bootout(self._target)
                booted_out = True
            elif reload:
                answer = Answer(0, f"still there after bootout, {job.state}")
            else:
                answer = await self._launchctl.kickstart(self._target, kill=True)
            if answer.ok and not reload:
                return
            if self._clock.monotonic() >= ends:
                raise UnavailableError(
                    f"launchd did not start {self._target} from {self._plist} within {LOAD_S:.0f} s:"
                    f" {answer.said}",
                    remedy=f"look at: launchctl print {self._target}; launchctl print-disabled"
                    f" {self._target.domain}",
                )
            await self._clock.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def unload(self) -> None:
        """Until `print` no longer knows it. Raises UnavailableError."""
        ends = self._clock.monotonic() + LOAD_S
        answer = Answer(0, "")
        if await self._launchctl.job(self._target) is not None:
            answer = await self._launchctl.bootout(self._target)
        while (job := await self._launchctl.job(self._target)) is not None:
            if self._clock.monotonic() >= ends:
                raise UnavailableError(
                    f"{self._target} is still there {LOAD_S:.0f} s after bootout, {job.state}:"
                    f" {answer.said}"
                )
            await self._clock.sleep(FIRST_PAUSE_S)
