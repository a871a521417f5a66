"""Makes an environment of the agent beside the running one: a venv of the same interpreter, the locked
dependencies, the wheel, a look at the result, and the mark that it is whole."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.environments import Environments
from shared.canonical import sha256_hex
from shared.clock import Clock
from shared.command import CHILD_OF, SYSTEM_PATH, end_children_of, run_command
from shared.durable import hold_lock, private_directory
from shared.errors import CommandError, RollcallError, UntrustedError
from shared.failpoint import fail_point
from shared.wheel import read_agent_wheel

log = structlog.get_logger()

CHECK_TIMEOUT_S = 60.0
MAX_OUTPUT = 4 << 20
NO_FILE = "/dev/null"
CHECK = "import agent, agent.cli.node, agent.daemon; print(agent.__version__)"
"""All that `run` takes, without running it."""
PIP = ("-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color")
INSTALL = ("install", "--quiet", "--no-cache-dir", "--only-binary", ":all:")


class BadAgentError(RollcallError):
    """This wheel does not make an agent here, however often it is tried."""

    code = "bad-agent"


@dataclass(frozen=True)
class PipSettings:
    """`python` is what venvs are made with. No pip configuration of a user is read: `config` is the one
    that the operator names, if any. `timeout_s` bounds the whole build."""

    python: Path
    config: Path | None
    timeout_s: float


class Builder:
    def __init__(self, environments: Environments, settings: PipSettings, clock: Clock) -> None:
        self._environments, self._settings, self._clock = environments, settings, clock

    async def build(self, version: str, sha256: str, wheel: Path, wheels: Path | None) -> None:
        """Make `versions/<version>` from the wheel with this hash; what stood there is thrown away. With
        `wheels`, dependencies come from that folder and from nowhere else.

        Raises BadAgentError for a wheel that is no agent, CommandError when a step fails or the time is
        over, OSError for a disk that is full. Nothing is complete then.
        """
        lock = await asyncio.to_thread(
            hold_lock, self._environments.root / ".lock", what="the folder of agent versions"
        )
        with lock:
            scratch = await asyncio.to_thread(self._prepare, version, sha256, wheel)
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    await self._install(version, wheel, wheels, scratch)
                    await self._check(version, scratch)
            except TimeoutError:
                limit = self._settings.timeout_s
                raise CommandError(f"agent {version} was not built within {limit:.0f} s") from None
            finally:
                await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
            fail_point("agent.built")
            now = self._clock.now()
            await asyncio.to_thread(self._environments.complete, version, sha256, now)
        log.info("agent built", version=version, sha256=sha256)

    def _prepare(self, version: str, sha256: str, wheel: Path) -> Path:
        """A HOME for pip that is nobody's, with the lock in it. Whatever a killed build left running would
        write under the feet of this one."""
        raw = wheel.read_bytes()
        if sha256_hex(raw) != sha256:
            raise UntrustedError(f"{wheel.name} is not the wheel with hash {sha256[:12]}")
        agent = read_agent_wheel(wheel.name, raw)
        if agent.version != version:
            raise BadAgentError(f"{wheel.name} holds agent {agent.version}, not {version}")
        end_children_of(str(self._environments.root))
        self._environments.clear(version)
        scratch = self._environments.root / ".scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        private_directory(scratch)
        (scratch / "requirements.lock").write_bytes(agent.lock)
        return scratch

    async def _install(self, version: str, wheel: Path, wheels: Path | None, scratch: Path) -> None:
        folder = self._environments.folder(version)
        python = str(self._environments.python(version))
        await self._run([str(self._settings.python), "-I", "-m", "venv", str(folder)], scratch)
        fail_point("agent.venv")
        source = [] if wheels is None else ["--no-index", "--find-links", str(wheels)]
        lock = ["--require-hashes", "-r", str(scratch / "requirements.lock")]
        await self._run([python, *PIP, *INSTALL, *source, *lock], scratch)
        fail_point("agent.dependencies")
        await self._run([python, *PIP, *INSTALL, "--no-index", "--no-deps", str(wheel)], scratch)
        fail_point("agent.installed")

    async def _run(self, argv: Sequence[str], scratch: Path) -> None:
        """Raises CommandError with the last words of what failed."""
        limit = self._settings.timeout_s
        env = self._environment(scratch)
        done = await run_command(argv, env=env, timeout_s=limit, cwd=scratch, max_output=MAX_OUTPUT)
        if done.code != 0:
            what = "pip" if "pip" in argv else "venv"
            raise CommandError(f"{what} failed ({done.code}): {done.last_line()}")

    async def _check(self, version: str, scratch: Path) -> None:
        """It starts, and calls itself what the release calls it. Raises BadAgentError."""
        argv = [str(self._environments.python(version)), "-I", "-c", CHECK]
        env = self._environment(scratch)
        done = await run_command(argv, env=env, timeout_s=CHECK_TIMEOUT_S, max_output=MAX_OUTPUT)
        said = done.stdout.decode("utf-8", "replace").strip()
        if done.code != 0:
            raise BadAgentError(f"agent {version} does not start: {done.last_line()}")
        if said != version:
            raise BadAgentError(f"agent {version} calls itself {said[:80]!r}")

    def _environment(self, scratch: Path) -> dict[str, str]:
        return {
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "PATH": SYSTEM_PATH,
            "LANG": "C.UTF-8",
            "PIP_CONFIG_FILE": str(self._settings.config or NO_FILE),
            CHILD_OF: str(self._environments.root),
        }
