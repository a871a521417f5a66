"""The roster from peer to peer, revocation with the coordinator off, and what an agent makes of releases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from agent.coordinator import Coordinator
from agent.peers.mesh import MAX_OPEN
from agent.releases import Releases, Source
from agent.trust import load_trust
from coordinator.ceremony import withdraw
from shared.canonical import canonical_json
from shared.durable import write_durable
from shared.errors import (
    BadInputError,
    ConflictError,
    ExpiredError,
    NotFoundError,
    UnavailableError,
    UntrustedError,
)
from shared.fleet import FleetDocument
from shared.http import RefusedError
from shared.keys import SigningKey
from shared.messages import Clear, Red, RedKind, sign_message
from shared.release import Release
from shared.roster import PeerCertificate, sign_roster, tls_name
from shared.tls import BACKDATED_S, read_certificate, read_peer
from shared.tufclient import TufClient
from tests.conftest import ManualClock
from tests.support.trustkit import TestFleet, make_fleet
from tests.support.tufkit import SignedRepository
from tests.unit.test_mesh import Peer, until, with_files

DAY = 86400.0


@pytest.fixture
def fleet(tmp_path: Path) -> TestFleet:
    return with_files(make_fleet(tmp_path))


@pytest.fixture
async def peers(fleet: TestFleet) -> AsyncIterator[list[Peer]]:
    made = [await Peer(fleet, name).up() for name in fleet.names]
    for peer in made:
        peer.knows(*(other for other in made if other is not peer))
        peer.run()
    yield made
    for peer in made:
        await peer.down()


def revoking(fleet: TestFleet, name: str, epoch: int = 2) -> bytes:
    return sign_roster(fleet.roster(revoked=(name,), epoch=epoch), fleet.roster_key)


async def test_a_revocation_travels_with_the_coordinator_off(peers: list[Peer]) -> None:
    """Fault 27: b alone hears of it; c learns it from b; neither answers a any more."""
    a, b, c = peers
    await until(lambda: c.directory.how("a"), "everybody knows everybody")
    assert await b.trust.accept_roster(revoking(b.fleet, "a"))
    await until(lambda: c.trust.peer_names() == ["b"], "c learnt it from b")
    for name in ("b", "c"):
        with pytest.raises(RefusedError, match="roster"):
            await a.transport.ask(name, "GET", "/v1/peer/events")
    red = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="let me in"))
    for peer in (b, c):
        with pytest.raises(UntrustedError, match="was revoked"):
            await peer.mesh.receive(red.raw.encode())
        assert peer.mesh.dropped["revoked"] >= 1
    assert b.trust.roster_raw == c.trust.roster_raw


async def test_who_was_away_hears_of_the_revocation_on_return(peers: list[Peer]) -> None:
    a, b, c = peers
    await c.down()
    await b.trust.accept_roster(revoking(b.fleet, "a"))
    back = Peer(c.fleet, "c")
    back.port = c.port
    await back.up()
    back.knows(a, b)
    back.run()
    await until(lambda: back.trust.peer_names() == ["b"], "told by b")
    await back.down()


async def test_an_older_or_forged_roster_changes_nothing(peers: list[Peer]) -> None:
    a, b, _ = peers
    await b.trust.accept_roster(revoking(b.fleet, "c", epoch=9))
    older = sign_roster(b.fleet.roster(epoch=8), b.fleet.roster_key)
    assert not await b.trust.accept_roster(older)
    forged = sign_roster(b.fleet.roster(epoch=10), b.fleet.keys["a"])
    with pytest.raises(RefusedError, match="no key that is trusted"):
        await a.transport.ask("b", "POST", "/v1/peer/roster", data=forged)
    assert b.asked == ["a"], "it looked whether operators have changed the key"
    other_fleet = b.fleet.roster(epoch=11).model_copy(update={"fleet": "0" * 64})
    with pytest.raises(UntrustedError, match="another fleet"):
        await b.trust.accept_roster(sign_roster(other_fleet, b.fleet.roster_key))
    assert b.trust.roster.epoch == 9


async def test_a_revocation_hides_no_red(peers: list[Peer]) -> None:
    """P6: whoever holds the roster key could otherwise end a freeze by revoking its origin."""
    a, b, c = peers
    red = await a.mesh.broadcast(Red(kind=RedKind.UPGRADE_FAILED, reason="broken"))
    await until(lambda: b.mesh.frozen_by() and c.mesh.frozen_by(), "both are frozen")
    with pytest.raises(ConflictError, match="clear it there, on a"):
        await b.mesh.clear(red.key, "I know better")
    for peer in (b, c):
        await peer.trust.accept_roster(revoking(peer.fleet, "a"))
        await peer.mesh.load()
        assert [each.key for each in peer.mesh.frozen_by()] == [red.key]
    await b.mesh.clear(red.key, "a was stolen")
    await b.mesh.load()
    assert not b.mesh.frozen_by()
    assert c.mesh.frozen_by(), "each node's administrator decides for that node alone"
    with pytest.raises(NotFoundError):
        await b.mesh.clear(red.key, "again")


async def test_a_key_that_the_roster_swaps_in_ends_no_red(peers: list[Peer]) -> None:
    """P6: a thief of the roster key gives a's name a key of his own, and clears a's red with it."""
    a, b, _ = peers
    red = await a.mesh.broadcast(Red(kind=RedKind.UPGRADE_FAILED, reason="broken"))
    await until(b.mesh.frozen_by, "b is frozen")
    forger = SigningKey.generate()
    roster = b.fleet.roster(epoch=7)
    nodes = [
        node.model_copy(update={"key": forger.public}) if node.name == "a" else node
        for node in roster.nodes
    ]
    swapped = sign_roster(roster.model_copy(update={"nodes": nodes}), b.fleet.roster_key)
    await b.trust.accept_roster(swapped)
    payload = red.payload.model_copy(
        update={"sequence": 10**6, "body": Clear(ref=red.key, reason="all is well")}
    )
    await b.mesh.receive(sign_message(payload, forger).raw.encode())
    assert [each.key for each in b.mesh.frozen_by()] == [red.key]
    await b.mesh.clear(red.key, "a was installed anew")
    assert not b.mesh.frozen_by(), "its own administrator may"


async def test_one_origin_cannot_fill_everybodys_database(peers: list[Peer]) -> None:
    a, b, _ = peers
    for number in range(MAX_OPEN):
        red = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason=f"{number}"))
        await b.mesh.receive(red.raw.encode())
    more = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="one more"))
    with pytest.raises(UntrustedError, match="open reds already"):
        await b.mesh.receive(more.raw.encode())
    assert await b.mesh.receive(red.raw.encode()), "what is known is acked again"
    padded = json.loads(more.raw) | {"padding": "x" * (30 << 10)}
    with pytest.raises(BadInputError, match="the limit is"):
        await b.mesh.receive(json.dumps(padded).encode())


async def test_two_rosters_at_once_never_go_backwards(fleet: TestFleet) -> None:
    for _ in range(20):
        trust = fleet.trust("a")
        newer, older = (
            sign_roster(fleet.roster(epoch=epoch), fleet.roster_key) for epoch in (16, 15)
        )
        await asyncio.gather(trust.accept_roster(newer), trust.accept_roster(older))
        assert trust.roster.epoch == 16


async def test_a_certificate_of_an_earlier_life_is_not_admitted(fleet: TestFleet) -> None:
    """Revoked, and joined again under its name: the thief of the first machine stays outside."""
    certificate = await asyncio.to_thread(read_certificate, fleet.layout("b").tls.identity)
    begins = certificate.not_valid_before_utc
    issued = begins.timestamp() + BACKDATED_S
    peer = read_peer(
        {
            "subjectAltName": (("DNS", tls_name("b")),),
            "notBefore": begins.strftime("%b %d %H:%M:%S %Y GMT"),
        }
    )
    assert peer == PeerCertificate("b", issued)
    for joined, admitted in ((issued - 60, True), (issued, True), (issued + 60, False)):
        roster = fleet.roster()
        nodes = [node.model_copy(update={"joined": joined}) for node in roster.nodes]
        assert roster.model_copy(update={"nodes": nodes}).admits(peer) is admitted
    assert not fleet.roster(revoked=("b",)).admits(peer)
    assert not fleet.roster().admits(None)


async def test_the_roster_of_a_retired_key_counts_no_more(fleet: TestFleet) -> None:
    """Whatever numbers the thief of the old key has used up."""
    trust = fleet.trust("a")
    stolen = sign_roster(fleet.roster(epoch=10**12), fleet.roster_key)
    assert await trust.accept_roster(stolen)
    following = fleet.keys["c"]
    document = fleet.document.model_copy(update={"version": 2, "roster_key": following.public})
    assert await trust.accept_fleet(document)
    assert not await trust.accept_fleet(fleet.document), "never back"
    again = sign_roster(fleet.roster(epoch=10**12 + 1), fleet.roster_key)
    with pytest.raises(UntrustedError):
        await trust.accept_roster(again)
    roster = fleet.roster(epoch=3).model_copy(update={"fleet_version": 2})
    assert await trust.accept_roster(sign_roster(roster, following))
    assert trust.roster.number == (2, 3)


async def test_a_node_starts_between_a_new_fleet_document_and_its_roster(fleet: TestFleet) -> None:
    layout, trust = fleet.layout("a"), fleet.trust("a")

    def write() -> None:
        fleet.keys["a"].save(layout.message_key)
        write_durable(layout.node_file, canonical_json(trust.identity.model_dump(mode="json")))
        write_durable(layout.roster_file, trust.roster_raw)
        write_durable(layout.fleet_file, fleet.document.canonical())

    await asyncio.to_thread(write)
    document = fleet.document.model_copy(
        update={"version": 2, "roster_key": fleet.keys["c"].public}
    )
    await trust.accept_fleet(document)
    again = await asyncio.to_thread(load_trust, layout)
    assert again.fleet == document
    assert again.peer_names() == ["b", "c"]


class FakeCoordinator:
    """The repository over no network; `up` False is a coordinator that is away."""

    def __init__(self, signed: SignedRepository) -> None:
        self._signed, self.up = signed, True

    async def tuf(self, path: str) -> bytes:
        if not self.up:
            raise UnavailableError("no answer from the coordinator")
        return await self._signed.serve(path)

    async def tuf_unverified(self, path: str) -> bytes:
        return await self.tuf(path)


class Node:
    """One agent's view of releases."""

    def __init__(self, root: Path, signed: SignedRepository, clock: ManualClock) -> None:
        self.coordinator = FakeCoordinator(signed)
        self.peers: list[Source] = []
        self.fleets: list[FleetDocument] = []
        client = TufClient.create(root, signed.first_root)
        coordinator = cast(Coordinator, self.coordinator)
        self.releases = Releases(client, coordinator, lambda: self.peers, clock, self._note)

    async def _note(self, document: FleetDocument) -> None:
        self.fleets.append(document)


