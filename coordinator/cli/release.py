"""`rollcall release …`: freeze, sign, publish, withdraw, show."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.bundle import Bundle
from coordinator.ceremony import add_release, check_name_free, withdraw
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
from coordinator.freeze import Frozen
from coordinator.saying import day
from shared.canonical import parse_json, sha256_hex
from shared.errors import ConflictError, NotFoundError, UsageError
from shared.http import RefusedError
from shared.metadata import name_of, release_path
from shared.release import RELEASE_NAME, Floor, Migration, ReleaseManifest
from shared.terminal import print_json, print_table, run_async, say
from shared.versions import check_version

app = typer.Typer(help="Signed, frozen releases.", no_args_is_help=True)

BundleArgument = Annotated[Path, typer.Argument(help="The folder that `release create` wrote.")]
PublishOption = Annotated[
    bool, typer.Option("--publish", help="Sign and publish at once, where one signature is enough.")
]
PUBLISH_TRIES = 5
SHORTEST_ID = 8


@app.command()
def create(
    version: Annotated[str, typer.Argument(help="OpenClaw's version, such as 2026.9.6.")],
    release_name: Annotated[
        str | None, typer.Option("--as", help="The release's name; the version when absent.")
    ] = None,
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
    migration: Annotated[
        list[str] | None,
        typer.Option(
            help="ID=WORDS of a call of the new openclaw on each node. May be given again."
        ),
    ] = None,
    agent_wheel: Annotated[
        Path | None, typer.Option(help="The agent's wheel that goes with this release.")
    ] = None,
    agent_wheels: Annotated[
        Path | None,
        typer.Option(
            help="A folder of wheels that the agent depends on, to travel with the release."
        ),
    ] = None,
    floor: Annotated[
        str | None,
        typer.Option(help="The lowest release that a node may go back to from this one."),
    ] = None,
    expires: Annotated[
        float, typer.Option(min=0.01, help="Days until nodes refuse to install it.")
    ] = 90,
    out: Annotated[Path | None, typer.Option(help="The bundle; NAME.bundle when absent.")] = None,
    at_once: PublishOption = False,
    node: Annotated[Path | None, typer.Option(help="The Node that runs npm.")] = None,
    npm: Annotated[Path | None, typer.Option(help="npm's npm-cli.js.")] = None,
    name: NameOption = None,
    folder: FolderOption = DEFAULT_KEYS,
    passphrase_file: PassphraseOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Resolve, write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Resolve OpenClaw and its plugins once into a bundle: what is signed is what every node installs."""
    from coordinator.freeze import Request, freeze
    from shared.npm import Npm, find_tools

    check_version(version)
    if release_name is not None and re.fullmatch(RELEASE_NAME, release_name) is None:
        raise UsageError(f"--as {release_name!r}: use letters, digits, dots, plus and hyphens")
    client, desk = Client(config), Desk(folder, name, passphrase_file)
    request = Request(
        version=version,
        name=release_name,
        plugins=_pairs(plugin, "@", "--plugin NAME@VERSION"),
        artifacts={k: Path(v) for k, v in _pairs(artifact, "=", "--artifact PACKAGE=FILE").items()},
        overlay=_read_overlay(overlay),
        migrations=[
            Migration.from_value({"id": each, "words": words.split()})
            for each, words in _pairs(migration, "=", "--migration ID=WORDS").items()
        ],
        agent_wheel=agent_wheel,
        agent_wheels=agent_wheels,
        days=expires,
    )
    published = desk.published(client)
    check_name_free(published, release_name or version)
    needed = published.root.signed.roles["targets"].threshold
    if at_once and needed > 1:
        raise UsageError(
            f"{needed} operators must sign, so it cannot be published at once",
            remedy="leave --publish out, and pass the bundle on to the others",
        )
    found_floor = None if floor is None else _floor(client, floor)
    frozen = run_async(freeze(request, Npm(find_tools(node, npm)), time.time(), say))
    frozen = replace(frozen, manifest=frozen.manifest.model_copy(update={"floor": found_floor}))
    bundle = add_release(published, frozen.manifest, frozen.files, time.time())
    folder_out = out or Path(f"{frozen.manifest.name}.bundle")
    if dry_run:
        say(f"release {frozen.manifest.name} can be frozen; nothing was written")
    elif at_once:
        _sign_and_publish(client, desk, frozen)
    else:
        bundle.save(folder_out)
        say(f"{folder_out} is drafted; sign it with: rollcall release sign {folder_out}")
    if as_json:
        print_json({"id": _id(frozen.manifest), **frozen.manifest.model_dump(mode="json")})


def _sign_and_publish(client: Client, desk: Desk, frozen: Frozen) -> None:
    """Drafted again when somebody else published in between: one signature makes that cheap."""
    for left in reversed(range(PUBLISH_TRIES)):
        published = desk.published(client)
        bundle = add_release(published, frozen.manifest, frozen.files, time.time())
        bundle.sign(*desk.keys(), published.root.signed)
        if missing := bundle.missing(published.root.signed):
            raise ConflictError(
                f"{missing} more signatures are needed, so it cannot be published at once",
                remedy="leave --publish out, and pass the bundle on to the others",
            )
        try:
            publish(client, bundle)
        except RefusedError as error:
            if error.status != 409 or not left:
                raise
            continue
        say(f"release {frozen.manifest.name} is published")
        return


