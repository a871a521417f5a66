"""`rollcall keys …`: the operator's own signing key, which the coordinator never has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shared.durable import private_directory, write_durable
from shared.errors import ConflictError
from shared.keys import SigningKey
from shared.terminal import print_json, say

DEFAULT_KEYS = Path("~/.config/rollcall/keys")

app = typer.Typer(help="The operator's signing key for releases.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """The operator's signing key for releases."""


@app.command()
def init(
    folder: Annotated[Path, typer.Option(help="Where to keep the key.")] = DEFAULT_KEYS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Make the key that signs releases. Keep it away from the coordinator's machine."""
    folder = private_directory(folder.expanduser())
    private, public = folder / "release.key", folder / "release.pub"
    if private.exists():
        raise ConflictError(f"{private} exists", remedy="keep it: nodes trust releases by it")
    key = SigningKey.generate()
    key.save(private)
    write_durable(public, key.public.canonical(), mode=0o644)
    if as_json:
        print_json({"key": str(private), "public": str(public), "keyid": key.public.keyid})
    else:
        say(f"{private} signs releases; give {public} to the coordinator's first start")
