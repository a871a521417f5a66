"""Homes of nodes that have joined a fleet of which nobody keeps the coordinator: throw-away keys, one roster."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from agent.config import Identity
from agent.layout import Layout
from coordinator.ca import Authority
from shared.canonical import canonical_json, sha256_hex
from shared.durable import write_durable
from shared.fleet import FleetDocument
from shared.keys import SigningKey
from shared.roster import Role, Roster, RosterNode, sign_roster
from shared.tls import make_key, save_identity

ROLES = (Role.CANARY, Role.STABLE, Role.WITNESS)
NOWHERE = "https://127.0.0.1:1"


def make_homes(root: Path, names: Sequence[str]) -> dict[str, Path]:
    """By name, each `root/NAME`. Blocking."""
    root.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    authority = Authority.create(root, "lab", now)
    roster_key = SigningKey.generate()
    fleet = FleetDocument(
        fleet=sha256_hex(str(root).encode()),
        name="lab",
        version=1,
        authorities=[authority.pem],
        roster_key=roster_key.public,
    )
    keys = {name: SigningKey.generate() for name in names}
    nodes = [
        RosterNode(name=name, role=ROLES[number % len(ROLES)], key=key.public)
        for number, (name, key) in enumerate(keys.items())
    ]
    roster = Roster(fleet=fleet.fleet, epoch=1, issued=0, nodes=nodes)
    signed = sign_roster(roster, roster_key)
    for node in nodes:
        layout = Layout(root / node.name)
        layout.make()
        tls_key = make_key()
        pem = authority.issue(node.name, tls_key.public_key(), now)
        save_identity(layout.tls.identity, tls_key, pem)
        write_durable(layout.tls.ca, fleet.bundle)
        keys[node.name].save(layout.message_key)
        write_durable(layout.fleet_file, fleet.canonical())
        write_durable(layout.roster_file, signed)
        identity = Identity(name=node.name, role=node.role, url=NOWHERE)
        write_durable(layout.node_file, canonical_json(identity.model_dump(mode="json")))
    return {name: root / name for name in names}
