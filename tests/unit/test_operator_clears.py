"""Operators end a red for all, and nobody else does: not a coordinator in a thief's hands, not a peer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
from tuf.api.metadata import Root

from agent.clearing import Offered
from agent.feed import EndedBy, Inbox
from agent.peers.transport import Transport
from shared.canonical import sha256_hex
from shared.clock import SystemClock
from shared.envelope import MESSAGE, OPERATOR_CLEAR, DsseEnvelope, TooFewError, seal
from shared.errors import BadInputError, RollcallError, UntrustedError
from shared.fleet import Refusal
from shared.http import RefusedError
from shared.keys import SigningKey
from shared.messages import Message, Red, RedKind, WrongFleetError
from shared.metadata import new_root
from shared.operatorclear import ClearFile, OperatorClear, identity, open_clear, signers_of
from shared.protocol import ProtocolError, ProtocolRange
from tests.support.tufkit import Operator
from tests.unit.test_mesh import Peer, fleet, peers, until  # noqa: F401 - fixtures

ALICE, BOB, CAROL = Operator("alice"), Operator("bob"), Operator("carol")
ONLINE = SigningKey.generate()


def root_of(*operators: Operator, threshold: int = 2) -> Root:
    names = [each.public for each in operators]
    return new_root(names, threshold, ONLINE.public, expires=2e9).signed


def draft(red: Message, **changes: object) -> OperatorClear:
    ref, sha256 = identity(red.raw)
    values = {
        "fleet": red.payload.fleet,
        "ref": ref,
        "sha256": sha256,
        "reason": "looked at it",
        "issued": 1.8e9,
    }
    return OperatorClear.from_value({**values, **changes})


def sealed(clear: OperatorClear, *keys: SigningKey) -> bytes:
    return seal(clear.canonical(), OPERATOR_CLEAR, *keys)


def signed(red: Message, **changes: object) -> bytes:
    return sealed(draft(red, **changes), ALICE.targets, BOB.targets)


@pytest.fixture
async def trio(peers: list[Peer]) -> list[Peer]:  # noqa: F811
    for peer in peers:
        peer.root = root_of(ALICE, BOB, CAROL)
    return peers


async def raised(origin: Peer, *others: Peer, reason: str = "down") -> Message:
    red = await origin.mesh.broadcast(Red(kind=RedKind.STUCK, reason=reason))
    for peer in others:
        await peer.mesh.receive(red.raw.encode())
    return red


async def test_enough_operators_end_a_red_for_whoever_holds_it(trio: list[Peer]) -> None:
    a, b, c = trio
    red = await raised(a, b, c)
    for peer in trio:
        await peer.clears.take(signed(red))
        assert peer.mesh.open_reds() == []
        last = (await Inbox(peer.store, peer.name).after(0))[-1]
        assert (last.by, last.reason, last.key) == (EndedBy.OPERATOR, "looked at it", red.key)
    await b.mesh.receive(red.raw.encode())
    assert b.mesh.open_reds() == [], "the red that comes again stays over"


async def test_what_a_stolen_coordinator_can_sign_ends_nothing(trio: list[Peer]) -> None:
    """P6: it has the online key and the roster key, and can keep or repeat what operators signed before."""
    a, b, c = trio
    red = await raised(a, b)
    other = await raised(a, b, reason="another")
    clear = draft(red)
    thiefs = {
        "online": sealed(clear, ONLINE),
        "roster": sealed(clear, b.fleet.roster_key),
        "both": sealed(clear, ONLINE, b.fleet.roster_key),
        "one operator": sealed(clear, ALICE.targets),
        "one operator, twice": sealed(clear, ALICE.targets, ALICE.targets),
        "root keys": sealed(clear, ALICE.root, BOB.root),
        "a node": sealed(clear, c.trust.key),
        "a former operator": sealed(clear, ALICE.targets, Operator("dave").targets),
        "as a message": seal(clear.canonical(), MESSAGE, ALICE.targets, BOB.targets),
        "moved to another": _with_payload(signed(other), clear.canonical()),
        "nothing": b"{}",
    }
    for what, raw in thiefs.items():
        with pytest.raises(RollcallError):
            await b.clears.take(raw)
        await b.clears.answered(Offered([], []), [], [raw.decode()])
        assert red.key in {each.key for each in b.mesh.frozen_by()}, what
    await b.clears.take(signed(other))
    assert [each.key for each in b.mesh.frozen_by()] == [red.key], "one clear, one red"


def _with_payload(raw: bytes, payload: bytes) -> bytes:
    import base64

    value = json.loads(raw)
    value["payload"] = base64.b64encode(payload).decode()
    return json.dumps(value).encode()


async def test_a_clear_ends_the_very_red_that_was_signed_and_no_later_one(
    trio: list[Peer],
) -> None:
    a, b, _ = trio
    red = await raised(a, b)
    await b.clears.take(signed(red, sha256="0" * 64))
    assert b.mesh.frozen_by(), "another content under this key"
    await b.clears.take(signed(red))
    assert not b.mesh.frozen_by()
    again = await raised(a, b)
    await b.clears.take(signed(red))
    assert [each.key for each in b.mesh.frozen_by()] == [again.key]


async def test_a_red_that_comes_after_its_clear_is_over_at_once_and_after_a_restart(
    trio: list[Peer],
) -> None:
    a, b, _ = trio
    red = await raised(a)
    await b.clears.take(signed(red))
    await b.mesh.receive(red.raw.encode())
    assert not b.mesh.frozen_by()
    events = await Inbox(b.store, "b").after(0)
    assert [(each.event, each.by) for each in events] == [
        ("red", None),
        ("clear", EndedBy.OPERATOR),
    ]
    await b.down()
    back = await Peer(b.fleet, "b").up()
    assert back.mesh.open_reds() == []
    await back.down()


async def test_an_envelope_that_was_written_otherwise_is_the_same_red(trio: list[Peer]) -> None:
    """Who relays can change spaces: the clear is bound to what the origin signed."""
    a, b, _ = trio
    red = await raised(a)
    spaced = json.dumps(json.loads(red.raw), indent=1)
    assert spaced != red.raw
    await b.mesh.receive(spaced.encode())
    await b.clears.take(signed(red))
    assert not b.mesh.frozen_by()


async def test_a_clear_goes_from_peer_to_peer_without_the_coordinator(trio: list[Peer]) -> None:
    a, b, c = trio
    red = await raised(a, b, c)
    for peer in (b, c):
        peer.run()
    await b.clears.take(signed(red))
    await until(lambda: not c.mesh.frozen_by(), "c asked b")
    second = await raised(a, b, c, reason="by hand")
    assert await c.clears.hand_in(signed(second)) == second.key
    assert not b.mesh.frozen_by(), "told at once"


async def test_a_node_that_does_not_know_the_operators_yet_takes_it_later(
    trio: list[Peer],
) -> None:
    a, b, _ = trio
    b.root = root_of(CAROL, threshold=1)
    red = await raised(a, b)
    offered = await b.clears.offer()
    assert offered.open_reds == [red.key]
    for _ in range(2):
        await b.clears.answered(offered, [], [signed(red).decode()])
    assert b.mesh.frozen_by()
    assert b.mesh.dropped == {"too-few": 1}, "complained about once"
    b.root = root_of(ALICE, BOB)
    await b.clears.answered(offered, [], [signed(red).decode()])
    assert not b.mesh.frozen_by()


async def test_what_the_coordinator_has_is_not_offered_again(trio: list[Peer]) -> None:
    a, b, _ = trio
    red = await raised(a, b)
    raw = signed(red)
    await b.clears.take(raw)
    offered = await b.clears.offer()
    assert offered == Offered([], [raw.decode()])
    await b.clears.answered(offered, [sha256_hex(raw)], [])
    assert await b.clears.offer() == Offered([], [])


class OlderPeers:
    """Every peer is of before operators' clears."""

    async def ask(self, peer: str, method: str, path: str, **_: object) -> bytes:
        raise RefusedError(404, Refusal(title="http", detail="Not Found"))


