"""The gateway as a service of docker compose. Docker keeps it alive and outlives the agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import StringConstraints

from agent.config import ComposeConfig
from agent.openclaw.cli import OpenClaw
from agent.service.base import Pid, ServiceSpec
from shared.canonical import parse_json
from shared.clock import Clock
from shared.command import CHILD_OF, SYSTEM_PATH, Output, run_command
from shared.errors import BadInputError, CommandError, RollcallError
from shared.wire import Wire

POLL_S = 1.0
QUERY_TIMEOUT_S = 30.0
STOP_EXTRA_S = 30.0


class Image(Wire):
    """An image by its hash, and the name that the compose files have for it."""

    id: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$")]


@dataclass(frozen=True)
class Compose:
    """`docker compose …` of one project: argv lists, an environment of ours."""

    config: ComposeConfig
    home: Path
    """HOME of docker's client; its configuration is there."""
    child_of: str

    def argv(self, *words: str) -> list[str]:
        config = self.config
        files = [word for name in config.files for word in ("-f", str(config.checkout / name))]
        env_file = [] if config.env_file is None else ["--env-file", str(config.env_file)]
        base = [str(config.docker), "compose", "-p", config.project]
        return [*base, "--project-directory", str(config.checkout), *env_file, *files, *words]

    def environment(self) -> dict[str, str]:
        path = f"{self.config.docker.parent}:{SYSTEM_PATH}"
        return {"HOME": str(self.home), "PATH": path, "LANG": "C.UTF-8", CHILD_OF: self.child_of}

    async def run(self, *words: str, timeout_s: float) -> Output:
        """Raises CommandError when it is late or fails."""
        return await self._must(self.argv(*words), f"docker compose {words[0]}", timeout_s)

    async def _inspect(self, container: str, form: str) -> dict[str, Any]:
        argv = [str(self.config.docker), "inspect", "--format", form, container]
        output = await self._must(argv, "docker inspect", QUERY_TIMEOUT_S)
        try:
            value = parse_json(output.stdout)
        except BadInputError as error:
            raise CommandError(f"docker inspect: {error}") from error
        return value if isinstance(value, dict) else {}

    async def _must(self, argv: list[str], what: str, timeout_s: float) -> Output:
        output = await run_command(argv, env=self.environment(), timeout_s=timeout_s)
        if output.timed_out:
            raise CommandError(f"{what} did not end within {timeout_s:.0f} s")
        if output.code != 0:
            raise CommandError(f"{what} failed ({output.code}): {output.last_line()}")
        return output

    async def container(self) -> str | None:
        """The gateway's, running or not; None when there is none. Raises CommandError."""
        words = ("ps", "--all", "--quiet", self.config.gateway)
        listed = await self.run(*words, timeout_s=QUERY_TIMEOUT_S)
        found = listed.stdout.decode("ascii", "replace").split()
        return found[0] if found and found[0].isalnum() else None

    async def alive(self) -> Pid | None:
        """The gateway's first process, by its number on the host. Raises CommandError."""
        container = await self.container()
        state = {} if container is None else await self._inspect(container, "{{json .State}}")
        pid = state.get("Pid")
        if state.get("Running") is not True or not isinstance(pid, int) or pid <= 0:
            return None
        return Pid(pid, _seconds(str(state.get("StartedAt"))))

    async def image(self) -> Image | None:
        """What the gateway's container was made of. Raises CommandError."""
        container = await self.container()
        if container is None:
            return None
        about = await self._inspect(
            container, '{"id":{{json .Image}},"name":{{json .Config.Image}}}'
        )
        return Image.from_value(about)

    async def name_image(self, image: Image) -> None:
        """The name means that image again. Needs no registry. Raises CommandError when it is gone."""
        argv = [str(self.config.docker), "tag", image.id, image.name]
        await self._must(argv, "docker tag", QUERY_TIMEOUT_S)


@dataclass(frozen=True)
class ComposedOpenClaw(OpenClaw):
    """OpenClaw's command line where the gateway is: in its container, which alone reaches it on
    loopback; in one of its own, with the same mounts, while the gateway is stopped."""

    compose: Compose = field(kw_only=True)

    async def run(self, *words: str, timeout_s: float) -> Output:
        config = self.compose.config
        inside = (config.gateway, *config.command, *words)
        if await self.compose.alive() is not None:
            argv = self.compose.argv("exec", "-T", *inside)
        else:
            argv = self.compose.argv("run", "--rm", "--no-deps", "-T", *inside)
        return await run_command(argv, env=self.compose.environment(), timeout_s=timeout_s)


class ComposeService:
    """Implements GatewayService. What a ServiceSpec says of argv and environment is in the compose files."""

    def __init__(self, compose: Compose, clock: Clock, on_change: Callable[[], None]) -> None:
        self._compose, self._clock, self._on_change = compose, clock, on_change
        self._lock = asyncio.Lock()

    async def start(self, spec: ServiceSpec) -> Pid:
        """`up -d` changes nothing where the gateway runs as the files say. Raises RollcallError."""
        config = self._compose.config
        async with self._lock:
            await self._compose.run("up", "--detach", config.gateway, timeout_s=config.up_timeout)
            pid = await self.alive()
        self._on_change()
        if pid is None:
            raise RollcallError(f"docker compose started {config.gateway}, and it ended at once")
        return pid

    async def stop(self, timeout_s: float) -> None:
        """A stopped service stays stopped, whatever its restart policy."""
        config = self._compose.config
        async with self._lock:
            await self._compose.run(
                "stop",
                "--timeout",
                str(int(timeout_s)),
                config.gateway,
                timeout_s=timeout_s + STOP_EXTRA_S,
            )
        self._on_change()

    async def alive(self) -> Pid | None:
        """None also while docker does not answer: readiness asks the gateway itself."""
        try:
            return await self._compose.alive()
        except CommandError:
            return None

    async def keep(self) -> None:
        """Watch for ever; starting it again is docker's own matter."""
        was = await self.alive()
        while True:
            await self._clock.sleep(POLL_S)
            running = await self.alive()
            if running != was:
                was = running
                self._on_change()


def _seconds(text: str) -> float:
    """Docker writes nine digits after the second; Python reads six (RFC 3339)."""
    whole, _, rest = text.partition(".")
    digits = rest.rstrip("Z")[:6] or "0"
    try:
        return datetime.fromisoformat(f"{whole.rstrip('Z')}.{digits:0<6}+00:00").timestamp()
    except ValueError:
        return 0.0
