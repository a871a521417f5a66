"""Whether an archive holds, by nothing but the fleet root's fingerprint. Pure: bytes in, a list of checks out.

Each step trusts only what the one before has proven: root, targets, fleet document, rosters, messages. A step whose
ground is missing does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from tuf.api.metadata import Root

from coordinator.audit import Chain
from coordinator.evidence.archive import (
    FLEETS,
    MANIFEST,
    RELEASES,
    ROOTS,
    TARGETS,
    Manifest,
    unpack,
)
from coordinator.evidence.ground import Ground, in_short, rows_of
from coordinator.evidence.work import check_capabilities, check_orders
from shared.attesting import Judgement, judge
from shared.canonical import sha256_hex
from shared.envelope import EVIDENCE, open_envelope
from shared.errors import BadInputError, RollcallError, UntrustedError
from shared.fleet import FleetDocument
from shared.messages import Ack, Clear, Red, open_message
from shared.metadata import FLEET, check_root, check_targets, fingerprint, read_root, read_targets
from shared.operatorclear import identity, open_clear
from shared.roster import open_roster
from shared.wire import Wire, short

DONE, MOVING = "done", "moving"
_FAULTS = (RollcallError, LookupError, TypeError, ValueError, AttributeError)
"""What reading a member can raise that was not written by us."""


class Check(Wire):
    """`words` say what was found; where it does not hold, what is wrong."""

    name: str
    holds: bool
    words: str


class Verified(Wire):
    rollout: str = ""
    fleet: str = ""
    checks: list[Check]

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(each.holds for each in self.checks)


def verify(raw: bytes, root_fingerprint: str, noted_head: str | None = None) -> Verified:
    """`noted_head` is a head of the audit log that somebody noted within the rollout's time. Blocking."""
    try:
        top, members = unpack(raw)
    except RollcallError as error:
        return Verified(checks=[Check(name="archive", holds=False, words=error.message)])
    ground = Ground(members, top, root_fingerprint)
    steps: tuple[tuple[str, Callable[[Ground], str]], ...] = (
        ("root", _roots),
        ("targets", _targets),
        ("fleet document", _fleets),
        ("members", _members),
        ("rosters", _rosters),
        ("messages", _messages),
        ("releases", _releases),
        ("history", _history),
        ("reds", _reds),
        ("readiness", _readiness),
        ("orders", check_orders),
        ("capabilities", check_capabilities),
        ("audit", lambda each: _audit(each, noted_head)),
    )
    checks = [_check(name, step, ground) for name, step in steps]
    try:
        checks += _attestations(ground)
    except _FAULTS as error:
        checks.append(Check(name="attestations", holds=False, words=_say(error)))
    fleet = ground.fleet.fleet if ground.fleets else ""
    return Verified(rollout=top, fleet=fleet, checks=checks)


def _check(name: str, step: Callable[[Ground], str], ground: Ground) -> Check:
    try:
        return Check(name=name, holds=True, words=step(ground))
    except _FAULTS as error:
        return Check(name=name, holds=False, words=_say(error))


def _say(error: Exception) -> str:
    if isinstance(error, RollcallError):
        return short(error.message)
    return f"a member has another form than the coordinator writes ({type(error).__name__})"


def _roots(ground: Ground) -> str:
    """The root with the fingerprint is trusted; each one after it must follow it."""
    found = sorted(
        (read_root(raw) for _, raw in ground.under(ROOTS)), key=lambda each: each.signed.version
    )
    start = next((i for i, each in enumerate(found) if fingerprint(each) == ground.fingerprint), -1)
    if start < 0:
        raise UntrustedError("no root in the archive has this fingerprint")
    trusted = found[start:]
    if trusted[0].signed.version == 1:
        check_root(trusted[0], None)
    for before, after in pairwise(trusted):
        check_root(after, before.signed)
    ground.roots = trusted
    first, last = trusted[0].signed.version, trusted[-1].signed.version
    return f"version {first} has the fingerprint" + (
        f"; versions up to {last} follow it" if last > first else ""
    )


def _targets(ground: Ground) -> str:
    """Each under one of the roots: what operators signed under an earlier one they did sign."""
    found = [read_targets(raw) for _, raw in ground.under(TARGETS)]
    if not found:
        raise UntrustedError("there are no targets")
    for each in found:
        _any_root(ground, lambda root, each=each: check_targets(each, root))  # type: ignore[misc]
    ground.targets = sorted(found, key=lambda each: -each.signed.version)
    versions = sorted(each.signed.version for each in found)
    return f"operators have signed version {', '.join(map(str, versions))}"