async def test_older_peers_have_no_such_door_and_nothing_breaks(trio: list[Peer]) -> None:
    a, b, c = trio
    red = await raised(a, b)
    b.clears._transport = cast(Transport, OlderPeers())
    await b.clears._ask("c", [red.key])
    assert await b.clears.hand_in(signed(red)) == red.key
    with pytest.raises(UntrustedError, match="envelope of type"):
        await c.mesh.receive(signed(red))


async def test_pruning_forgets_a_clear_only_after_its_red(trio: list[Peer]) -> None:
    a, b, _ = trio
    red = await raised(a, b)
    raw = signed(red)
    await b.clears.take(raw, uploaded=True)
    later = SystemClock().now() + 5
    assert await b.mesh.prune(later) == 0, "the red was not uploaded yet"
    await b.mesh.receive(red.raw.encode())
    assert not b.mesh.frozen_by()
    await b.store.uploaded([red.sha256])
    assert await b.mesh.prune(later) == 1
    with pytest.raises(UntrustedError, match="long closed"):
        await b.mesh.receive(red.raw.encode())


def test_a_clear_of_another_fleet_or_another_protocol_is_refused(tmp_path: Path) -> None:
    clear = OperatorClear(
        fleet="a" * 64, ref="a:1:1", sha256="b" * 64, reason="x", issued=1.0, protocol=7, newest=7
    )
    root = root_of(ALICE, BOB)
    raw = sealed(clear, ALICE.targets, BOB.targets)
    with pytest.raises(ProtocolError):
        open_clear(raw, root, "a" * 64, ProtocolRange(min=1, max=2))
    assert open_clear(raw, root, "a" * 64, ProtocolRange(min=1, max=7)) == clear
    with pytest.raises(WrongFleetError):
        open_clear(raw, root, "c" * 64, ProtocolRange(min=7, max=7))


async def test_signatures_are_gathered_one_by_one_and_what_was_changed_shows(
    trio: list[Peer],
) -> None:
    red = await raised(trio[0])
    root = root_of(ALICE, BOB, CAROL)
    file = ClearFile(red=red.raw, clear=draft(red))
    assert signers_of(file, root) == []
    once = file.signed(ALICE.targets)
    with pytest.raises(TooFewError):
        open_clear(once.envelope.encode(), root, red.payload.fleet)
    both = once.signed(BOB.targets)
    assert signers_of(both, root) == ["alice", "bob"]
    assert len(DsseEnvelope.from_bytes(both.envelope.encode()).signatures) == 2
    assert open_clear(both.envelope.encode(), root, red.payload.fleet).reason == "looked at it"
    changed = both.model_copy(update={"clear": draft(red, reason="another")})
    with pytest.raises(BadInputError, match="another clear than the one that is shown"):
        changed.check()
    other = await raised(trio[0], reason="another")
    with pytest.raises(BadInputError, match="another red"):
        ClearFile(red=other.raw, clear=draft(red)).check()