@pytest.fixture
def clock() -> ManualClock:
    import time

    return ManualClock(now=time.time())


@pytest.fixture
def signed(tmp_path: Path, clock: ManualClock) -> SignedRepository:
    return SignedRepository(tmp_path / "repository", clock=clock)


async def in_thread(work: Any, *arguments: Any) -> Any:
    return await asyncio.to_thread(work, *arguments)


async def test_two_keys_move_a_node(
    signed: SignedRepository, clock: ManualClock, tmp_path: Path
) -> None:
    """The order names a release; it is refused unless operators sign for that release now."""
    node = await asyncio.to_thread(Node, tmp_path / "a", signed, clock)
    with pytest.raises(UntrustedError, match="not among those that the fleet's operators signed"):
        await node.releases.authorise("0" * 64)
    release: Release = await in_thread(signed.release, "2026.9.6")
    assert await node.releases.authorise(release.id) == release
    assert await node.releases.release(release.id) == release
    bundle = withdraw(signed.published, "2026.9.6", clock.now())
    await in_thread(signed.publish, bundle)
    with pytest.raises(UntrustedError, match="not among those"):
        await node.releases.authorise(release.id)
    assert await node.releases.release(release.id) == release, "what is in flight goes on"
    with pytest.raises(UntrustedError, match="never authorised"):
        await node.releases.release("1" * 64)
    assert node.fleets[-1] == signed.fleet


