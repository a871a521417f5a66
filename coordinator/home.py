"""The coordinator's home: keys and certificate authority, made whole at first start.

There are at most two sets of keys: those in use, and the next ones, made by `rollcall coordinator
rotate`, which are used from the moment that operators have signed them.
"""

from __future__ import annotations

import datetime
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from coordinator.ca import Authority
from coordinator.operators import make_token
from coordinator.sealing import KEY_BYTES
from shared.canonical import sha256_hex
from shared.durable import private_directory, read_secret, sync_directory, write_durable
from shared.errors import ConfigError, ConflictError, RollcallError
from shared.fleet import CoordinatorKeys, FleetDocument
from shared.keys import SigningKey
from shared.roster import COORDINATOR_HOST, DOMAIN
from shared.tls import TlsFiles, make_key, save_identity
from shared.wire import Sha256, Wire


@dataclass(frozen=True)
class HomePaths:
    root: Path

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def next_keys(self) -> Path:
        return self.root / "next-keys"

    @property
    def token(self) -> Path:
        return self.root / "operator.token"

    @property
    def seal(self) -> Path:
        """The key of answers that have a secret in them (coordinator/sealing.py)."""
        return self.root / "answers.key"

    @property
    def client(self) -> Path:
        """What `rollcall --config` reads: where this coordinator is and how to speak to it."""
        return self.root / "operator.toml"

    @property
    def alerts(self) -> Path:
        """Where alerts go; there need not be one."""
        return self.root / "alerts.toml"

    @property
    def database(self) -> Path:
        return self.root / "coordinator.db"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def repository(self) -> Path:
        return self.root / "tuf"

    @property
    def lock(self) -> Path:
        return self.root / "coordinator.lock"

    @property
    def tls(self) -> TlsFiles:
        """`ca` holds every authority that the fleet document names."""
        return TlsFiles(self.root / "tls.pem", self.root / "authorities.pem")


class _About(Wire):
    fleet: Sha256
    name: str


@dataclass(frozen=True)
class Keys:
    """One set: who issues certificates, who signs rosters, who signs snapshot and timestamp."""

    fleet: str
    name: str
    roster: SigningKey
    online: SigningKey
    authority: Authority

    def public(self, url: str, following: Keys | None = None) -> CoordinatorKeys:
        return CoordinatorKeys(
            fleet=self.fleet,
            name=self.name,
            url=url,
            authority=self.authority.pem,
            roster_key=self.roster.public,
            online_key=self.online.public,
            next=None if following is None else following.public(url),
        )


class KeyRing:
    """The keys in use and, while a change is under way, the next ones."""

    def __init__(self, paths: HomePaths, current: Keys, following: Keys | None) -> None:
        self._paths, self.current, self.following = paths, current, following

    def all(self) -> list[Keys]:
        return [self.current] if self.following is None else [self.current, self.following]

    def look_again(self) -> None:
        """`rollcall coordinator rotate` may have made the next keys since."""
        if self.following is None and self._paths.next_keys.exists():
            self.following = _load(self._paths.next_keys)

    def use(self, keys: Keys) -> None:
        """Make these the ones in use. `open_home` finishes what a crash between the renames left."""
        if keys is self.current:
            return
        retired = self._paths.root / ".retired-keys"
        shutil.rmtree(retired, ignore_errors=True)
        self._paths.keys.rename(retired)
        self._paths.next_keys.rename(self._paths.keys)
        sync_directory(self._paths.root)
        shutil.rmtree(retired)
        self.current, self.following = keys, None


def open_home(paths: HomePaths, name: str, now: float) -> KeyRing:
    """Load the keys, or make them at the first start."""
    private_directory(paths.root)
    private_directory(paths.blobs)
    if not paths.keys.exists() and paths.next_keys.exists():
        paths.next_keys.rename(paths.keys)
    if not paths.keys.exists():
        _create(paths, name, now)
    if not paths.token.exists():
        write_durable(paths.token, make_token().encode())
    if not paths.seal.exists():
        write_durable(paths.seal, secrets.token_bytes(KEY_BYTES))
    following = _load(paths.next_keys) if paths.next_keys.exists() else None
    return KeyRing(paths, _load(paths.keys), following)


def make_next_keys(paths: HomePaths, now: float) -> Keys:
    """A second set of keys beside the ones in use. Raises ConflictError when there is one already."""
    if not paths.keys.exists():
        raise ConfigError(f"{paths.root} is not a coordinator's home")
    if paths.next_keys.exists():
        raise ConflictError(
            f"{paths.next_keys} exists: a change of keys is under way",
            remedy="have operators sign it: rollcall keys rotate",
        )
    about = _About(fleet=_load(paths.keys).fleet, name=_load(paths.keys).name)
    _make(paths.root / ".making", about, now).rename(paths.next_keys)
    sync_directory(paths.root)
    return _load(paths.next_keys)


def _create(paths: HomePaths, name: str, now: float) -> None:
    about = _About(fleet=sha256_hex(secrets.token_bytes(32)), name=name)
    _make(paths.root / ".making", about, now).rename(paths.keys)
    sync_directory(paths.root)


def _make(folder: Path, about: _About, now: float) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    private_directory(folder)
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    Authority.create(folder, about.name, moment)
    SigningKey.generate().save(folder / "roster.key")
    SigningKey.generate().save(folder / "online.key")
    write_durable(folder / "about.json", about.canonical())
    return folder


def _load(folder: Path) -> Keys:
    try:
        about = _About.from_bytes(read_secret(folder / "about.json"))
        return Keys(
            fleet=about.fleet,
            name=about.name,
            roster=SigningKey.load(folder / "roster.key"),
            online=SigningKey.load(folder / "online.key"),
            authority=Authority.load(folder),
        )
    except RollcallError as error:
        raise ConfigError(
            f"{folder} is damaged: {error}", remedy="put the coordinator's home back from a backup"
        ) from error


def write_tls(
    paths: HomePaths, keys: Keys, fleet: FleetDocument | None, url: str, now: float
) -> None:
    """The coordinator's own certificate, made anew at every start and change of keys: it holds the
    authority. Before operators have signed a fleet document it is its own and only authority."""
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    key = make_key()
    host = COORDINATOR_HOST.removesuffix(f".{DOMAIN}")
    pem = keys.authority.issue(host, key.public_key(), moment, urlsplit(url).hostname)
    bundle = fleet.bundle if fleet is not None else keys.authority.pem.encode()
    save_identity(paths.tls.identity, key, pem)
    write_durable(paths.tls.ca, bundle)


def write_client_config(paths: HomePaths, url: str) -> None:
    text = f'url = "{url}"\nca_file = "{paths.tls.ca}"\ntoken_file = "{paths.token}"\n'
    write_durable(paths.client, text.encode())
