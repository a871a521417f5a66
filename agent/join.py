"""Joining a fleet: keys are made here, the coordinator is believed only as far as the token goes."""

from __future__ import annotations

import asyncio
import shutil

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from agent.config import Identity
from agent.layout import Layout
from shared.canonical import canonical_json
from shared.durable import private_directory, sync_directory, write_durable
from shared.errors import ConflictError, UntrustedError
from shared.fleet import FleetDocument, JoinAnswer, JoinRequest, JoinToken, check_fleet
from shared.http import call, session
from shared.keys import SigningKey
from shared.roster import COORDINATOR_HOST, Role, open_roster
from shared.tls import client_context, make_key, request_certificate, save_key, unverified_context


async def join(layout: Layout, token: JoinToken, name: str, role: Role) -> Identity:
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
    fleet = await _fetch_fleet(token)
    key, tls_key = await asyncio.to_thread(_make_keys, staging, fleet)
    identity = Identity(name=name, role=role, url=token.url)
    request = JoinRequest(
        secret=token.secret,
        name=name,
        role=role,
        csr_pem=request_certificate(tls_key, name),
        message_key=key.public,
    )
    answer = await _ask(staging, token.url, request)
    roster = open_roster(answer.roster.encode(), fleet)
    if roster.key_of(name) != key.public:
        raise UntrustedError("the roster that came back has another key for this node")
    await asyncio.to_thread(_write_rest, staging, identity, answer)
    await asyncio.to_thread(_move, staging, layout)
    return identity


async def _fetch_fleet(token: JoinToken) -> FleetDocument:
    async with session(context=unverified_context()) as client:
        raw = await call(client, "GET", f"{token.url}/v1/fleet")
    return check_fleet(FleetDocument.from_bytes(raw), token.fleet_sha256)


def _make_keys(staging: Layout, fleet: FleetDocument) -> tuple[SigningKey, EllipticCurvePrivateKey]:
    """The message key of an earlier attempt is kept: the coordinator may know it already."""
    write_durable(staging.fleet_file, fleet.canonical())
    write_durable(staging.tls.ca, fleet.ca_pem.encode())
    tls_key = make_key()
    save_key(tls_key, staging.tls.key)
    if not staging.message_key.exists():
        SigningKey.generate().save(staging.message_key)
    return SigningKey.load(staging.message_key), tls_key


async def _ask(staging: Layout, url: str, request: JoinRequest) -> JoinAnswer:
    async with session(context=client_context(staging.tls.ca)) as client:
        raw = await call(
            client,
            "POST",
            f"{url}/v1/join",
            data=request.model_dump_json().encode(),
            server_hostname=COORDINATOR_HOST,
            max_answer=16 << 20,
        )
    return JoinAnswer.from_bytes(raw, max_bytes=16 << 20)


def _write_rest(staging: Layout, identity: Identity, answer: JoinAnswer) -> None:
    write_durable(staging.tls.certificate, answer.certificate_pem.encode())
    write_durable(staging.roster_file, answer.roster.encode())
    write_durable(staging.node_file, canonical_json(identity.model_dump(mode="json")))


def _move(staging: Layout, layout: Layout) -> None:
    shutil.rmtree(layout.identity, ignore_errors=True)
    staging.identity.rename(layout.identity)
    shutil.rmtree(staging.home, ignore_errors=True)
    sync_directory(layout.home)
