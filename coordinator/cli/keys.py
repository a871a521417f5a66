"""`rollcall keys …`: operators' own keys, and who may sign for this fleet. The coordinator never has them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from coordinator.bundle import Bundle
from coordinator.ceremony import Change, begin, change
from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.cli.desk import (
    DEFAULT_KEYS,
    DEFAULT_NAME,
    Desk,
    FolderOption,
    NameOption,
    PassphraseOption,
    YesOption,
    newest_root,
    pin_root,
    publish,
    sign_and_tell,
)
from shared.errors import ConflictError, UntrustedError, UsageError
from shared.fleet import MAX_WITNESSES
from shared.keys import OperatorKeys, load_operator_keys
from shared.metadata import fingerprint, operators_of
from shared.terminal import print_json, say
from shared.wire import is_node_name

app = typer.Typer(help="Operators' keys, and who may sign.", no_args_is_help=True)

OutOption = Annotated[
    Path | None, typer.Option("--out", help="Where to write the bundle for others to sign.")
]
WithOption = Annotated[
    list[Path] | None,
    typer.Option("--with", help="Another operator's .pub file. May be given again."),
]
ThresholdOption = Annotated[
    int | None,
    typer.Option(min=1, help="How many operators must sign; as before, or 1, when absent."),
]


@app.command()
def make(
    name: Annotated[str, typer.Option(help="This operator's name.")] = DEFAULT_NAME,
    folder: FolderOption = DEFAULT_KEYS,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make this operator's root and targets key, under a passphrase; show others only the .pub file."""
    desk = Desk(folder, name, passphrase_file)
    public = desk.make_keys(name)
    path = desk.folder / f"{name}.pub"
    if as_json:
        print_json({"public": str(path), **public.model_dump(mode="json")})
    else:
        say(f"keys of {name} are in {desk.folder}; others need {path}")


