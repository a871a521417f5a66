"""The coordinator's home: keys, certificate authority, fleet document. Made whole at first start."""

from __future__ import annotations

import datetime
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from coordinator.ca import Authority
from coordinator.operators import make_token
from shared.canonical import sha256_hex
from shared.durable import private_directory, read_secret, sync_directory, write_durable
from shared.errors import ConfigError, RollcallError
from shared.fleet import FleetDocument
from shared.keys import PublicKey, SigningKey
from shared.roster import COORDINATOR_HOST, DOMAIN
from shared.tls import TlsFiles, make_key, save_key


@dataclass(frozen=True)
class HomePaths:
    root: Path

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def fleet(self) -> Path:
        return self.keys / "fleet.json"

    @property
    def roster_key(self) -> Path:
        return self.keys / "roster.key"

    @property
    def token(self) -> Path:
        return self.root / "operator.token"

    @property
    def client(self) -> Path:
        """What `rollcall --config` reads: where this coordinator is and how to speak to it."""
        return self.root / "operator.toml"

    @property
    def database(self) -> Path:
        return self.root / "coordinator.db"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def lock(self) -> Path:
        return self.root / "coordinator.lock"

    @property
    def tls(self) -> TlsFiles:
        return TlsFiles(self.keys / "tls.key", self.keys / "tls.crt", self.keys / "ca.crt")


@dataclass(frozen=True)
class Keys:
    fleet: FleetDocument
    roster: SigningKey
    authority: Authority


def open_home(paths: HomePaths, name: str, release_keys: list[PublicKey], now: float) -> Keys:
    """Load the keys, or make them at the first start.

    Raises ConfigError at a first start without an operator's release key: a fleet that trusts no
    operator could run nothing.
    """
    private_directory(paths.root)
    private_directory(paths.blobs)
    if not paths.fleet.exists():
        if not release_keys:
            raise ConfigError(
                "a new fleet needs an operator's public release key",
                remedy="make one with `rollcall keys init`, then pass --release-key FILE.pub",
            )
        _create(paths, name, release_keys, now)
    _renew_certificate(paths, now)
    return _load(paths)


def _create(paths: HomePaths, name: str, release_keys: list[PublicKey], now: float) -> None:
    making = HomePaths(paths.root / ".making")
    shutil.rmtree(making.root, ignore_errors=True)
    private_directory(making.root)
    private_directory(making.keys)
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    authority = Authority.create(making.keys, name, moment)
    roster = SigningKey.generate()
    roster.save(making.roster_key)
    fleet = FleetDocument(
        fleet=sha256_hex(secrets.token_bytes(32)),
        name=name,
        ca_pem=authority.pem,
        roster_key=roster.public,
        release_keys=release_keys,
        created=now,
    )
    write_durable(making.fleet, fleet.canonical())
    write_durable(paths.token, make_token().encode())
    shutil.rmtree(paths.keys, ignore_errors=True)
    making.keys.rename(paths.keys)
    sync_directory(paths.root)
    shutil.rmtree(making.root, ignore_errors=True)


def _renew_certificate(paths: HomePaths, now: float) -> None:
    """The coordinator's own certificate is renewed at every start: it holds the authority."""
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    key = make_key()
    host = COORDINATOR_HOST.removesuffix(f".{DOMAIN}")
    pem = Authority.load(paths.keys).issue(host, key.public_key(), moment)
    save_key(key, paths.tls.key)
    write_durable(paths.tls.certificate, pem.encode())


def _load(paths: HomePaths) -> Keys:
    try:
        fleet = FleetDocument.from_bytes(read_secret(paths.fleet))
    except RollcallError as error:
        raise ConfigError(f"{paths.root} is damaged: {error}") from error
    return Keys(
        fleet=fleet,
        roster=SigningKey.load(paths.roster_key),
        authority=Authority.load(paths.keys),
    )


def write_client_config(paths: HomePaths, url: str) -> None:
    text = f'url = "{url}"\nca_file = "{paths.tls.ca}"\ntoken_file = "{paths.token}"\n'
    write_durable(paths.client, text.encode())
