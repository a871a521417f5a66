"""`systemctl`, by argv and with a deadline. What is true is what `show` says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shared.command import SYSTEM_PATH, Output, run_command
from shared.errors import CommandError

CALL_TIMEOUT_S = 30.0
PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "MainPID",
    "Result",
    "ExecMainStatus",
    "NRestarts",
    "UnitFileState",
)


@dataclass(frozen=True)
class ShownUnit:
    load: str
    active: str
    sub: str
    main_pid: int | None
    result: str
    status: str
    file_state: str

    @property
    def over(self) -> bool:
        return self.active in ("inactive", "failed") and self.main_pid is None

    @property
    def masked(self) -> bool:
        """Switched off by somebody so that nothing may start it."""
        return self.load == "masked"


class Systemctl:
    """Raises CommandError when systemctl cannot be run, hangs, or refuses."""

    def __init__(self, program: Path, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._program, self._timeout_s = program, timeout_s

    async def show(self, unit: str) -> ShownUnit:
        output = await self._must("show", f"--property={','.join(PROPERTIES)}", unit)
        shown = dict(
            line.split("=", 1)
            for line in output.stdout.decode("utf-8", "replace").splitlines()
            if "=" in line
        )
        if "ActiveState" not in shown or not shown.get("MainPID", "").isdigit():
            raise CommandError(f"systemctl show {unit} printed no service that can be read")
        return ShownUnit(
            shown.get("LoadState", ""),
            shown["ActiveState"],
            shown.get("SubState", ""),
            int(shown["MainPID"]) or None,
            shown.get("Result", ""),
            shown.get("ExecMainStatus", ""),
            shown.get("UnitFileState", ""),
        )

    async def change(self, verb: str, *words: str) -> None:
        """`--no-block` where a verb would wait for a job: how long is decided here."""
        block = ["--no-block"] if verb in ("start", "stop", "restart") else []
        await self._must(verb, *block, *words)

    async def _must(self, verb: str, *words: str) -> Output:
        output = await run_command(
            [str(self._program), verb, *words],
            env={"PATH": SYSTEM_PATH, "SYSTEMD_PAGER": "", "LANG": "C.UTF-8"},
            timeout_s=self._timeout_s,
            max_output=1 << 20,
        )
        if output.timed_out:
            raise CommandError(f"systemctl {verb} did not end within {self._timeout_s:.0f} s")
        if output.code != 0:
            raise CommandError(f"systemctl {verb} {' '.join(words)} failed: {output.last_line()}")
        return output
