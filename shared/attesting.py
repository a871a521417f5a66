"""Whether attestations prove that the quorum saw a node green: a pure function of what was signed, so that anybody
can ask it, offline and later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from shared.errors import BadInputError, UntrustedError
from shared.fleet import FleetDocument
from shared.messages import MAX_MESSAGE_BYTES, Attestation, Message, Proven, Verdict, open_message
from shared.roster import Roster, open_roster
from shared.wire import NodeName, Order, Reason, Sha256, Wire, short

MAX_MESSAGES = 4096
NO_ANSWER = "no answer"
NOT_A_NODE = "a witness that the roster does not name"


class Judgement(Wire):
    """About the claim of the subject that comes nearest. `signed` are those of the quorum whose green counts,
    `missing` the others, with what they said instead; `unread` counts messages that did not verify."""

    order: Order
    subject: NodeName
    release: Sha256
    proven: bool
    reason: Reason = ""
    ready_probe_sha256: Sha256 | None = None
    nonce: Sha256 | None = None
    signed: list[NodeName] = []
    missing: dict[NodeName, Reason] = {}
    unread: int = 0


class AttestationExport(Wire):
    """All that the judgement rests on, but the proof that operators signed the fleet document: that is TUF's."""

    order: Order
    release: Sha256
    fleet: FleetDocument
    roster: str
    messages: Annotated[
        list[Annotated[str, Field(max_length=MAX_MESSAGE_BYTES)]], Field(max_length=MAX_MESSAGES)
    ]
    judgement: Judgement


def quorum(subject: str, live: Iterable[str], witnesses: Sequence[str]) -> list[str]:
    """Who must have seen `subject` green: every other live node, or the witnesses, where operators have named some.
    A witness counts whether the roster names it or not: who signs rosters must not be able to make the quorum
    smaller. No node is a witness of itself; the only witness is seen by everybody else."""
    others = {name for name in witnesses if name != subject}
    return sorted(others or set(live) - {subject})


def tally(
    subject: str,
    claim: Proven,
    attestations: Iterable[tuple[str, Attestation]],
    wanted: Iterable[str],
    live: Iterable[str],
) -> dict[str, str]:
    """Of the `wanted`, who has not signed green of this very claim, and why; `attestations` with who signed each.
    Whoever has said something else as well, for the same claim, has not."""
    known = set(live)
    missing = {name: NO_ANSWER if name in known else NOT_A_NODE for name in wanted}
    objections: dict[str, str] = {}
    greens: set[str] = set()
    for signer, said in attestations:
        fits = (said.subject, said.order, said.release, said.nonce) == (
            subject,
            claim.order,
            claim.release,
            claim.nonce,
        )
        if not fits or signer not in missing:
            continue
        if said.verdict is not Verdict.GREEN:
            objections[signer] = said.reason or str(said.verdict)
        elif said.ready_probe_sha256 == claim.ready_probe_sha256:
            greens.add(signer)
        else:
            objections[signer] = "green, with another hash than the claimed one"
    missing.update(objections)
    return {name: why for name, why in missing.items() if name not in greens - objections.keys()}


def judge(
    roster: bytes, fleet: FleetDocument, order: str, release: str, messages: Sequence[str]
) -> Judgement:
    """`roster` as it was signed, under the fleet document that goes with it; `messages` are the subject's claims and
    the attestations, in any order and among others.

    Raises UntrustedError or BadInputError for a roster that does not verify.
    """
    opened = open_roster(roster, fleet)
    live = [node.name for node in opened.live()]
    subject = order.partition(":")[2]
    wanted = quorum(subject, live, fleet.witnesses)
    read, unread = _read(messages, opened)
    claims = [
        body
        for message in read
        if isinstance(body := message.payload.body, Proven)
        and (message.payload.origin, body.order, body.release) == (subject, order, release)
    ]
    said = [
        (message.payload.origin, body)
        for message in read
        if isinstance(body := message.payload.body, Attestation)
    ]
    found = [(tally(subject, claim, said, wanted, live), claim) for claim in claims]
    best = min(found, key=lambda each: len(each[0]), default=None)
    missing: Mapping[str, str] = dict.fromkeys(wanted, NO_ANSWER) if best is None else best[0]
    return Judgement(
        order=order,
        subject=subject,
        release=release,
        proven=best is not None and bool(wanted) and not missing,
        reason=_reason(best is not None, wanted, missing),
        ready_probe_sha256=None if best is None else best[1].ready_probe_sha256,
        nonce=None if best is None else best[1].nonce,
        signed=[name for name in wanted if name not in missing],
        missing=dict(missing),
        unread=unread,
    )


def _reason(claimed: bool, wanted: list[str], missing: Mapping[str, str]) -> str:
    if not wanted:
        return "there is nobody else who could have looked"
    if not claimed:
        return "the node has not claimed to be green on this release"
    said = "; ".join(f"{name}: {why}" for name, why in sorted(missing.items()))
    return short(f"not seen green by {said}") if said else ""


def _read(messages: Sequence[str], roster: Roster) -> tuple[list[Message], int]:
    if len(messages) > MAX_MESSAGES:
        raise BadInputError(f"more than {MAX_MESSAGES} messages")
    read = []
    for raw in messages:
        try:
            read.append(open_message(raw.encode(), roster))
        except (UntrustedError, BadInputError):
            continue
    return read, len(messages) - len(read)
