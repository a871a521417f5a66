"""An operator's desk: the sealed keys, the metadata this operator trusts, and the way to publish."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from coordinator.bundle import Bundle, Published
from coordinator.cli.client import Client
from coordinator.cli.shown import describe
from shared.canonical import parse_json
from shared.durable import private_directory, read_secret, write_durable
from shared.errors import (
    ConflictError,
    NotFoundError,
    UntrustedError,
    UsageError,
)
from shared.fleet import CoordinatorKeys, FleetDocument
from shared.http import missing_as
from shared.keys import OperatorKeys, SealedKey, SigningKey, load_operator_keys
from shared.metadata import FLEET, fingerprint, read_root
from shared.terminal import confirm, say
from shared.tufclient import TufClient
from shared.wire import Sha256, Wire, is_node_name

DEFAULT_KEYS = Path("~/.config/rollcall/keys")
DEFAULT_NAME = "operator"

FolderOption = Annotated[
    Path, typer.Option("--folder", envvar="ROLLCALL_KEYS", help="Where the operator's keys are.")
]
NameOption = Annotated[
    str | None, typer.Option("--name", help="Whose keys, when the folder holds more than one's.")
]
PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        envvar="ROLLCALL_PASSPHRASE_FILE",
        help="A file (0600) with the passphrase; asked for when absent.",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", help="Sign without asking.")]


class RootPin(Wire):
    """Which root an operator trusts: its version and fingerprint."""

    version: Annotated[int, Field(ge=1)]
    sha256: Sha256


class Desk:
    """One folder (0700). Private keys are opened to sign, and for nothing else."""

    def __init__(self, folder: Path, name: str | None, passphrase_file: Path | None) -> None:
        self.folder = folder.expanduser()
        self._name, self._passphrase_file = name, passphrase_file
        self._passphrase: str | None = None
        self._tuf = TufClient(self.folder / "trust")

    @property
    def name(self) -> str:
        """Raises UsageError when it is not clear whose keys are meant."""
        if self._name is not None:
            return self._name
        found = sorted(path.name.removesuffix(".root.key") for path in self._keys("*.root.key"))
        if len(found) > 1:
            raise UsageError(
                f"{self.folder} has keys of {', '.join(found)}", remedy="say whose with --name"
            )
        return found[0] if found else DEFAULT_NAME

    def _keys(self, pattern: str) -> list[Path]:
        return list(self.folder.glob(pattern)) if self.folder.is_dir() else []

    def has_keys(self) -> bool:
        return (self.folder / f"{self.name}.root.key").exists()

    def public(self) -> OperatorKeys:
        return load_operator_keys(self.folder / f"{self.name}.pub")

    def make_keys(self, name: str) -> OperatorKeys:
        """Raises ConflictError when they exist: nodes may trust them."""
        if not is_node_name(name):
            raise UsageError(
                f"{name!r} is no operator's name: use a-z, 0-9 and hyphens, 32 at most"
            )
        private_directory(self.folder)
        if there := self._keys(f"{name}.*.key"):
            raise ConflictError(f"{there[0]} exists", remedy="keep it: nodes may trust it")
        self._name = name
        passphrase = self._ask_passphrase(confirm=True)
        root, targets = SigningKey.generate(), SigningKey.generate()
        public = OperatorKeys(name=name, root=root.public, targets=targets.public)
        for role, key in (("targets", targets), ("root", root)):
            sealed = key.seal(passphrase).canonical()
            write_durable(self.folder / f"{name}.{role}.key", sealed)
        write_durable(self.folder / f"{name}.pub", public.canonical(), mode=0o644)
        return public

    def _open(self, role: str) -> SigningKey:
        path = self.folder / f"{self.name}.{role}.key"
        if not path.exists():
            raise UsageError(
                f"{path} does not exist",
                remedy=f"put it back from a backup; a new pair: rollcall keys make --name {self.name}",
            )
        sealed = SealedKey.from_bytes(read_secret(path))
        return sealed.open(self._ask_passphrase(confirm=False))

    def _ask_passphrase(self, *, confirm: bool) -> str:
        if self._passphrase is None and self._passphrase_file is not None:
            self._passphrase = read_secret(self._passphrase_file.expanduser()).decode().strip()
        if self._passphrase is None:
            if not sys.stdin.isatty():
                raise UsageError(
                    "there is no terminal to ask for the passphrase at",
                    remedy="name a file that holds it with --passphrase-file",
                )
            try:
                asked: str = typer.prompt(
                    f"passphrase of {self.name}",
                    hide_input=True,
                    confirmation_prompt=confirm,
                    err=True,
                )
            except typer.Abort:
                raise KeyboardInterrupt from None
            self._passphrase = asked
        return self._passphrase

    def trust(self, version: int, sha256: str) -> None:
        """Take the root with this fingerprint as the one that everything else must follow from. It is
        fetched when it is needed: by then all have signed it."""
        private_directory(self.folder)
        shutil.rmtree(self.folder / "trust", ignore_errors=True)
        pin = RootPin(version=version, sha256=sha256)
        write_durable(self.folder / "root.pin", pin.canonical(), mode=0o644)

    def trusts_something(self) -> bool:
        return (self.folder / "root.pin").exists()

    def has_anchor(self) -> bool:
        """Whether the pinned root was found at the coordinator and taken over."""
        return (self.folder / "trust" / "anchor.json").exists()

    def _anchor(self, client: Client) -> None:
        if self.has_anchor():
            return
        pin = RootPin.from_bytes((self.folder / "root.pin").read_bytes())
        try:
            raw = fetch(client, f"{pin.version}.root.json")
        except NotFoundError as error:
            raise ConflictError(
                f"root {pin.version}, which this operator trusts, is not published yet",
                remedy="once enough have signed it: rollcall keys publish BUNDLE",
            ) from error
        if fingerprint(read_root(raw)) != pin.sha256:
            raise UntrustedError(
                f"the coordinator's root {pin.version} is not the one with fingerprint {pin.sha256}",
                remedy="compare fingerprints with the other operators: rollcall keys trust",
            )
        TufClient.create(self.folder / "trust", raw)

    def coordinator(self, client: Client) -> CoordinatorKeys:
        return CoordinatorKeys.from_value(client.get("/v1/coordinator"))

    def published(self, client: Client) -> Published:
        """What is in force, verified from this operator's own anchor."""
        if not self.trusts_something():
            raise UntrustedError(
                f"{self.folder} trusts no root yet",
                remedy="a new fleet: rollcall keys init; an existing one: rollcall keys trust",
            )
        self._anchor(client)
        _, fleet = self._tuf.refresh(lambda path: fetch(client, path))
        return Published(self._tuf.root(), self._tuf.targets(), fleet)

    def seen(self, config: Path) -> Published | None:
        """What this operator saw last; asks the coordinator the first time after the root was trusted."""
        if self.trusts_something() and not self.has_anchor():
            return self.published(Client(config))
        return self.known()

    def known(self) -> Published | None:
        """What this operator saw last, without asking anybody; None before that."""
        view = self._tuf.view() if self.has_anchor() else None
        if view is None:
            return None
        raw = self._tuf.kept(view.targets[FLEET].sha256)
        if raw is None:
            return None
        return Published(self._tuf.root(), self._tuf.targets(), FleetDocument.from_bytes(raw))

    def keys(self) -> tuple[SigningKey, SigningKey]:
        """The operator's root and targets key, opened."""
        return self._open("root"), self._open("targets")

    def targets_key(self) -> SigningKey:
        """The one that signs what nodes take, without the one that says who may sign."""
        return self._open("targets")

    def sign(self, bundle: Bundle, published: Published | None) -> None:
        bundle.sign(*self.keys(), None if published is None else published.root.signed)


