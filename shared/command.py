"""Child processes: an argv list, a clean environment, a deadline, a cap on what they may print."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from shared.account import Account, identity_of
from shared.errors import CommandError

MAX_OUTPUT = 8 << 20
NPM_LOG = "npm error A complete log of this run"
"""npm's last line, of a file that is gone by the time anybody could look."""
KILL_WAIT_S = 5.0
CHILD_OF = "ROLLCALL_CHILD_OF"
"""In the environment of a child: the home of the agent that runs it, see `end_children_of`."""
SYSTEM_PATH = "/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Output:
    """What a child left behind. `code` is None when it was killed at its deadline."""

    argv: tuple[str, ...]
    code: int | None
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def timed_out(self) -> bool:
        return self.code is None

    def last_line(self) -> str:
        """The last line that says something, for a reason a person reads."""
        for stream in (self.stderr, self.stdout):
            lines = [line.strip() for line in stream.decode("utf-8", "replace").splitlines()]
            said = [line for line in lines if line and not line.startswith(NPM_LOG)]
            if said:
                return said[-1][:400]
        return "it printed nothing"


async def run_command(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout_s: float,
    cwd: Path | None = None,
    max_output: int = MAX_OUTPUT,
    account: Account | None = None,
    stdin: bytes = b"",
) -> Output:
    """Run to the end or to the deadline; then the whole process group is killed (fault 4).

    The child leads its own session, reads `stdin` to its end, and runs as `account` if one is named, which
    only root may do. Raises CommandError when it cannot be
    started or prints more than `max_output` bytes.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    process = await _start(argv, env, cwd, account, fed=bool(stdin))
    if process.stdout is None or process.stderr is None:
        raise CommandError(f"cannot read what {argv[0]} prints")
    streams = (process.stdout, process.stderr)
    try:
        async with asyncio.timeout(timeout_s):
            reading = asyncio.gather(*(_read(each, max_output) for each in streams))
            (stdout, stderr), _ = await asyncio.gather(reading, _feed(process.stdin, stdin))
            code: int | None = await process.wait()
    except TimeoutError:
        stdout = stderr = b""
        code = None
    finally:
        if process.returncode is None:
            kill_group(process.pid)
        _close(process)
        await process.wait()
    return Output(tuple(argv), code, stdout, stderr, loop.time() - began)


async def _start(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: Path | None,
    account: Account | None,
    *,
    fed: bool,
) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if fed else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            **identity_of(account),
        )
    except OSError as error:
        raise CommandError(f"cannot run {argv[0]}: {error.strerror}") from error


def _close(process: asyncio.subprocess.Process) -> None:
    """Let go of the pipes. Waiting would hang on one that nobody reads any more, and on one that a
    grandchild holds open after its parent is gone."""
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()


async def _feed(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    """A child need not read what it is given."""
    if stream is None:
        return
    with contextlib.suppress(ConnectionError):
        stream.write(data)
        await stream.drain()
    stream.close()


async def _read(stream: asyncio.StreamReader, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while chunk := await stream.read(1 << 16):
        size += len(chunk)
        if size > limit:
            raise CommandError(f"a child printed more than {limit} bytes")
        parts.append(chunk)
    return b"".join(parts)


def kill_group(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal the group that `pid` leads; nothing when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def end_children_of(home: str) -> int:
    """Kill what an earlier agent of this home had running when it was killed: its children lead their
    own sessions, and would go on writing under the feet of the next one. Blocking."""
    return end_marked(CHILD_OF, home)


def end_marked(variable: str, value: str) -> int:
    """Kill every process but this one that has `variable=value` in its environment: also helpers that
    a command has left behind. Returns how many there were. Blocking."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(variable) == value and process.pid != os.getpid():
                process.kill()
                found.append(process)
    psutil.wait_procs(found, timeout=KILL_WAIT_S)
    return len(found)
