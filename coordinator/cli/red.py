"""`rollcall red …`: failure broadcasts of all nodes, and how operators end one for all of them."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer
from tuf.api.metadata import Root

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.cli.desk import (
    DEFAULT_KEYS,
    Desk,
    FolderOption,
    NameOption,
    PassphraseOption,
    YesOption,
)
from coordinator.saying import moment
from shared.canonical import parse_json
from shared.durable import write_durable
from shared.errors import BadInputError, UntrustedError, UsageError
from shared.messages import MAX_MESSAGE_BYTES, Red, read_message
from shared.operatorclear import (
    MAX_CLEAR_BYTES,
    ROLE,
    ClearFile,
    identity,
    signers_of,
)
from shared.rollout import RedView
from shared.terminal import EXIT_MISSING, confirm, print_json, print_table, say
from shared.wire import is_red_key

app = typer.Typer(help="Failure broadcasts, and how to end one for all.", no_args_is_help=True)

MAX_FILE_BYTES = 3 * (MAX_MESSAGE_BYTES + MAX_CLEAR_BYTES)


def _check_key(key: str) -> str:
    if not is_red_key(key):
        raise UsageError(
            f"{key[:80]!r} is no red's key", remedy="list them: rollcall red list --all"
        )
    return key


KeyArgument = Annotated[
    str,
    typer.Argument(help="The red's key, as `rollcall red list` shows it.", callback=_check_key),
]


@app.command("list")
def list_reds(
    everything: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Open reds: whose, what for, and how many nodes have signed that they hold it."""
    answer = Client(config).get("/v1/reds")
    reds = [RedView.from_value(each) for each in answer["reds"]]
    shown = [red for red in reds if everything or red.open]
    if as_json:
        print_json({"reds": [red.model_dump(mode="json") for red in shown]})
        return
    rows = [
        [
            red.key,
            red.kind,
            "open" if red.open else f"over ({red.ended_by})",
            moment(red.issued),
            str(len(red.acked_by)),
            red.reason,
        ]
        for red in shown
    ]
    print_table(["KEY", "KIND", "STATE", "SINCE", "ACKS", "REASON"], rows, empty="no open reds")


