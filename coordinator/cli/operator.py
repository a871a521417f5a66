"""`rollcall operator …`: who operates the fleet, and how far."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.cli.given import seconds
from coordinator.operators import NewOperatorToken, OperatorRole, OperatorToken, OperatorTokenList
from coordinator.saying import moment
from shared.durable import write_durable
from shared.errors import ConflictError, UsageError
from shared.terminal import print_json, print_table, say

app = typer.Typer(help="The fleet's operators.", no_args_is_help=True)
tokens = typer.Typer(help="Operators' tokens.", no_args_is_help=True)
app.add_typer(tokens, name="token")


@app.callback()
def group() -> None:
    """The fleet's operators."""


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Option(help="Whose it is; the audit log names it.")],
    role: Annotated[OperatorRole, typer.Option(help="What it may do.")] = OperatorRole.VIEWER,
    ttl: Annotated[str, typer.Option(help="How long it is good for: 2h, 90d.")] = "90d",
    write_config: Annotated[
        Path | None,
        typer.Option(help="Write a configuration for --config here, the token file beside it."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Make a token. It is shown this once; the coordinator keeps only its hash."""
    client = Client(config)
    files = None if write_config is None else ConfigFiles(write_config)
    asked = {"name": name, "role": role, "ttl_s": seconds("--ttl", ttl)}
    made = NewOperatorToken.from_value(client.post("/v1/operator-tokens", asked))
    if files is not None:
        files.write(client, made.token)
        say(f"{made.who} uses --config {files.config}")
    if as_json:
        print_json(made.model_dump(mode="json"))
    elif files is None:
        sys.stdout.write(f"{made.token}\n")


@tokens.command("list")
def list_tokens(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Every token, valid or not."""
    listed = OperatorTokenList.from_value(Client(config).get("/v1/operator-tokens"))
    if as_json:
        print_json(listed.model_dump(mode="json"))
        return
    rows = [
        [
            token.id,
            token.name,
            token.role,
            _state(token, time.time()),
            token.created_by,
            "never" if token.last_used is None else moment(token.last_used),
        ]
        for token in listed.tokens
    ]
    print_table(["ID", "NAME", "ROLE", "STATE", "CREATED BY", "LAST USED"], rows, empty="none")


@tokens.command("revoke")
def revoke_token(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """End a token for ever. The last valid admin's token is kept."""
    if not (token_id.isalnum() and token_id.isascii()):
        raise UsageError(
            f"{token_id!r} is not a token's id", remedy="see: rollcall operator token list"
        )
    answer = Client(config).delete(f"/v1/operator-tokens/{token_id}")
    token = OperatorToken.from_value(answer)
    if as_json:
        print_json(token.model_dump(mode="json"))
    else:
        say(f"{token.who} is revoked")


class ConfigFiles:
    """A configuration with token and authority beside it, named relatively: the folder can be carried
    to the operator's machine. Raises ConflictError rather than write over somebody's token."""

    def __init__(self, path: Path) -> None:
        self.config = path.expanduser()
        if self.config.suffix != ".toml":
            raise UsageError(f"--write-config {path}: a configuration's name ends in .toml")
        self._token = self.config.with_suffix(".token")
        self._authority = self.config.with_suffix(".ca.crt")
        if not self.config.parent.is_dir():
            raise UsageError(f"--write-config {path}: {self.config.parent} is not a folder")
        for each in (self.config, self._token):
            if each.exists():
                raise ConflictError(f"{each} exists", remedy="choose another name, or remove it")

    def write(self, client: Client, token: str) -> None:
        write_durable(self._token, token.encode())
        write_durable(self._authority, client.config.ca_file.read_bytes(), mode=0o644)
        values = {
            "url": client.config.url,
            "ca_file": self._authority.name,
            "token_file": self._token.name,
        }
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items()]
        write_durable(self.config, "".join(lines).encode())


def _state(token: OperatorToken, now: float) -> str:
    if token.revoked is not None:
        return f"revoked {moment(token.revoked)}"
    if token.is_expired(now):
        return f"expired {moment(token.expires)}"
    return "valid" if token.expires is None else f"until {moment(token.expires)}"