def fetch(client: Client, path: str) -> bytes:
    with missing_as(f"the coordinator has no {path}"):
        return asyncio.run(client.ask("GET", f"/tuf/{path}"))


def publish(client: Client, bundle: Bundle) -> dict[str, object]:
    """The files first: metadata that names files which are not there is refused."""
    for sha256, body in bundle.blobs.items():
        client.send("PUT", f"/v1/blobs/{sha256}", body)
    raw = asyncio.run(client.ask("POST", "/v1/trust", bundle.offer().canonical()))
    return dict(parse_json(raw))


def sign_and_tell(
    desk: Desk, bundle: Bundle, published: Published | None, folder: Path, *, yes: bool
) -> int:
    """Show, ask, sign, and keep the bundle. Returns how many signatures are still missing."""
    root = None if published is None else published.root.signed
    bundle.check_follows(published)
    bundle.check_signatures(root)
    for line in describe(bundle, published):
        say(line)
    if not yes:
        confirm("sign this?")
    desk.sign(bundle, published)
    bundle.save(folder)
    missing = bundle.missing(root)
    say(
        f"signed by {', '.join(bundle.signed_by(root))}; {missing} more needed"
        if missing
        else "signed"
    )
    return missing


def pin_root(desk: Desk, bundle: Bundle) -> None:
    """An operator who signs a fleet's first root trusts that root from then on."""
    if bundle.root is not None and not desk.has_anchor():
        desk.trust(bundle.root.signed.version, fingerprint(bundle.root))


def newest_root(client: Client) -> tuple[int, str]:
    """Version and fingerprint of the newest root that the coordinator has: for people to compare."""
    version = int(client.get("/v1/trust")["root"])
    if not version:
        raise NotFoundError("the fleet has no root yet", remedy="begin with: rollcall keys init")
    return version, fingerprint(read_root(fetch(client, f"{version}.root.json")))
