"""Who must see a node green, and what of it can be proven afterwards to somebody who was not there."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from agent.peers.attest import Attestor
from coordinator.rollout.decide import decide
from shared.attesting import NO_ANSWER, NOT_A_NODE, judge, quorum
from shared.clock import SystemClock
from shared.errors import NotFoundError, RollcallError, UntrustedError
from shared.fleet import FleetDocument
from shared.messages import Attestation, Body, Message, Payload, Proven, Verdict, sign_message
from shared.release import Release, parse_release
from shared.rollout import NodeState
from shared.roster import sign_roster
from tests.support.trustkit import TestFleet, make_fleet
from tests.support.tufkit import manifest_of
from tests.unit.test_mesh import Peer, fleet, peers  # noqa: F401 - fixtures
from tests.unit.test_rollout import NOW, ended, make
from tests.unit.test_rollout import fleet as known

ORDER, RELEASE, HASH, NONCE = "a1b2c3d4:a", "1" * 64, "2" * 64, "3" * 64
CLAIM = Proven(order=ORDER, release=RELEASE, ready_probe_sha256=HASH, nonce=NONCE)
SEEN = Attestation(
    subject="a",
    order=ORDER,
    release=RELEASE,
    nonce=NONCE,
    verdict=Verdict.GREEN,
    ready_probe_sha256=HASH,
)


@pytest.mark.parametrize(
    ("subject", "witnesses", "expected"),
    [
        ("a", [], ["b", "c"]),
        ("a", ["b"], ["b"]),
        ("b", ["b", "c"], ["c"]),
        ("b", ["b"], ["a", "c"]),
        ("a", ["gone", "b"], ["b", "gone"]),
    ],
    ids=["every live peer", "witnesses", "never itself", "the only one", "not in the roster"],
)
def test_the_quorum_is_every_live_peer_or_who_operators_named(
    subject: str, witnesses: list[str], expected: list[str]
) -> None:
    assert quorum(subject, ["a", "b", "c"], witnesses) == expected


class Signed:
    """A fleet's messages, and its verdict on them."""

    def __init__(self, made: TestFleet) -> None:
        self.fleet, self.document, self.sequence = made, made.document, 0

    def by(self, name: str, body: Body, *, key_of: str | None = None) -> str:
        self.sequence += 1
        payload = Payload(
            fleet=self.document.fleet,
            origin=name,
            epoch=1,
            sequence=self.sequence,
            issued=1.0,
            body=body,
        )
        return sign_message(payload, self.fleet.keys[key_of or name]).raw

    def witnesses(self, *names: str) -> None:
        self.document = self.document.model_copy(update={"witnesses": list(names)})

    def judge(self, *messages: str, revoked: tuple[str, ...] = ()) -> tuple[bool, dict[str, str]]:
        roster = self.fleet.roster(revoked=revoked)
        raw = sign_roster(roster, self.fleet.roster_key)
        found = judge(raw, self.document, ORDER, RELEASE, messages)
        return found.proven, dict(found.missing)


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return Signed(make_fleet(tmp_path))