@app.command()
def init(
    name: NameOption = None,
    others: WithOption = None,
    threshold: ThresholdOption = None,
    folder: FolderOption = DEFAULT_KEYS,
    passphrase_file: PassphraseOption = None,
    out: OutOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Sign a new fleet: its first root, and the coordinator's keys. Makes this operator's keys first.

    With one operator it is published at once. With more, the bundle goes on to the others: `rollcall
    keys sign BUNDLE`, and the last one publishes it: `rollcall keys publish BUNDLE`.
    """
    client = Client(config)
    desk = Desk(folder, name, passphrase_file)
    if client.get("/v1/trust")["root"]:
        raise ConflictError(
            "operators have signed this fleet already",
            remedy="to trust it: rollcall keys trust; to change who signs: rollcall keys rotate",
        )
    known = _load(others)
    if (threshold or 1) > len(known) + 1:
        raise UsageError(
            f"{threshold} of {len(known) + 1} operators can never sign",
            remedy="name the others with --with, or lower --threshold",
        )
    own = desk.public() if desk.has_keys() else desk.make_keys(name or DEFAULT_NAME)
    operators = [own, *known]
    bundle = begin(desk.coordinator(client), operators, threshold or 1, time.time())
    _finish(desk, client, bundle, out or Path("fleet.bundle"), yes=yes, as_json=as_json)


@app.command()
def sign(
    bundle: Annotated[Path, typer.Argument(help="The folder that another operator sent.")],
    name: NameOption = None,
    folder: FolderOption = DEFAULT_KEYS,
    passphrase_file: PassphraseOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add this operator's signature to a bundle. Read what it says before you agree. Needs no network; run
    `rollcall keys show` before, so that it is compared with what is in force."""
    desk = Desk(folder, name, passphrase_file)
    loaded, published = Bundle.load(bundle), desk.known()
    missing = sign_and_tell(desk, loaded, published, bundle, yes=yes)
    pin_root(desk, loaded)
    if as_json:
        print_json({"bundle": str(bundle), "missing": missing})
    elif not missing:
        say(f"complete; publish it with: rollcall keys publish {bundle}")


@app.command("publish")
def publish_bundle(
    bundle: Annotated[Path, typer.Argument(help="A bundle that enough operators have signed.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Hand a signed bundle to the coordinator; nodes take it from there."""
    state = publish(Client(config), Bundle.load(bundle))
    if as_json:
        print_json(state)
    else:
        say(f"published: root {state['root']}, targets {state['targets']}")


@app.command()
def rotate(
    add: WithOption = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--without", help="An operator whose keys count no more. May be given again."),
    ] = None,
    threshold: ThresholdOption = None,
    drop_authority: Annotated[
        bool,
        typer.Option(
            "--drop-authority",
            help="Honour only the newest TLS authority: at the end of a change, or after a theft.",
        ),
    ] = False,
    name: NameOption = None,
    folder: FolderOption = DEFAULT_KEYS,
    passphrase_file: PassphraseOption = None,
    out: OutOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """A new root: other operators, another threshold, or the coordinator's next keys, made there by
    `rollcall coordinator rotate`. The operators of the root before must sign as well as the new ones."""
    client, desk = Client(config), Desk(folder, name, passphrase_file)
    published = desk.published(client)
    asked = Change(tuple(_load(add)), tuple(remove or ()), threshold, overlap=not drop_authority)
    bundle = change(published, desk.coordinator(client), asked, time.time())
    _finish(desk, client, bundle, out or _folder_of(bundle), yes=yes, as_json=as_json)


@app.command()
def renew(
    name: NameOption = None,
    folder: FolderOption = DEFAULT_KEYS,
    passphrase_file: PassphraseOption = None,
    out: OutOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Sign the same root and targets again, with a later expiry."""
    client, desk = Client(config), Desk(folder, name, passphrase_file)
    published = desk.published(client)
    keys = desk.coordinator(client).model_copy(update={"next": None})
    bundle = change(published, keys, Change(), time.time())
    _finish(desk, client, bundle, out or _folder_of(bundle), yes=yes, as_json=as_json)


@app.command()
def witnesses(
    names: Annotated[
        list[str] | None, typer.Argument(help="The nodes that must see each upgraded node green.")
    ] = None,
    everyone: Annotated[
        bool, typer.Option("--everyone", help="Every live peer again, as in a new fleet.")
    ] = False,
    name: NameOption = None,
    folder: FolderOption = DEFAULT_KEYS,
    passphrase_file: PassphraseOption = None,
    out: OutOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Name the nodes whose green is the quorum of an attestation, instead of every live peer.

    Signed into the fleet document: the coordinator cannot change them. One that is away keeps every node from
    being attested, so name as few as you trust and at least two.
    """
    chosen = names or []
    if bool(chosen) == everyone:
        raise UsageError("name the witnesses, or say --everyone")
    for each in chosen:
        if not is_node_name(each):
            raise UsageError(f"{each!r} is no node's name")
    if len(set(chosen)) == 1 or len(set(chosen)) > MAX_WITNESSES:
        raise UsageError(f"there are 2 to {MAX_WITNESSES} witnesses, or every live peer")
    client, desk = Client(config), Desk(folder, name, passphrase_file)
    published = desk.published(client)
    keys = desk.coordinator(client).model_copy(update={"next": None})
    asked = Change(witnesses=tuple(sorted(set(chosen))))
    bundle = change(published, keys, asked, time.time())
    _finish(desk, client, bundle, out or _folder_of(bundle), yes=yes, as_json=as_json)


@app.command()
def trust(
    sha256: Annotated[
        str | None, typer.Option(help="The fingerprint, as another operator reads it to you.")
    ] = None,
    folder: FolderOption = DEFAULT_KEYS,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Trust an existing fleet's root on this machine. Without --sha256 it is shown, and not trusted."""
    version, found = newest_root(Client(config))
    if sha256 is not None and sha256 != found:
        raise UntrustedError(
            f"the coordinator's root is {found}", remedy="ask the other operator again"
        )
    if sha256 is not None:
        Desk(folder, None, None).trust(version, sha256)
    if as_json:
        print_json({"root_sha256": found, "trusted": sha256 is not None})
    else:
        say(f"root {found} {'is trusted here' if sha256 else 'is what the coordinator shows'}")
        if sha256 is None:
            say("  nothing is trusted yet; compare it with another operator, then add --sha256")


@app.command()
def show(
    folder: FolderOption = DEFAULT_KEYS,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Who may sign for this fleet, how many must, and until when."""
    published = Desk(folder, None, None).published(Client(config))
    root, targets = published.root.signed, published.targets.signed
    value = {
        "root": root.version,
        "root_sha256": fingerprint(published.root),
        "threshold": root.roles["root"].threshold,
        "operators": [each.name for each in operators_of(root)],
        "root_expires": root.expires.timestamp(),
        "targets": targets.version,
        "targets_expires": targets.expires.timestamp(),
        "fleet_document": published.fleet.version,
        "authorities": len(published.fleet.authorities),
        "witnesses": published.fleet.witnesses,
    }
    if as_json:
        print_json(value)
        return
    say(f"root {root.version} until {root.expires:%Y-%m-%d}, fingerprint {value['root_sha256']}")
    say(
        f"  {value['threshold']} of {', '.join(each.name for each in operators_of(root))} must sign"
    )
    say(f"targets {targets.version} until {targets.expires:%Y-%m-%d}")
    say(f"fleet document {published.fleet.version}, {value['authorities']} TLS authority in force")
    named = ", ".join(published.fleet.witnesses) or "every live peer"
    say(f"  an upgraded node must be seen green by {named}")


def _folder_of(bundle: Bundle) -> Path:
    version = 0 if bundle.root is None else bundle.root.signed.version
    return Path(f"root-{version}.bundle")


def _load(paths: list[Path] | None) -> list[OperatorKeys]:
    return [load_operator_keys(path.expanduser()) for path in paths or []]


def _finish(
    desk: Desk, client: Client, bundle: Bundle, folder: Path, *, yes: bool, as_json: bool
) -> None:
    """Sign; publish when that was the last signature, else keep the bundle for the others."""
    published = desk.known()
    if (folder / "root.json").exists():
        raise ConflictError(f"{folder} holds a bundle already", remedy="name another with --out")
    missing = sign_and_tell(desk, bundle, published, folder, yes=yes)
    pin_root(desk, bundle)
    state: dict[str, object] = {"bundle": str(folder), "missing": missing}
    if missing:
        say(f"the others sign it with: rollcall keys sign {folder}")
    else:
        state |= publish(client, bundle)
        _forget(folder)
        say(f"published: root {state['root']}, targets {state['targets']}")
    if as_json:
        print_json(state)


def _forget(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)