def _any_root(ground: Ground, check: Callable[[Root], Any]) -> Any:
    """The newest root that it holds under. Raises the newest one's error where there is none."""
    errors: list[RollcallError] = [UntrustedError("no root is proven")]
    for root in reversed(ground.roots):
        try:
            return check(root.signed)
        except UntrustedError as error:
            errors.append(error)
    raise errors[min(1, len(errors) - 1)]


def _listed(ground: Ground) -> dict[str, str]:
    """The paths of all targets by their SHA-256."""
    return {
        str(file.hashes.get("sha256")): path
        for each in ground.targets
        for path, file in each.signed.targets.items()
    }


def _fleets(ground: Ground) -> str:
    listed = _listed(ground)
    for name, raw in ground.under(FLEETS):
        if listed.get(sha256_hex(raw)) != FLEET:
            raise UntrustedError(f"{name} is in no targets that operators signed")
        document = FleetDocument.from_bytes(raw)
        ground.fleets[document.version] = document
    return f"{ground.fleet.name}, version {', '.join(map(str, sorted(ground.fleets)))}"


def _members(ground: Ground) -> str:
    """The manifest under the newest fleet document's roster key, and every member against it."""
    raw = ground.members[MANIFEST]
    opened = open_envelope(raw, EVIDENCE, [ground.fleet.roster_key])
    manifest = Manifest.from_bytes(opened.payload)
    if (manifest.rollout, manifest.fleet) != (ground.top, ground.fleet.fleet):
        raise UntrustedError("the manifest is of another rollout or fleet")
    known = {each.name: each for each in manifest.members}
    there = ground.members.keys() - {MANIFEST}
    wrong = [
        *(f"{name} is missing" for name in sorted(known.keys() - there)),
        *(f"{name} is not in the manifest" for name in sorted(there - known.keys())),
        *(
            f"{name} was changed"
            for name in sorted(there & known.keys())
            if sha256_hex(ground.members[name]) != known[name].sha256
        ),
    ]
    if wrong:
        raise UntrustedError(in_short(wrong))
    return f"all {len(known)} are what the coordinator signed"


def _rosters(ground: Ground) -> str:
    found = []
    for name, raw in ground.under("rosters"):
        version = name.removeprefix("rosters/").partition("-")[0]
        document = ground.fleets.get(int(version) if version.isdigit() else 0)
        if document is None:
            raise UntrustedError(f"{name} goes with a fleet document that is not proven")
        found.append((raw.decode("utf-8", "replace"), open_roster(raw, document)))
    if not found:
        raise UntrustedError("there is no roster")
    ground.rosters = sorted(found, key=lambda each: each[1].number, reverse=True)
    return f"{len(found)} signed by the coordinator"


def _messages(ground: Ground) -> str:
    """Each under the newest roster that knows its key and has not revoked it."""
    raws = ground.value("messages.json")
    if not isinstance(raws, list) or not all(isinstance(each, str) for each in raws):
        raise BadInputError("messages.json is no list of envelopes")
    wrong = []
    for raw in raws:
        try:
            _read(ground, raw)
        except RollcallError as error:
            wrong.append(f"message {sha256_hex(raw.encode())[:12]}: {error.message}")
    if wrong:
        raise UntrustedError(in_short(wrong))
    return f"{len(raws)} with good signatures"


def _read(ground: Ground, raw: str) -> None:
    errors: list[RollcallError] = [UntrustedError("no roster is proven")]
    for _, roster in ground.rosters:
        try:
            ground.messages.append(open_message(raw.encode(), roster))
        except UntrustedError as error:
            errors.append(error)
        else:
            return
    fleet = ground.fleet.fleet
    try:
        clear = _any_root(ground, lambda root: open_clear(raw.encode(), root, fleet))
    except UntrustedError:
        raise errors[min(1, len(errors) - 1)] from None
    ground.operator_clears.append(clear)


def _releases(ground: Ground) -> str:
    """The release of the rollout, and of each node where it has one of its own, is one that operators signed."""
    wanted = {ground.rollout.get("release")} | {each.get("release") for each in ground.nodes()}
    listed = _listed(ground)
    there = {sha256_hex(raw) for _, raw in ground.under(RELEASES)}
    names = []
    for each in sorted(each for each in wanted if isinstance(each, str)):
        if each not in listed or each not in there:
            raise UntrustedError(f"release {each[:12]} is in no targets that operators signed")
        names.append(listed[each].removesuffix(".release.json"))
    return f"operators have signed {', '.join(names)}"


