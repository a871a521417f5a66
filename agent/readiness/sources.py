"""A probe's reading from a server or a program that the operator names, in place of the gateway's own.

Whatever is late, too large, refused, non-zero or of another form raises, and the probe is then unknown.
"""

from __future__ import annotations

from typing import Any, Protocol

import aiohttp

from agent.openclaw.cli import OpenClaw
from agent.readiness.config import SourceConfig
from shared.canonical import parse_json
from shared.command import run_command
from shared.errors import BadInputError, CommandError

MAX_READING = 1 << 20


class Source(Protocol):
    async def read(self, openclaw: OpenClaw) -> bytes:
        """Raises CommandError when there is nothing to judge."""
        ...


class HttpSource:
    """`GET url` must answer 200; redirections are not followed."""

    def __init__(self, client: aiohttp.ClientSession, url: str, timeout_s: float) -> None:
        self._client, self._url, self._timeout_s = client, url, timeout_s

    async def read(self, openclaw: OpenClaw) -> bytes:
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            async with self._client.get(
                self._url, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise CommandError(f"{self._url} answered {response.status}")
                return await self._body(response)
        except TimeoutError:
            raise CommandError(f"{self._url} did not answer in {self._timeout_s:g} s") from None
        except aiohttp.ClientConnectorError:
            raise CommandError(f"nothing listens at {self._url}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise CommandError(f"{self._url}: {type(error).__name__}") from error

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_READING:
                raise CommandError(f"{self._url} answered with more than {MAX_READING} bytes")
        return bytes(body)


class CommandSource:
    """Runs as the gateway's account, with its HOME; what it prints counts when it exits with 0."""

    def __init__(self, argv: list[str], timeout_s: float) -> None:
        self._argv, self._timeout_s = argv, timeout_s

    async def read(self, openclaw: OpenClaw) -> bytes:
        name = self._argv[0]
        output = await run_command(
            self._argv,
            env=openclaw.environment(),
            timeout_s=self._timeout_s,
            cwd=openclaw.home,
            max_output=MAX_READING,
            account=openclaw.tools.account,
        )
        if output.timed_out:
            raise CommandError(f"{name} did not end in {self._timeout_s:g} s and was killed")
        if output.code != 0:
            raise CommandError(f"{name} ended with {output.code}: {output.last_line()}")
        return output.stdout


def make_source(config: SourceConfig | None, client: aiohttp.ClientSession) -> Source | None:
    """None where the gateway itself is asked."""
    if config is None:
        return None
    if config.url is not None:
        return HttpSource(client, config.url, config.timeout)
    return CommandSource(config.argv, config.timeout)


def parse_reading(raw: bytes) -> Any:
    """Raises CommandError for what is no JSON."""
    try:
        return parse_json(raw, max_bytes=MAX_READING)
    except BadInputError as error:
        raise CommandError(f"the reading cannot be used: {error.message}") from error