@app.command()
def sign(
    bundle: BundleArgument,
    rebase: Annotated[
        bool,
        typer.Option("--rebase", help="Draft it anew on top of what was published in between."),
    ] = False,
    name: NameOption = None,
    folder: FolderOption = DEFAULT_KEYS,
    passphrase_file: PassphraseOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add this operator's signature to a drafted release. Needs the network the first time, and with
    --rebase."""
    desk = Desk(folder, name, passphrase_file)
    loaded = Bundle.load(bundle)
    if rebase:
        loaded = loaded.rebased(desk.published(Client(config)).targets.signed)
    missing = sign_and_tell(desk, loaded, desk.seen(config), bundle, yes=yes)
    if as_json:
        print_json({"bundle": str(bundle), "missing": missing})
    else:
        following = "sign" if missing else "publish"
        say(f"{'next operator' if missing else 'complete'}: rollcall release {following} {bundle}")


@app.command("publish")
def publish_release(
    bundle: BundleArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Hand a signed release to the coordinator. From then on it can be a target."""
    loaded = Bundle.load(bundle)
    state = publish(Client(config), loaded)
    if as_json:
        print_json(state)
    else:
        withdrawn = [f"{name_of(path)} withdrawn" for path in loaded.withdrawn]
        capabilities = [each.label for each in loaded.capabilities()]
        names = ", ".join([*(each.name for each in loaded.manifests()), *capabilities, *withdrawn])
        say(f"{names or 'published'}: root {state['root']}, targets {state['targets']}")


@app.command("withdraw")
def withdraw_release(
    release: Annotated[str, typer.Argument(help="The release's name.")],
    out: Annotated[Path | None, typer.Option(help="The bundle, when others must sign too.")] = None,
    name: NameOption = None,
    folder: FolderOption = DEFAULT_KEYS,
    passphrase_file: PassphraseOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Sign that nodes must not install a release any more. Those that run it go on."""
    client, desk = Client(config), Desk(folder, name, passphrase_file)
    published = desk.published(client)
    bundle = withdraw(published, release, time.time())
    folder_out = out or Path(f"withdraw-{release}.bundle")
    missing = sign_and_tell(desk, bundle, published, folder_out, yes=yes)
    if not missing:
        publish(client, bundle)
        say(f"{release} is withdrawn")
    else:
        say(f"next operator: rollcall release sign {folder_out}")
    if as_json:
        print_json({"withdrawn": release, "missing": missing, "bundle": str(folder_out)})


@app.command()
def unblock(
    release: Annotated[str, typer.Argument(help="The release's name or id.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Let a release that was rolled back too often be rolled out again. Each node's own blocklist stays."""
    client = Client(config)
    known = {each["name"]: each["id"] for each in client.get("/v1/releases")["releases"]}
    found = {id_ for name, id_ in known.items() if name == release or _begins(id_, release)}
    if len(found) != 1:
        raise NotFoundError(f"no release {release!r}", remedy=f"there are: {', '.join(known)}")
    answer = client.post(f"/v1/releases/{found.pop()}/unblock", {"reason": reason})
    if as_json:
        print_json(answer)
        return
    count = answer["forgotten"]
    say(f"{count} rollback{'' if count == 1 else 's'} of {release} forgotten")


def _begins(id_: str, text: str) -> bool:
    return len(text) >= SHORTEST_ID and id_.startswith(text)


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
            "-" if each["floor"] is None else each["floor"]["name"],
            day(each["expires"]),
        ]
        for each in answer["releases"]
    ]
    print_table(
        ["RELEASE", "ID", "OPENCLAW", "PLUGINS", "FLOOR", "EXPIRES"],
        rows,
        empty="no release; make one with: rollcall release create VERSION",
    )


@app.command()
def show(
    release: Annotated[str, typer.Argument(help="The release's name.")],
    name: NameOption = None,
    folder: FolderOption = DEFAULT_KEYS,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Everything a release fixes, and who signed for it, verified on this machine."""
    client, desk = Client(config), Desk(folder, name, None)
    published = desk.published(client)
    manifest = ReleaseManifest.from_value(_listed(client, release))
    signed = published.targets.signed.targets.get(release_path(release))
    if signed is None or signed.hashes["sha256"] != _id(manifest):
        raise NotFoundError(f"release {release!r} is not what the fleet's operators signed")
    signers = Bundle(targets=published.targets).signed_by(published.root.signed)
    value = {"id": _id(manifest), "signed_by": signers, **manifest.model_dump(mode="json")}
    if as_json:
        print_json(value)
        return
    for key, each in value.items():
        _print_row(key, each)


def _print_row(key: str, value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    sys.stdout.write(f"{key:16} {text}\n")


def _listed(client: Client, release: str) -> dict[str, Any]:
    for each in client.get("/v1/releases")["releases"]:
        if each["name"] == release:
            return {key: value for key, value in each.items() if key != "id"}
    raise NotFoundError(f"no release {release!r}", remedy="see: rollcall release list")


def _floor(client: Client, release: str) -> Floor:
    listed = _listed(client, release)
    return Floor(name=listed["name"], openclaw=listed["openclaw"], created=listed["created"])


def _id(manifest: ReleaseManifest) -> str:
    return sha256_hex(manifest.canonical())


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