def _history(ground: Ground) -> str:
    """The last transition of every node is the state that the rollout ends with."""
    rows, last = rows_of(ground, "history.json"), {}
    for row in rows:
        last[row.get("node")] = row.get("state")
    wrong = [
        f"{node.get('name')} is {node.get('state')}, and its history ends with {last[node['name']]}"
        for node in ground.nodes()
        if node.get("name") in last and last[node["name"]] != node.get("state")
    ]
    if wrong:
        raise UntrustedError(in_short(wrong))
    return f"{len(rows)} transitions lead to the state of every node"


def _reds(ground: Ground) -> str:
    """What became of each. A clear counts under the very key that signed the red, or as operators signed it."""
    reds = [each for each in ground.messages if isinstance(each.payload.body, Red)]
    cleared = {
        (body.ref, each.keyid)
        for each in ground.messages
        if isinstance(body := each.payload.body, Clear)
    }
    by_operators = {(each.ref, each.sha256) for each in ground.operator_clears}
    said = []
    for red in reds:
        acks = {
            each.payload.origin
            for each in ground.messages
            if isinstance(body := each.payload.body, Ack) and body.ref == red.key
        }
        end = "still open"
        if (red.key, red.keyid) in cleared:
            end = "cleared by its origin"
        elif identity(red.raw) in by_operators:
            end = "cleared by operators"
        said.append(f"{red.key} {end}, held by {', '.join(sorted(acks)) or 'nobody'}")
    return "; ".join(said) or "there was none"


def _readiness(ground: Ground) -> str:
    rows = rows_of(ground, "readiness.json")
    names = {node.get("name") for node in ground.nodes()}
    strange = sorted({str(row.get("node")) for row in rows} - {str(name) for name in names})
    if strange:
        raise UntrustedError(f"notes of {', '.join(strange)}, which are not in the rollout")
    return f"{len(rows)} notes of {len({row.get('node') for row in rows})} nodes"


def _audit(ground: Ground, noted_head: str | None) -> str:
    rows = rows_of(ground, "audit.json")
    if not rows:
        raise UntrustedError("there is no row of the audit log: not even that it was begun")
    first, before = rows[0].get("id"), rows[0].get("prev")
    if not isinstance(first, int) or not isinstance(before, str):
        raise BadInputError("the first row of audit.json is damaged")
    chain = Chain(first - 1, before)
    for row in rows:
        chain.add(row)
    if noted_head is not None:
        chain.must_contain(noted_head)
    return f"rows {first} to {chain.count} follow each other, from {before} to {chain.head}"


def _attestations(ground: Ground) -> Iterator[Check]:
    """For every node that moved forward and counts as done: the quorum saw that very release green. One that went
    back to its bookmark runs what it ran before, of which nobody claims anything."""
    rows = rows_of(ground, "history.json")
    moved = {row.get("node") for row in rows if row.get("state") == MOVING}
    ended = {row.get("node"): float(row["at"]) for row in rows if row.get("state") == DONE}
    raws: dict[str, list[str]] = {}
    for each in ground.messages:
        raws.setdefault(each.ref, []).append(each.raw)
    for node in ground.nodes():
        name, order = str(node.get("name")), str(node.get("order"))
        if node.get("state") != DONE or name not in moved or node.get("undoes"):
            continue
        release = str(node.get("release") or ground.rollout.get("release"))
        found = _judge(ground, order, release, raws.get(order, []), ended.get(name, 0.0))
        signed = f"seen green by {', '.join(found.signed)}" if found.signed else ""
        probe = (found.ready_probe_sha256 or "")[:12]
        words = f"{signed}, ready probe {probe}" if found.proven else found.reason
        yield Check(name=f"attestations of {name}", holds=found.proven, words=words)


def _judge(ground: Ground, order: str, release: str, raws: list[str], at: float) -> Judgement:
    """By the roster that was in force then: who was revoked or has joined since counts as it did."""
    if not ground.rosters:
        raise UntrustedError("no roster is proven")
    earlier = [each for each in ground.rosters if each[1].issued <= at]
    raw, roster = (earlier or ground.rosters[-1:])[0]
    return judge(raw.encode(), ground.fleets[roster.fleet_version], order, release, raws)
