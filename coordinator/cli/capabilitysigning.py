"""`rollcall capability create` and `withdraw`: what operators sign, by the ceremony that releases are signed by."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.bundling import BundleRequest, MadeBundle, make_bundle
from coordinator.ceremony import add_capability, withdraw_capability
from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.cli.desk import (
    DEFAULT_KEYS,
    Desk,
    FolderOption,
    NameOption,
    PassphraseOption,
    YesOption,
    publish,
    sign_and_tell,
)
from shared.canonical import parse_json, sha256_hex
from shared.capability import Smoke
from shared.errors import ConflictError, UsageError
from shared.http import RefusedError
from shared.npm import Npm, find_tools
from shared.terminal import print_json, run_async, say

PUBLISH_TRIES = 5


def create(
    source: Annotated[Path, typer.Argument(help="The folder or tarball of a plugin or a skill.")],
    owner: Annotated[str, typer.Option(help="The node that takes it first.")],
    as_name: Annotated[
        str | None, typer.Option("--as", help="Its name; what it calls itself when absent.")
    ] = None,
    as_version: Annotated[
        str | None, typer.Option(help="Its version; the npm package's when absent.")
    ] = None,
    openclaw: Annotated[
        str, typer.Option(help="Which OpenClaw it is for: '>=2026.8.1 <2027.1.1'; * is any.")
    ] = "*",
    plugin_config: Annotated[
        Path | None, typer.Option(help="JSON: merged into plugins.entries.ID of openclaw.json.")
    ] = None,
    smoke: Annotated[
        list[Smoke] | None, typer.Option(help="What is asked afterwards. May be given again.")
    ] = None,
    needs: Annotated[
        list[Path] | None,
        typer.Option(help="The tarball of a package that it depends on. May be given again."),
    ] = None,
    expires: Annotated[float, typer.Option(min=0.01, help="Days until nodes refuse it.")] = 90,
    out: Annotated[
        Path | None, typer.Option(help="The bundle; NAME-VERSION.bundle when absent.")
    ] = None,
    at_once: Annotated[
        bool,
        typer.Option("--publish", help="Sign and hand in at once, where one signature is enough."),
    ] = False,
    node: Annotated[Path | None, typer.Option(help="The Node that runs npm.")] = None,
    npm: Annotated[Path | None, typer.Option(help="npm's npm-cli.js.")] = None,
    name: NameOption = None,
    folder: FolderOption = DEFAULT_KEYS,
    passphrase_file: PassphraseOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Make it, write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a capability out of a folder, to be signed like a release: sign and hand it in with `rollcall release
    sign` and `rollcall release publish`. `rollcall capability publish` then puts it onto nodes."""
    client, desk = Client(config), Desk(folder, name, passphrase_file)
    request = BundleRequest(
        source=source,
        owner=owner,
        name=as_name,
        version=as_version,
        openclaw=openclaw,
        config=_read_config(plugin_config),
        smoke=smoke or [],
        needs=needs or [],
        days=expires,
    )
    published = desk.published(client)
    needed = published.root.signed.roles["targets"].threshold
    if at_once and needed > 1:
        raise UsageError(
            f"{needed} operators must sign, so it cannot be handed in at once",
            remedy="leave --publish out, and pass the bundle on to the others",
        )
    made = run_async(make_bundle(request, Npm(find_tools(node, npm)), time.time()))
    manifest = made.manifest
    bundle = add_capability(published, manifest, made.files, time.time())
    folder_out = out or Path(f"{manifest.name}-{manifest.version}.bundle")
    if dry_run:
        say(f"{manifest.kind} {manifest.label} can be signed; nothing was written")
    elif at_once:
        _sign_and_publish(client, desk, made)
    else:
        bundle.save(folder_out)
        say(f"{folder_out} is drafted; sign it with: rollcall release sign {folder_out}")
    if as_json:
        print_json({"id": sha256_hex(manifest.canonical()), **manifest.model_dump(mode="json")})


def _sign_and_publish(client: Client, desk: Desk, made: MadeBundle) -> None:
    """Drafted again when somebody else published in between."""
    for left in reversed(range(PUBLISH_TRIES)):
        published = desk.published(client)
        bundle = add_capability(published, made.manifest, made.files, time.time())
        bundle.sign(*desk.keys(), published.root.signed)
        if missing := bundle.missing(published.root.signed):
            raise ConflictError(
                f"{missing} more signatures are needed, so it cannot be handed in at once",
                remedy="leave --publish out, and pass the bundle on to the others",
            )
        try:
            publish(client, bundle)
        except RefusedError as error:
            if error.status != 409 or not left:
                raise
            continue
        say(
            f"{made.manifest.label} is signed; onto nodes: rollcall capability publish {made.manifest.label}"
        )
        return


def withdraw(
    capability: Annotated[str, typer.Argument(help="NAME@VERSION.")],
    out: Annotated[Path | None, typer.Option(help="The bundle, when others must sign too.")] = None,
    name: NameOption = None,
    folder: FolderOption = DEFAULT_KEYS,
    passphrase_file: PassphraseOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Sign that nodes must not install it any more. Those that have it keep it: `unpublish` takes it off."""
    word, _, version = capability.partition("@")
    if not version:
        raise UsageError(f"{capability!r} is not of the form NAME@VERSION")
    client, desk = Client(config), Desk(folder, name, passphrase_file)
    published = desk.published(client)
    bundle = withdraw_capability(published, word, version, time.time())
    folder_out = out or Path(f"withdraw-{word}-{version}.bundle")
    missing = sign_and_tell(desk, bundle, published, folder_out, yes=yes)
    if not missing:
        publish(client, bundle)
        say(f"{capability} is withdrawn")
    else:
        say(f"next operator: rollcall release sign {folder_out}")
    if as_json:
        print_json({"withdrawn": capability, "missing": missing, "bundle": str(folder_out)})


def _read_config(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        value = parse_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"--plugin-config {path}: {error.strerror}") from error
    if not isinstance(value, dict):
        raise UsageError(f"--plugin-config {path} holds no object")
    return value
