"""How the CLI reaches the coordinator: its address, the fleet's authority, an operator's token."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
import time
import tomllib
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import aiohttp
import typer
from pydantic import BaseModel, ConfigDict, ValidationError

from coordinator.cli.stream import EventParser, StreamEvent
from shared.canonical import parse_json, sha256_hex
from shared.durable import read_secret
from shared.errors import ConfigError, UnavailableError
from shared.http import RefusedError, call, lines, session
from shared.roster import COORDINATOR_HOST
from shared.tls import client_context
from shared.wire import describe

DEFAULT_CONFIG = Path("~/.config/rollcall/config.toml")
MAX_ANSWER = 32 << 20
UPLOAD_TIMEOUT_S = 600.0
CONNECT_S = 10.0
HTTPS = 443
SILENT_S = 40.0
"""A stream of events says at least every 15 s that it is still there."""
RETRIES_S = (0.3, 1.0, 3.0)
"""Pauses before a change is sent again whose answer did not come, under the key that it had."""
RETRY_WITHIN_S = 30.0
"""Who has waited longer than this for an answer is told."""

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config",
        envvar="ROLLCALL_CONFIG",
        help="Where the coordinator is and how to speak to it.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]


class ClientConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    ca_file: Path
    token_file: Path


def load_client_config(path: Path) -> ClientConfig:
    """Files that it names relatively lie beside it."""
    path = path.expanduser()
    try:
        config = ClientConfig.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist",
            remedy="the coordinator wrote one as operator.toml in its home: pass it with --config",
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error)}") from error
    beside = {
        "ca_file": path.parent / config.ca_file,
        "token_file": path.parent / config.token_file,
    }
    return config.model_copy(update=beside)


class Client:
    """Calls the API; refusals become errors with the coordinator's own words."""

    def __init__(self, path: Path) -> None:
        self._path, self.config = path, load_client_config(path)

    def get(self, path: str) -> dict[str, Any]:
        return self._json("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._json("POST", path, json.dumps(body).encode())

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._json("PUT", path, json.dumps(body).encode())

    def delete(self, path: str) -> dict[str, Any]:
        return self._json("DELETE", path)

    def send(self, method: str, path: str, body: bytes) -> None:
        asyncio.run(self.ask(method, path, body))

    def _json(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        value = parse_json(asyncio.run(self.ask(method, path, body)), max_bytes=MAX_ANSWER)
        return value if isinstance(value, dict) else {}

    def _context(self) -> ssl.SSLContext:
        try:
            return client_context(self.config.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"{self.config.ca_file} cannot be used as ca_file: {error.strerror or error}",
                remedy="copy the coordinator's authorities.pem there",
            ) from error

    @contextmanager
    def _with_remedy(self) -> Iterator[None]:
        """Nobody answered, or nobody we know, or we are not known: what the operator can do about it."""
        try:
            yield
        except UnavailableError as error:
            if _is_about_certificates(error):
                error.remedy = (
                    f"if the coordinator's authority was changed, copy its authorities.pem to "
                    f"{self.config.ca_file}"
                )
            elif error.remedy is None:
                error.remedy = (
                    f"does the coordinator run, and is `url` in {self._path} its address?"
                )
            raise
        except RefusedError as error:
            if error.status == 401:
                error.remedy = f"{error.remedy}; the token is in {self.config.token_file}"
            raise

    async def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """A change carries an Idempotency-Key: lost answers are asked for again, and it is made once."""
        if method == "GET":
            return await self._send(method, path, body, {})
        headers, began = {"Idempotency-Key": str(uuid.uuid4())}, time.monotonic()
        for pause in RETRIES_S:
            try:
                return await self._send(method, path, body, headers)
            except UnavailableError as error:
                late = time.monotonic() - began > RETRY_WITHIN_S
                if late or _is_about_certificates(error):
                    raise
            except RefusedError as error:
                if error.refused_code != "in-flight":
                    raise
            await asyncio.sleep(pause)
        return await self._send(method, path, body, headers)

    async def events(self, last: str = "") -> AsyncGenerator[StreamEvent]:
        """What happens from the place `last` on, or from now, until the coordinator ends the stream. Raises
        UnavailableError and what else `ask` raises."""
        headers = {"Last-Event-ID": last} if last else {}
        parser = EventParser(last)
        with self._with_remedy():
            async with await self._session(headers) as client:
                url = f"{self.config.url}/v1/events?progress=1"
                coming = lines(client, url, silent_s=SILENT_S, server_hostname=COORDINATOR_HOST)
                async with aclosing(coming):
                    async for line in coming:
                        event = parser.feed(line)
                        if event is not None:
                            yield event

    async def certificate_sha256(self) -> str:
        """Of the certificate that the coordinator shows, as browsers name it: hex. Raises as `ask` does."""
        place = urlsplit(self.config.url)
        context = self._context()
        with self._with_remedy():
            try:
                async with asyncio.timeout(CONNECT_S):
                    _, writer = await asyncio.open_connection(
                        place.hostname,
                        place.port or HTTPS,
                        ssl=context,
                        server_hostname=COORDINATOR_HOST,
                    )
            except OSError as error:
                raise UnavailableError(f"no answer from {self.config.url}: {error}") from error
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.transport.abort()
            return sha256_hex(shown)

    async def _session(self, headers: dict[str, str]) -> aiohttp.ClientSession:
        token = (await asyncio.to_thread(read_secret, self.config.token_file)).decode().strip()
        authorised = {**headers, "Authorization": f"Bearer {token}"}
        return session(context=self._context(), headers=authorised)

    async def _send(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> bytes:
        async with await self._session(headers) as client:
            with self._with_remedy():
                return await call(
                    client,
                    method,
                    self.config.url + path,
                    data=None if body is None else io.BytesIO(body),
                    timeout_s=60 if body is None else UPLOAD_TIMEOUT_S,
                    max_answer=MAX_ANSWER,
                    server_hostname=COORDINATOR_HOST,
                )


def _is_about_certificates(error: UnavailableError) -> bool:
    return "certificate" in error.message.lower()
