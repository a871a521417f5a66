"""Joining a fleet: keys are made here, the coordinator is believed only as far as the token goes."""

from __future__ import annotations

import asyncio
import shutil
import time

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from agent.config import Identity
from agent.coordinator import hand_in
from agent.dialler import open_unverified
from agent.layout import Layout
from shared.canonical import canonical_json
from shared.durable import private_directory, sync_directory, write_durable
from shared.errors import ConflictError, UntrustedError
from shared.fleet import (
    FleetDocument,
    JoinAnswer,
    JoinRequest,
    JoinToken,
    check_authority,
    seal_join,
)
from shared.http import call, missing_as, session
from shared.keys import SigningKey
from shared.metadata import MAX_ROOT_BYTES, MAX_TARGETS_BYTES, fingerprint, read_root
from shared.roster import Role, open_roster
from shared.tls import (
    check_certificate,
    client_context,
    make_key,
    request_certificate,
    save_identity,
)
from shared.tufclient import TufClient


async def join(
    layout: Layout, token: JoinToken, name: str, role: Role | None, site: str | None = None
) -> Identity:
    """Make the identity beside its place and move it there whole, so that a join that was cut short
    leaves a node that has not joined, and can be repeated with the same token: the keys that it made
    are kept for that. Raises ConflictError when it has joined already."""
    if layout.node_file.exists():
        raise ConflictError(
            f"{layout.home} has joined a fleet already",
            remedy=f"to join anew, move {layout.identity} away first",
        )
    layout.make()
    staging = Layout(layout.home / ".joining")
    private_directory(staging.home)
    private_directory(staging.identity)
    fleet = await _fetch_fleet(staging, token)
    key, tls_key = await asyncio.to_thread(_make_keys, staging, fleet)
    request = JoinRequest(
        secret=token.secret,
        name=name,
        role=role,
        site=site,
        csr_pem=request_certificate(tls_key, name),
        message_key=key.public,
    )
    answer = await _ask(staging, token.url, seal_join(request, key))
    roster = open_roster(answer.roster.encode(), fleet)
    if roster.key_of(name) != key.public:
        raise UntrustedError("the roster that came back has another key for this node")
    check_certificate(answer.certificate_pem, tls_key, name, fleet.authorities, time.time())
    identity = Identity(name=name, role=roster.find(name).role, url=token.url)
    await asyncio.to_thread(_write_rest, staging, identity, tls_key, answer)
    await asyncio.to_thread(_move, staging, layout)
    return identity


async def _fetch_fleet(staging: Layout, token: JoinToken) -> FleetDocument:
    """Over a connection that proves nothing: the token pins the root, and the root signs the rest."""
    loop = asyncio.get_running_loop()
    async with open_unverified() as client:

        async def get(path: str, limit: int = MAX_TARGETS_BYTES) -> bytes:
            with missing_as(f"the coordinator has no {path}"):
                return await call(client, "GET", f"{token.url}/tuf/{path}", max_answer=limit)

        root = await get(f"{token.root_version}.root.json", MAX_ROOT_BYTES)
        if fingerprint(read_root(root)) != token.root_sha256:
            raise UntrustedError(
                "the coordinator is not the one that made this token: its root differs",
                remedy="check the address, and make a new token on the right coordinator",
            )
        client_of_tuf = await asyncio.to_thread(TufClient.create, staging.tuf, root)

        def fetch(path: str) -> bytes:
            return asyncio.run_coroutine_threadsafe(get(path), loop).result()

        _, fleet = await asyncio.to_thread(client_of_tuf.refresh, fetch)
    check_authority(fleet, token.ca_sha256)
    return fleet


def _make_keys(staging: Layout, fleet: FleetDocument) -> tuple[SigningKey, EllipticCurvePrivateKey]:
    """The message key of an earlier attempt is kept: the coordinator may know it already."""
    write_durable(staging.fleet_file, fleet.canonical())
    write_durable(staging.tls.ca, fleet.bundle)
    if not staging.message_key.exists():
        SigningKey.generate().save(staging.message_key)
    return SigningKey.load(staging.message_key), make_key()


async def _ask(staging: Layout, url: str, envelope: bytes) -> JoinAnswer:
    async with session(context=client_context(staging.tls.ca)) as client:
        return await hand_in(client, f"{url}/v1/join", envelope)


def _write_rest(
    staging: Layout, identity: Identity, tls_key: EllipticCurvePrivateKey, answer: JoinAnswer
) -> None:
    save_identity(staging.tls.identity, tls_key, answer.certificate_pem)
    write_durable(staging.roster_file, answer.roster.encode())
    write_durable(staging.node_file, canonical_json(identity.model_dump(mode="json")))


def _move(staging: Layout, layout: Layout) -> None:
    shutil.rmtree(layout.identity, ignore_errors=True)
    staging.identity.rename(layout.identity)
    shutil.rmtree(staging.home, ignore_errors=True)
    sync_directory(layout.home)
