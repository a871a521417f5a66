"""`launchctl`, by argv and with a deadline. What is true is what `print` says; codes only hint (MACOS.md, 4)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from agent.service.printed import (
    NO_DOMAIN,
    NO_SERVICE,
    NO_SESSION,
    PrintedJob,
    read_disabled,
    read_job,
)
from shared.command import SYSTEM_PATH, Output, run_command
from shared.errors import CommandError, UnavailableError

CALL_TIMEOUT_S = 20.0


class NoSessionError(UnavailableError):
    """Booted, no session: the user's GUI domain does not exist before a login (MACOS.md, 8)."""

    code = "no-session"

    def __init__(self, domain: str) -> None:
        super().__init__(
            f"booted, no session: {domain} does not exist before that user has logged in",
            remedy="log in at the screen (after a restart FileVault waits for it too), turn on automatic"
            " login, or run the gateway in the system domain",
        )


@dataclass(frozen=True)
class Answer:
    """How one call ended; `said` is its last line, for people."""

    code: int
    said: str

    @property
    def ok(self) -> bool:
        return self.code == 0


@dataclass(frozen=True)
class Target:
    """One job of one domain."""

    domain: str
    label: str

    def __str__(self) -> str:
        return f"{self.domain}/{self.label}"

    @property
    def uid(self) -> int | None:
        """Whose GUI session it is; None in the system domain."""
        kind, _, uid = self.domain.partition("/")
        return int(uid) if kind == "gui" else None


class Launchctl:
    """Raises CommandError when launchctl cannot be run, hangs, or prints what cannot be understood."""

    def __init__(self, program: Path, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._program, self._timeout_s = program, timeout_s

    async def job(self, target: Target) -> PrintedJob | None:
        """None when it is not loaded. Raises NoSessionError when its domain does not exist."""
        output = await self._run("print", str(target))
        if output.code in (NO_DOMAIN, NO_SESSION) or b"Could not find domain" in output.stderr:
            raise NoSessionError(target.domain)
        if output.code != 0:
            if output.code == NO_SERVICE or b"Could not find service" in output.stderr:
                return None
            raise CommandError(f"launchctl print {target} failed: {_said(output)}")
        job = read_job(output.stdout.decode("utf-8", "replace"))
        if job is None:
            raise CommandError(f"launchctl print {target} printed no job that can be read")
        return job

    async def has_domain(self, domain: str) -> bool:
        return (await self._run("print", domain)).code == 0

    async def disabled(self, target: Target) -> bool:
        """Whether somebody switched it off; that is remembered across bootout and restarts."""
        output = await self._run("print-disabled", target.domain)
        labels = read_disabled(output.stdout.decode("utf-8", "replace"))
        return labels.get(target.label, False)

    async def enable(self, target: Target) -> Answer:
        return await self._change(target, "enable", str(target))

    async def disable(self, target: Target) -> Answer:
        return await self._change(target, "disable", str(target))

    async def bootstrap(self, target: Target, plist: Path) -> Answer:
        return await self._change(target, "bootstrap", target.domain, str(plist))

    async def bootout(self, target: Target) -> Answer:
        return await self._change(target, "bootout", str(target))

    async def kickstart(self, target: Target, *, kill: bool) -> Answer:
        words = ["-k"] if kill else []
        return await self._change(target, "kickstart", *words, str(target))

    async def _change(self, target: Target, *words: str) -> Answer:
        """A second time within the user's session where launchd wants it so: root's daemon stands in
        another one."""
        output = await self._run(*words)
        if output.code == NO_SESSION and target.uid is not None:
            if not await self.has_domain(target.domain):
                raise NoSessionError(target.domain)
            if os.geteuid() == 0:
                program = str(self._program)
                output = await self._run("asuser", str(target.uid), program, *words)
        return Answer(output.code or 0, _said(output))

    async def _run(self, *words: str) -> Output:
        output = await run_command(
            [str(self._program), *words],
            env={"PATH": SYSTEM_PATH},
            timeout_s=self._timeout_s,
        )
        if output.timed_out:
            raise CommandError(f"launchctl {words[0]} did not end within {self._timeout_s:.0f} s")
        return output


def _said(output: Output) -> str:
    """The failure; launchctl adds "Try re-running the command as root" below it, also for root."""
    lines = output.stderr.decode("utf-8", "replace").splitlines()
    failures = [line.strip() for line in lines if "failed:" in line or "Could not" in line]
    return failures[0][:400] if failures else output.last_line()