async def test_expired_metadata_stops_installs_and_nothing_else(
    signed: SignedRepository, clock: ManualClock, tmp_path: Path
) -> None:
    """Fault 25, by the node's own clock, with the coordinator away."""
    node = await asyncio.to_thread(Node, tmp_path / "a", signed, clock)
    release: Release = await in_thread(signed.release, "2026.9.6")
    await node.releases.authorise(release.id)
    assert node.releases.alerts == []
    node.coordinator.up = False
    assert await node.releases.authorise(release.id) == release, "a day's outage is no matter"
    clock.advance(2 * DAY)
    with pytest.raises(ExpiredError, match="expired"):
        await node.releases.authorise(release.id)
    (alert,) = node.releases.alerts
    assert "no release is installed" in alert
    assert await node.releases.release(release.id) == release, "a rollback and a resume go on"
    nobody: Source = node.coordinator.tuf
    assert await node.releases.signed(release.id, nobody) == release, "attestations go on"


async def test_peers_hand_on_what_a_claim_needs_when_the_coordinator_is_away(
    signed: SignedRepository, clock: ManualClock, tmp_path: Path
) -> None:
    mover, witness = [
        await asyncio.to_thread(Node, tmp_path / name, signed, clock) for name in ("a", "b")
    ]
    await witness.releases.refresh()
    release: Release = await in_thread(signed.release, "2026.9.6")
    await mover.releases.authorise(release.id)
    for node in (mover, witness):
        node.coordinator.up = False
    assert await witness.releases.signed(release.id, mover.releases.serve) == release
    with pytest.raises(UntrustedError):
        await witness.releases.signed("1" * 64, mover.releases.serve)


async def test_a_peer_cannot_pass_off_something_else(
    signed: SignedRepository, clock: ManualClock, tmp_path: Path
) -> None:
    node = await asyncio.to_thread(Node, tmp_path / "a", signed, clock)
    release: Release = await in_thread(signed.release, "2026.9.6")
    await node.releases.refresh()

    async def liar(path: str) -> bytes:
        return b"{}" if path.startswith("targets/") else await signed.serve(path)

    node.coordinator.up = False
    with pytest.raises(UntrustedError, match="not what was signed"):
        await node.releases.signed(release.id, liar)
    assert await node.releases.kept(release.id) is None
