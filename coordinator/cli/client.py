"""How the CLI reaches the coordinator: its address, the fleet's authority, an operator's token."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.canonical import parse_json
from shared.durable import read_secret
from shared.errors import ConfigError, UnavailableError
from shared.http import call, session
from shared.rollout import FleetView
from shared.roster import COORDINATOR_HOST
from shared.tls import client_context
from shared.wire import describe

DEFAULT_CONFIG = Path("~/.config/rollcall/config.toml")
MAX_ANSWER = 32 << 20
UPLOAD_TIMEOUT_S = 600.0

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
        self.config = load_client_config(path)

    def get(self, path: str) -> dict[str, Any]:
        return self._json("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._json("POST", path, json.dumps(body).encode())

    def delete(self, path: str) -> dict[str, Any]:
        return self._json("DELETE", path)

    def send(self, method: str, path: str, body: bytes) -> None:
        asyncio.run(self.ask(method, path, body))

    def watch(self, generation: int) -> FleetView:
        raw = asyncio.run(self.ask("GET", f"/v1/watch?generation={generation}"))
        return FleetView.from_bytes(raw, max_bytes=MAX_ANSWER)

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

    async def _call(self, *arguments: Any, **options: Any) -> bytes:
        try:
            return await call(*arguments, **options)
        except UnavailableError as error:
            if "certificate" in error.message.lower():
                error.remedy = (
                    f"if the coordinator's authority was changed, copy its authorities.pem to "
                    f"{self.config.ca_file}"
                )
            raise

    async def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        token = (await asyncio.to_thread(read_secret, self.config.token_file)).decode().strip()
        context = self._context()
        headers = {"Authorization": f"Bearer {token}"}
        async with session(context=context, headers=headers) as client:
            return await self._call(
                client,
                method,
                self.config.url + path,
                data=None if body is None else io.BytesIO(body),
                timeout_s=60 if body is None else UPLOAD_TIMEOUT_S,
                max_answer=MAX_ANSWER,
                server_hostname=COORDINATOR_HOST,
            )
