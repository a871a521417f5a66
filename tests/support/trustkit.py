"""A small fleet's keys, roster and certificates, for tests that need several nodes in one process."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from agent.config import Identity
from agent.layout import Layout
from agent.trust import Trust
from coordinator.ca import Authority
from shared.canonical import sha256_hex
from shared.durable import write_durable
from shared.fleet import FleetDocument
from shared.keys import SigningKey
from shared.roster import Role, Roster, RosterNode, sign_roster
from shared.tls import make_key, save_identity

ROLES = (Role.CANARY, Role.STABLE, Role.WITNESS)


@dataclass
class TestFleet:
    """Keys of everyone; `trust` gives one node's view, with TLS files in its layout."""

    __test__ = False

    document: FleetDocument
    roster_key: SigningKey
    authority: Authority
    keys: dict[str, SigningKey]
    root: Path

    @property
    def names(self) -> list[str]:
        return list(self.keys)

    def roster(self, *, revoked: tuple[str, ...] = (), epoch: int = 1) -> Roster:
        nodes = [
            RosterNode(name=name, role=ROLES[number % 3], key=key.public, revoked=name in revoked)
            for number, (name, key) in enumerate(self.keys.items())
        ]
        return Roster(fleet=self.document.fleet, epoch=epoch, issued=0, nodes=nodes)

    def layout(self, name: str) -> Layout:
        layout = Layout(self.root / name)
        if not layout.tls.identity.exists():
            layout.make()
            key = make_key()
            now = datetime.datetime.now(datetime.UTC)
            pem = self.authority.issue(name, key.public_key(), now)
            save_identity(layout.tls.identity, key, pem)
            write_durable(layout.tls.ca, self.document.bundle)
        return layout

    def trust(self, name: str) -> Trust:
        roster = self.roster()
        identity = Identity(name=name, role=roster.find(name).role, url="https://127.0.0.1:1")
        trust = Trust(self.layout(name), identity, self.keys[name], self.document, roster)
        trust.roster_raw = sign_roster(roster, self.roster_key)
        return trust


def make_fleet(root: Path, names: tuple[str, ...] = ("a", "b", "c")) -> TestFleet:
    root.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    authority = Authority.create(root, "test", now)
    roster_key = SigningKey.generate()
    document = FleetDocument(
        fleet=sha256_hex(str(root).encode()),
        name="test",
        version=1,
        authorities=[authority.pem],
        roster_key=roster_key.public,
    )
    keys = {name: SigningKey.generate() for name in names}
    return TestFleet(document, roster_key, authority, keys, root)