@app.command()
def show(
    key: KeyArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """One red: what its origin signed, whom it freezes, and what ends it."""
    answer = Client(config).get(f"/v1/reds/{quote(key, safe=':')}")
    if as_json:
        print_json(answer)
        return
    view = RedView.from_value(answer["view"])
    for line in [*_describe(answer["red"]), f"  acked by {', '.join(view.acked_by) or 'nobody'}"]:
        sys.stdout.write(line + "\n")
    sys.stdout.write(f"  freezes {', '.join(answer['held_by']) or 'nobody who has said so'}\n")
    how = "is over" if not view.open else f"ends when {view.origin} clears it, or operators do"
    by = f" (cleared by {view.ended_by})" if view.ended_by else f": rollcall red clear {key}"
    sys.stdout.write(f"  {how}{by}\n")


@app.command()
def clear(
    key: KeyArgument,
    reason: Annotated[
        str, typer.Option(help="Why it is over; signed, and told to all nodes.")
    ] = "",
    signature: Annotated[
        Path | None,
        typer.Option(help="Hand in this file, which enough operators have signed."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write the clear for others to sign.")
    ] = None,
    name: NameOption = None,
    folder: FolderOption = DEFAULT_KEYS,
    passphrase_file: PassphraseOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """End one red for all nodes. Nodes believe the operators' keys, and not the coordinator: as many must sign as for
    a release.

    With this operator's keys at hand it is signed here, and handed in when that was the last signature. Otherwise a
    file is written: sign it where the keys are, with `rollcall red sign FILE`, then `rollcall red clear KEY
    --signature FILE`; or, while the coordinator is away, on any node: `rollcall-agent clear KEY --signature FILE`.
    """
    client = Client(config)
    if signature is not None:
        _hand_in(client, key, _load(signature), as_json=as_json)
        return
    if not reason:
        raise UsageError("a clear needs --reason", remedy="say why it is over")
    path = out or Path(f"{key.replace(':', '-')}.clear")
    if path.exists():
        raise UsageError(f"{path} exists", remedy="name another file with --out")
    desk = Desk(folder, name, passphrase_file)
    file = _draft(client, key, reason)
    if not desk.has_keys():
        _save(file, path)
        _tell_how(key, path, as_json=as_json)
    root = desk.published(client).root.signed
    signed = _sign(desk, file, root, yes=yes)
    if missing := _missing(signed, root):
        _save(signed, path)
        say(f"{missing} more needed; the others sign it with: rollcall red sign {path}")
        if as_json:
            print_json({"file": str(path), "missing": missing})
        return
    _hand_in(client, key, signed, as_json=as_json)


@app.command()
def sign(
    file: Annotated[Path, typer.Argument(help="What `rollcall red clear` wrote.")],
    name: NameOption = None,
    folder: FolderOption = DEFAULT_KEYS,
    passphrase_file: PassphraseOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add this operator's signature to a clear. Needs no network. Read which red it ends before you agree."""
    desk = Desk(folder, name, passphrase_file)
    published = desk.known()
    if published is None:
        raise UntrustedError(
            f"{folder} has not seen this fleet's root yet",
            remedy="once, with the network: rollcall keys show",
        )
    root = published.root.signed
    loaded = _load(file)
    if loaded.clear.fleet != published.fleet.fleet:
        raise UntrustedError(f"{file} is of another fleet")
    signed = _sign(desk, loaded, root, yes=yes)
    _save(signed, file)
    missing = _missing(signed, root)
    if as_json:
        print_json({"file": str(file), "missing": missing})
    else:
        ready = f"hand it in: rollcall red clear {loaded.clear.ref} --signature {file}"
        say(f"signed; {f'{missing} more needed' if missing else ready}")


def _draft(client: Client, key: str, reason: str) -> ClearFile:
    answer = client.get(f"/v1/reds/{quote(key, safe=':')}")
    file = ClearFile.draft(str(answer["red"]), reason, time.time())
    if file.clear.ref != key:
        raise UntrustedError(f"asked for {key}, the coordinator answered with {file.clear.ref}")
    return file


def _sign(desk: Desk, file: ClearFile, root: Root, *, yes: bool) -> ClearFile:
    """Everything that is signed is shown before."""
    file.check()
    for line in [*_describe(file.red), f"  ends for all nodes: {file.clear.reason}"]:
        say(line)
    if not yes:
        confirm("sign this?")
    targets_key = desk.targets_key()
    if targets_key.public.keyid not in root.roles[ROLE].keyids:
        raise UntrustedError(
            "this operator's keys are not among those that may sign it",
            remedy="see who may with: rollcall keys show",
        )
    return file.signed(targets_key)


def _missing(file: ClearFile, root: Root) -> int:
    return max(0, int(root.roles[ROLE].threshold) - len(signers_of(file, root)))


def _describe(red: str) -> list[str]:
    """What the origin signed, read from those very bytes."""
    message = read_message(red.encode())
    body = message.payload.body
    if not isinstance(body, Red):
        raise BadInputError("this is no red")
    issued = moment(message.payload.issued)
    return [
        f"red {message.key} of {message.payload.origin}, {body.kind}, since {issued}",
        f"  says {body.reason}",
        f"  sha256 {identity(red)[1]}",
    ]


def _hand_in(client: Client, key: str, file: ClearFile, *, as_json: bool) -> None:
    file.check()
    if file.clear.ref != key:
        raise UsageError(f"the file is a clear of {file.clear.ref}, not of {key}")
    raw = asyncio.run(client.ask("POST", "/v1/reds/clears", file.envelope.encode()))
    if as_json:
        print_json(dict(parse_json(raw)))
    else:
        say(f"{key} is cleared; nodes take it from here, and from each other")


def _tell_how(key: str, path: Path, *, as_json: bool) -> None:
    """Exit code 3: it is not cleared, for want of keys."""
    say(f"not cleared yet: no operator's keys are here; {path} waits for signatures")
    say(f"  where the keys are: rollcall red sign {path}")
    say(f"  then here: rollcall red clear {key} --signature {path}")
    if as_json:
        print_json({"file": str(path), "missing": None})
    raise typer.Exit(EXIT_MISSING)


def _save(file: ClearFile, path: Path) -> None:
    write_durable(path, file.canonical(), mode=0o644)


def _load(path: Path) -> ClearFile:
    try:
        return ClearFile.from_bytes(path.read_bytes(), max_bytes=MAX_FILE_BYTES)
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist") from None
    except BadInputError as error:
        raise BadInputError(f"{path} is no clear: {error.message}") from error