def test_a_claim_that_the_whole_quorum_saw_green_is_proven(signed: Signed) -> None:
    claim, b, c = signed.by("a", CLAIM), signed.by("b", SEEN), signed.by("c", SEEN)
    assert signed.judge(c, claim, b) == (True, {})
    assert signed.judge(claim, b) == (False, {"c": NO_ANSWER})
    assert signed.judge(b, c) == (False, {"b": NO_ANSWER, "c": NO_ANSWER}), "nothing was claimed"
    assert signed.judge(claim, b, b) == (False, {"c": NO_ANSWER}), "one voice counts once"


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": "9" * 64},
        {"order": "ffffffff:a"},
        {"release": "9" * 64},
        {"subject": "b"},
        {"verdict": Verdict.UNKNOWN},
        {"ready_probe_sha256": "9" * 64},
        {"ready_probe_sha256": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_green_of_something_else_is_none(signed: Signed, change: dict[str, object]) -> None:
    other = signed.by("c", SEEN.model_copy(update=change))
    proven, missing = signed.judge(signed.by("a", CLAIM), signed.by("b", SEEN), other)
    assert (proven, list(missing)) == (False, ["c"])


def test_nobody_speaks_for_another_nor_for_itself(signed: Signed) -> None:
    claim, b = signed.by("a", CLAIM), signed.by("b", SEEN)
    for forged in (
        signed.by("c", SEEN, key_of="b"),
        signed.by("c", SEEN, key_of="a"),
        signed.by("a", SEEN),
        "{}",
    ):
        assert signed.judge(claim, b, forged) == (False, {"c": NO_ANSWER})
    stranger = signed.by("a", CLAIM, key_of="b")
    assert not signed.judge(stranger, b, signed.by("c", SEEN))[0]


def test_who_said_green_and_red_of_one_claim_has_not_said_green(signed: Signed) -> None:
    red = SEEN.model_copy(update={"verdict": Verdict.RED, "reason": "tree differs"})
    messages = [signed.by("a", CLAIM), signed.by("b", SEEN), signed.by("c", SEEN)]
    assert signed.judge(*messages, signed.by("c", red)) == (False, {"c": "tree differs"})


def test_a_later_claim_can_be_proven_after_one_that_was_not(signed: Signed) -> None:
    later = CLAIM.model_copy(update={"nonce": "4" * 64})
    greens = [signed.by(n, SEEN.model_copy(update={"nonce": "4" * 64})) for n in ("b", "c")]
    assert signed.judge(signed.by("a", CLAIM), signed.by("a", later), *greens) == (True, {})
    mixed = [signed.by("b", SEEN), greens[1]]
    assert not signed.judge(signed.by("a", CLAIM), signed.by("a", later), *mixed)[0]


def test_who_signs_rosters_can_make_a_set_of_witnesses_neither_smaller_nor_another(
    signed: Signed,
) -> None:
    """A stolen coordinator throws the witness out of the roster: it is missing, and not forgotten."""
    signed.witnesses("b", "c")
    claim, b, c = signed.by("a", CLAIM), signed.by("b", SEEN), signed.by("c", SEEN)
    assert signed.judge(claim, b, c) == (True, {})
    assert signed.judge(claim, b, c, revoked=("c",)) == (False, {"c": NOT_A_NODE})
    assert signed.judge(claim, b, c, revoked=("b", "c"))[0] is False


def test_without_anybody_else_nothing_is_proven(signed: Signed) -> None:
    raw = sign_roster(signed.fleet.roster(revoked=("b", "c")), signed.fleet.roster_key)
    found = judge(raw, signed.document, ORDER, RELEASE, [signed.by("a", CLAIM)])
    assert (found.proven, found.reason) == (False, "there is nobody else who could have looked")


def test_a_roster_of_another_fleet_judges_nothing(signed: Signed, tmp_path: Path) -> None:
    other = make_fleet(tmp_path / "other")
    raw = sign_roster(other.roster(), other.roster_key)
    with pytest.raises(UntrustedError):
        judge(raw, signed.document, ORDER, RELEASE, [])


@pytest.fixture
def release() -> Release:
    return parse_release(manifest_of("2026.9.6", b"{}", SystemClock().now()).canonical())


def attestor(peer: Peer) -> Attestor:
    def own() -> None:
        raise AssertionError("nobody looks here")

    async def unknown(*_: object) -> Release:
        raise NotFoundError("no release is looked at here")

    return Attestor(
        peer.trust,
        peer.mesh,
        peer.transport,
        peer.store,
        SystemClock(),
        own,  # type: ignore[arg-type]
        unknown,
    )


async def claim_of(asked: list[Message]) -> Proven:
    async with asyncio.timeout(60):
        while True:
            for message in asked:
                if isinstance(message.payload.body, Proven):
                    return message.payload.body
            await asyncio.sleep(0.05)


async def test_only_the_witnesses_are_asked_and_what_they_signed_is_exported(
    peers: list[Peer],  # noqa: F811
    release: Release,
) -> None:
    a, b, c = peers
    a.trust.fleet = a.trust.fleet.model_copy(update={"witnesses": ["a", "b"]})
    for peer in peers:
        peer.run()
    collects = attestor(a)
    collecting = asyncio.create_task(collects.collect(ORDER, release, HASH, 20))
    claim = await claim_of(b.heard)
    seen = SEEN.model_copy(update={"release": release.id, "nonce": claim.nonce})
    await b.mesh.send("a", seen)
    assert await collecting == ["b"]
    assert not any(isinstance(each.payload.body, Proven) for each in c.heard)
    exported = await collects.export(ORDER)
    assert exported.judgement.proven
    assert exported.judgement.signed == ["b"]
    again = judge(
        exported.roster.encode(), exported.fleet, ORDER, exported.release, exported.messages
    )
    assert again == exported.judgement
    with pytest.raises(NotFoundError, match="asked nobody"):
        await collects.export("ffffffff:a")


async def test_a_witness_that_the_roster_does_not_name_keeps_the_node_from_being_attested(
    peers: list[Peer],  # noqa: F811
    release: Release,
) -> None:
    a, b, _ = peers
    a.trust.fleet = a.trust.fleet.model_copy(update={"witnesses": ["b", "c"]})
    a.trust.roster = a.fleet.roster(revoked=("b", "c"), epoch=2)
    with pytest.raises(UntrustedError, match="b: a witness that the roster does not name"):
        await attestor(a).collect(ORDER, release, HASH, 0)
    assert b.heard == []


def test_a_rollout_waits_for_the_witnesses_and_for_nobody_else() -> None:
    begun = decide(make(), known(), NOW)
    by_one = known(ended("canary", attested_by=["witness"]))
    waits = decide(begun, by_one, NOW).find("canary")
    assert waits is not None
    assert "attestations of stable" in waits.reason
    named = replace(by_one, witnesses=("canary", "witness"))
    done = decide(begun, named, NOW).find("canary")
    assert done is not None
    assert done.state is NodeState.DONE
    gone = decide(begun, replace(by_one, witnesses=("gone", "witness")), NOW).find("canary")
    assert gone is not None
    assert "attestations of gone" in gone.reason


async def test_what_an_older_agent_left_out_of_the_fleet_document_is_taken_later(
    peers: list[Peer],  # noqa: F811
) -> None:
    """It kept the version without the field that it did not know."""
    trust = peers[0].trust
    whole = trust.fleet.model_copy(update={"witnesses": ["b", "c"]})
    assert await trust.accept_fleet(whole)
    assert not await trust.accept_fleet(whole)
    older = whole.model_copy(update={"version": 0, "witnesses": []})
    assert not await trust.accept_fleet(older)
    assert trust.fleet == whole


def test_a_fleet_document_of_before_names_no_witnesses(signed: Signed) -> None:
    value = signed.document.model_dump(mode="json")
    del value["witnesses"]
    assert FleetDocument.from_value(value).witnesses == []
    with pytest.raises(RollcallError):
        FleetDocument.from_value({**value, "witnesses": ["../x"]})
