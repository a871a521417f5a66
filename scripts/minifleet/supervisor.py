"""Keeps the daemons of one fleet running, as launchd would: started again when they end unasked."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path

from shared.errors import RollcallError

RESTART_S = 0.5
STOP_S = 10.0


@dataclass
class _Kept:
    argv: list[str]
    env: dict[str, str]
    log: Path
    process: asyncio.subprocess.Process | None = None
    task: asyncio.Task[None] | None = None
    starts: int = 0


class Supervisor:
    """`patience` is how many short lives in a row are borne."""

    def __init__(self, patience: int = 5) -> None:
        self._patience = patience
        self._kept: dict[str, _Kept] = {}

    def start(self, name: str, argv: list[str], env: dict[str, str], log: Path) -> None:
        kept = _Kept(argv, env, log)
        self._kept[name] = kept
        kept.task = asyncio.create_task(self._keep(kept), name=name)

    def pid(self, name: str) -> int | None:
        process = self._kept[name].process
        return process.pid if process is not None and process.returncode is None else None

    def pids(self) -> dict[str, int]:
        return {name: pid for name in self._kept if (pid := self.pid(name)) is not None}

    def check(self) -> None:
        """Raises RollcallError when a daemon cannot stay up: it says why in its log."""
        for name, kept in self._kept.items():
            if kept.starts > self._patience:
                raise RollcallError(f"{name} keeps ending: {_tail(kept.log)}")

    async def stop(self, name: str) -> None:
        kept = self._kept.pop(name)
        if kept.task is not None:
            kept.task.cancel()
            await asyncio.gather(kept.task, return_exceptions=True)
        process = kept.process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def stop_all(self) -> None:
        for name in reversed(list(self._kept)):
            with contextlib.suppress(ProcessLookupError):
                await self.stop(name)

    async def _keep(self, kept: _Kept) -> None:
        while True:
            with kept.log.open("ab") as output:
                kept.process = await asyncio.create_subprocess_exec(
                    *kept.argv,
                    env=kept.env,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            began = asyncio.get_running_loop().time()
            await kept.process.wait()
            ran = asyncio.get_running_loop().time() - began
            kept.starts = 0 if ran > 10 else kept.starts + 1
            await asyncio.sleep(RESTART_S)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"
