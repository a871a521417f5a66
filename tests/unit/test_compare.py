"""Who of the nodes on one release differs, when that is a red, and when it is none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.peers.attest import judge_claim
from agent.peers.compare import READ_AGAIN_S, Comparer, judge_own
from agent.peers.transport import Transport
from shared.canonical import MAX_JSON_BYTES
from shared.errors import UnavailableError
from shared.messages import Proven, RedKind, Verdict
from shared.readiness import ReadinessDocument, SeenReadiness
from shared.release import parse_release
from tests.conftest import ManualClock
from tests.support.trustkit import TestFleet, make_fleet
from tests.unit.test_comparing import node
from tests.unit.test_readiness import TREE
from tests.unit.test_release import manifest

ODD = "d" * 64
LASTS_S = 90.0


def told(own: ReadinessDocument, *peers: ReadinessDocument) -> str | None:
    """The peer that this node is told to differ from."""
    found = judge_own(own, {peer.node: peer for peer in peers})
    return None if found.mismatch is None else found.mismatch.peer


def odd(name: str, tree: str = ODD) -> ReadinessDocument:
    return node(name, tree_sha256=tree)


def test_of_three_the_one_that_differs_is_told_and_the_others_are_not() -> None:
    assert told(odd("a"), node("b"), node("c")) == "b"
    assert told(node("a"), odd("b"), node("c")) is None
    assert told(node("a"), node("b"), node("c")) is None


def test_of_two_both_are_told() -> None:
    assert told(odd("a"), node("b")) == "b"
    assert told(node("b"), odd("a")) == "a"


def test_without_a_majority_all_are_told_and_each_names_the_largest_crowd() -> None:
    assert told(node("a"), odd("b"), odd("c", "e" * 64)) == "b"
    assert told(node("a"), node("b"), odd("c"), odd("d")) == "c"
    assert told(odd("a", "e" * 64), odd("b"), node("c"), node("d")) == "c"


def test_who_is_not_green_or_on_another_release_is_not_compared() -> None:
    red = odd("b").model_copy(update={"status": Verdict.RED})
    unknown = odd("c").model_copy(update={"status": Verdict.UNKNOWN})
    moved = node("d", release="f" * 64, tree_sha256=ODD)
    for peers in ({}, {"b": red, "c": unknown, "d": moved}):
        found = judge_own(node("a"), peers)
        assert (found.comparable, found.mismatch) == (False, None)
    sick = node("a").model_copy(update={"status": Verdict.RED})
    assert not judge_own(sick, {"b": odd("b")}).comparable


def test_two_platforms_of_one_release_agree_and_outvote_who_differs() -> None:
    mac, linux = node("b"), node("c", platform="linux-x86_64", tree_sha256="e" * 64)
    assert told(node("a"), linux) is None
    assert told(odd("a"), mac, linux) == "b"
    assert told(odd("a"), mac, node("d"), linux) == "b"
    assert told(mac, odd("a"), node("d"), linux) is None
    assert told(linux, odd("a"), mac) is None
    locked = node("a", lock_sha256="9" * 64)
    assert told(locked, linux, mac) == "b"
    assert told(linux, locked, mac) is None


@dataclass
class Reds:
    open: dict[tuple[str, str | None], str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    async def raise_red(self, kind: RedKind, reason: str, release: str | None) -> None:
        if (kind, release) not in self.open:
            self.open[kind, release] = reason
            self.said.append(reason)

    async def end_reds(self, kind: RedKind, reason: str, *, but: str | None = None) -> None:
        for key in [key for key in self.open if key[0] == kind and (but is None or key[1] != but)]:
            del self.open[key]
            self.said.append(reason)


class Peers(Transport):
    """Answers with what the test says the peers are; counts whole documents."""

    def __init__(self) -> None:
        self.now: dict[str, ReadinessDocument] = {}
        self.whole = 0

    async def ask(
        self,
        peer: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: bytes | None = None,
        timeout_s: float = 10.0,
        max_answer: int = MAX_JSON_BYTES,
    ) -> bytes:
        assert (method, path) == ("GET", "/v1/peer/readiness")
        if peer not in self.now:
            raise UnavailableError(f"{peer} did not answer")
        document = self.now[peer]
        tag = f"{document.ready_probe_sha256[:32]}{document.status}"
        if (params or {}).get("known") == tag:
            return SeenReadiness(tag=tag).model_dump_json().encode()
        self.whole += 1
        return SeenReadiness(tag=tag, document=document).model_dump_json().encode()


class Bench:
    def __init__(self, fleet: TestFleet, clock: ManualClock) -> None:
        self.clock, self.reds, self.peers = clock, Reds(), Peers()
        self.own, self.settled, self.read_again = node("a"), True, 0
        self.comparer = Comparer(
            fleet.trust("a"),
            self.peers,
            clock,
            self.reds,
            lambda: self.own,
            lambda: self.settled,
            self._read_again,
            lasts_s=LASTS_S,
        )

    async def _read_again(self) -> None:
        self.read_again += 1

    async def pass_by(self, seconds: float) -> None:
        """Every peer is asked each 30 s."""
        for _ in range(int(seconds // 30)):
            self.clock.advance(30)
            await asyncio.gather(*(self.comparer.look(peer) for peer in ("b", "c")))

    def red(self) -> str | None:
        return next(iter(self.reds.open.values()), None)


@pytest.fixture
def bench(tmp_path: Path, clock: ManualClock) -> Bench:
    made = Bench(make_fleet(tmp_path), clock)
    made.peers.now = {"b": node("b"), "c": node("c")}
    return made


async def test_healthy_nodes_are_never_red_and_cost_a_304_each(bench: Bench) -> None:
    await bench.pass_by(3600)
    assert (bench.reds.said, bench.read_again) == ([], 0)
    assert bench.peers.whole == 2


async def test_a_mismatch_that_lasts_is_a_red_with_the_fields_and_ends_by_itself(
    bench: Bench,
) -> None:
    await bench.pass_by(60)
    bench.own = odd("a")
    await bench.pass_by(90)
    assert bench.red() is None
    assert bench.read_again == 1, "this node looks at itself first"
    await bench.pass_by(30)
    assert bench.red() == (
        "this node differs from b on the same release: tree: a has dddddddddddd, b has cccccccccccc"
    )
    await bench.pass_by(600)
    assert len(bench.reds.said) == 1
    bench.own = node("a")
    await bench.pass_by(30)
    assert bench.red() is None


async def test_one_that_ends_in_time_is_none(bench: Bench) -> None:
    for _ in range(5):
        bench.own = odd("a")
        await bench.pass_by(90)
        bench.own = node("a")
        await bench.pass_by(30)
    assert bench.reds.said == []
    assert bench.read_again <= 600 / READ_AGAIN_S + 1


async def test_while_it_is_moved_a_node_is_not_judged(bench: Bench) -> None:
    bench.own, bench.settled = odd("a"), False
    await bench.pass_by(600)
    assert bench.red() is None
    bench.settled = True
    await bench.pass_by(90)
    assert bench.red() is None, "the time begins when it has settled"
    await bench.pass_by(30)
    assert bench.red() is not None


async def test_a_rollout_that_passes_by_is_no_mismatch(bench: Bench) -> None:
    """Each peer in turn leaves the release, is unknown for a while, and is on the next."""
    for peer in ("b", "c"):
        away = node(peer).model_copy(update={"status": Verdict.UNKNOWN})
        bench.peers.now[peer] = away
        await bench.pass_by(120)
        bench.peers.now[peer] = node(peer, release="f" * 64, tree_sha256="f" * 64)
        await bench.pass_by(120)
    bench.own = node("a", release="f" * 64, tree_sha256="f" * 64)
    await bench.pass_by(300)
    assert bench.reds.said == []


async def test_a_red_stays_while_nobody_can_be_compared_with_and_ends_with_the_release(
    bench: Bench,
) -> None:
    bench.own = odd("a")
    await bench.pass_by(180)
    assert bench.red() is not None
    bench.peers.now = {}
    await bench.pass_by(300)
    assert bench.red() is not None, "that a peer is away proves nothing"
    bench.own = node("a", release="f" * 64)
    bench.peers.now = {"b": node("b", release="f" * 64)}
    await bench.pass_by(30)
    assert bench.red() is None


async def test_what_was_seen_long_ago_does_not_count(bench: Bench) -> None:
    bench.peers.now = {"b": odd("b"), "c": odd("c")}
    await bench.pass_by(30)
    bench.peers.now = {}
    await bench.pass_by(600)
    bench.peers.now = {"c": node("c")}
    await bench.pass_by(300)
    assert bench.reds.said == []


RELEASE = parse_release(manifest().canonical())


def claimed(**facts: Any) -> tuple[Proven, ReadinessDocument]:
    wanted = RELEASE.manifest
    document = node(
        "b",
        release=RELEASE.id,
        core_on_disk=wanted.openclaw,
        lock_sha256=wanted.lock_sha256,
        plugins=wanted.plugins,
        **facts,
    )
    claim = Proven(
        order="00000000:b",
        release=RELEASE.id,
        ready_probe_sha256=document.ready_probe_sha256,
        nonce="1" * 64,
    )
    return claim, document.model_copy(update={"nonce": "1" * 64})


def test_an_attestation_compares_with_its_own_node_and_says_in_what_they_differ() -> None:
    claim, seen = claimed()
    _, own = claimed()
    own = own.model_copy(update={"node": "a"})
    assert judge_claim(claim, RELEASE, seen, own) == (Verdict.GREEN, "")
    _, other = claimed(tree_sha256=ODD)
    verdict, reason = judge_claim(claim, RELEASE, seen, other.model_copy(update={"node": "a"}))
    assert verdict is Verdict.RED
    assert reason == (
        "it differs from a on the same release: "
        f"tree: b has {TREE['tree_sha256'][:12]}, a has {ODD[:12]}"  # type: ignore[index]
    )
    _, linux = claimed(tree_sha256=ODD, platform="linux-x86_64")
    assert judge_claim(claim, RELEASE, seen, linux)[0] is Verdict.GREEN
    assert judge_claim(claim, RELEASE, seen, node("a"))[0] is Verdict.GREEN, "another release"
