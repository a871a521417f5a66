"""`rollcall release …`: freeze, sign, publish, list."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.cli.keys import DEFAULT_KEYS
from shared.canonical import parse_json
from shared.errors import UsageError
from shared.keys import SigningKey
from shared.release import Release, sign_release
from shared.terminal import print_json, print_table, run_async, say
from shared.versions import check_version

app = typer.Typer(help="Signed, frozen releases.", no_args_is_help=True)


@app.command()
def create(
    version: Annotated[str, typer.Argument(help="OpenClaw's version, such as 2026.9.6.")],
    name: Annotated[str | None, typer.Option(help="Its name; the version when absent.")] = None,
    plugin: Annotated[
        list[str] | None, typer.Option(help="NAME@VERSION of a plugin. May be given again.")
    ] = None,
    artifact: Annotated[
        list[str] | None,
        typer.Option(help="PACKAGE=FILE.tgz for a package no registry has. May be given again."),
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(help="JSON: a role or '*' to a merge patch of openclaw.json."),
    ] = None,
    expires: Annotated[float, typer.Option(help="Days until nodes refuse to install it.")] = 90,
    key: Annotated[Path, typer.Option(help="The operator's signing key.")] = (
        DEFAULT_KEYS / "release.key"
    ),
    node: Annotated[Path | None, typer.Option(help="The Node that runs npm.")] = None,
    npm: Annotated[Path | None, typer.Option(help="npm's npm-cli.js.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Resolve, publish nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Resolve OpenClaw and its plugins once, sign the result, and publish it to the coordinator."""
    from coordinator.freeze import Request, freeze
    from shared.npm import Npm, find_tools

    check_version(version)
    signing = _signing_key(key.expanduser())
    client = None if dry_run else Client(config)
    request = Request(
        version=version,
        name=name,
        plugins=_pairs(plugin, "@", "--plugin NAME@VERSION"),
        artifacts={k: Path(v) for k, v in _pairs(artifact, "=", "--artifact PACKAGE=FILE").items()},
        overlay=_read_overlay(overlay),
        days=expires,
    )
    frozen = run_async(freeze(request, Npm(find_tools(node, npm)), time.time(), say))
    release = sign_release(frozen.manifest, signing)
    if client is not None:
        _publish(client, release, frozen.files)
    if as_json:
        print_json({"id": release.id, **frozen.manifest.model_dump(mode="json")})
    else:
        done = "would be" if dry_run else "is"
        say(f"release {release.label} {done} published; lock {frozen.manifest.lock_sha256[:12]}")


@app.command("list")
def list_releases(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Every release that can be a target."""
    answer = Client(config).get("/v1/releases")
    if as_json:
        print_json(answer)
        return
    rows = [
        [
            each["name"],
            each["id"][:12],
            each["openclaw"],
            ", ".join(f"{n}@{v}" for n, v in each["plugins"].items()) or "-",
            time.strftime("%Y-%m-%d", time.gmtime(each["expires"])),
        ]
        for each in answer["releases"]
    ]
    print_table(
        ["RELEASE", "ID", "OPENCLAW", "PLUGINS", "EXPIRES"],
        rows,
        empty="no release; make one with: rollcall release create VERSION",
    )


def _signing_key(path: Path) -> SigningKey:
    if not path.exists():
        raise UsageError(f"{path} does not exist", remedy="make it once with: rollcall keys init")
    return SigningKey.load(path)


def _publish(client: Client, release: Release, files: dict[str, bytes]) -> None:
    """The files first: a release whose files are not there is refused."""
    for sha256, body in files.items():
        client.send("PUT", f"/v1/blobs/{sha256}", body)
    client.send("POST", "/v1/releases", release.envelope.encode())


def _pairs(words: list[str] | None, mark: str, form: str) -> dict[str, str]:
    found = {}
    for word in words or []:
        left, _, right = word.rpartition(mark) if mark == "@" else word.partition(mark)
        if not left or not right:
            raise UsageError(f"{word!r} is not of the form {form}")
        found[left] = right
    return found


def _read_overlay(path: Path | None) -> dict[str, dict[str, Any]]:
    if path is None:
        return {}
    try:
        value = parse_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"--overlay {path}: {error.strerror}") from error
    if not isinstance(value, dict) or not all(isinstance(each, dict) for each in value.values()):
        raise UsageError(
            f"--overlay {path}: {json.dumps(value)[:80]} does not map roles to objects"
        )
    return value
