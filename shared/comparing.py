"""Whether a readiness document holds together, and in what two of them differ. Pure; in words for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from shared.errors import BadInputError
from shared.messages import Verdict
from shared.readiness import (
    Check,
    CheckStatus,
    Comparable,
    DoctorItem,
    ReadinessDocument,
    decode_evidence,
    evidence_sha256,
    ready_probe_sha256,
    steady,
    verdict,
)

EVERY_NODES_TENANT: Final = "default"
"""The slice that every gateway has; others are a node's own affair."""
_WORDS: Final = {
    "release": "release",
    "core_on_disk": "core on disk",
    "core_running": "core running",
    "lock_sha256": "lock",
    "tree_sha256": "tree",
    "config_schema": "config schema",
}


@dataclass(frozen=True)
class Difference:
    """`part` is `comparable`, `verdict` or `checks`; `field` names the place in the document."""

    part: str
    field: str
    words: str


@dataclass(frozen=True)
class Verification:
    """What was recomputed from a document, what it had too little for, and where it says otherwise."""

    node: str
    checked: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def verify(value: dict[str, Any], document: ReadinessDocument) -> Verification:
    """`value` is the document as it was written: what is hashed may have fields that this reader does not know."""
    found = Verification(document.node)
    found.checked.append("ready_probe_sha256")
    _expect(
        found,
        "ready_probe_sha256",
        document.ready_probe_sha256,
        ready_probe_sha256(value["comparable"]),
        "the comparable part",
    )
    _verify_evidence(found, document)
    found.checked.append("status")
    found.differences.extend(_status_follows(document))
    return found


def _expect(found: Verification, name: str, said: str, computed: str, source: str) -> None:
    if said != computed:
        found.differences.append(f"{name} says {said}; {source} gives {computed}")


def _verify_evidence(found: Verification, document: ReadinessDocument) -> None:
    name = "evidence_sha256"
    if document.evidence is None:
        found.unchecked.append(name)
        return
    found.checked.append(name)
    try:
        computed = evidence_sha256(decode_evidence(document.evidence))
    except BadInputError as error:
        found.differences.append(error.message)
        return
    _expect(found, name, document.evidence_sha256, computed, "the evidence")


def _status_follows(document: ReadinessDocument) -> Iterator[str]:
    ids = [check.id for check in document.checks]
    for name in sorted({each for each in ids if ids.count(each) > 1}):
        yield f"there is more than one check {name}"
    for name in document.excluded:
        if name not in ids:
            yield f"excluded names {name}, and no check is called so"
    status, reason = verdict([each for each in document.checks if each.id not in document.excluded])
    if status is not document.status:
        why = f" ({reason})" if reason else ""
        yield f"status says {document.status}; the checks give {status}{why}"
    compared = document.comparable
    agree = compared.core_on_disk is not None and compared.core_on_disk == compared.core_running
    if document.status is Verdict.GREEN and not agree and "version" not in document.excluded:
        disk, running = compared.core_on_disk or "nothing", compared.core_running or "nothing"
        yield f"status says green; {running} is running and {disk} is on disk"


def diff(a: ReadinessDocument, b: ReadinessDocument, names: tuple[str, str]) -> list[Difference]:
    """Everything that matters in which two documents differ: ages, times and measured numbers do not."""
    return [
        *differing(a.comparable, b.comparable, names),
        *_verdicts(a, b, names),
        *_checks(a.checks, b.checks, names),
    ]


def differing(a: Comparable, b: Comparable, names: tuple[str, str]) -> list[Difference]:
    """Of the comparable part: what makes two `ready_probe_sha256` differ."""
    found = []
    for name, word in _WORDS.items():
        left, right = getattr(a, name), getattr(b, name)
        if left != right:
            sides = _sides(names, _shown(left), _shown(right))
            found.append(Difference("comparable", name, f"{word}: {sides}"))
    found += _plugins(a.plugins, b.plugins, names)
    found += _doctor(a.doctor, b.doctor, names)
    if not found and a.doctor != b.doctor:
        words = "Doctor's findings: the same, in another order or twice"
        found.append(Difference("comparable", "doctor", words))
    return found


def _sides(names: tuple[str, str], left: str, right: str) -> str:
    return f"{names[0]} has {left}, {names[1]} has {right}"


def _shown(value: str | None) -> str:
    if value is None:
        return "none"
    return value[:12] if len(value) == 64 else value


def _plugins(a: dict[str, str], b: dict[str, str], names: tuple[str, str]) -> list[Difference]:
    return [
        Difference(
            "comparable",
            f"plugins.{plugin}",
            f"plugin {plugin}: {_sides(names, a.get(plugin, 'none'), b.get(plugin, 'none'))}",
        )
        for plugin in sorted(a.keys() | b.keys())
        if a.get(plugin) != b.get(plugin)
    ]


def _doctor(a: list[DoctorItem], b: list[DoctorItem], names: tuple[str, str]) -> list[Difference]:
    left, right = set(a), set(b)
    found = []
    for item in sorted(left ^ right, key=lambda each: (each.tenant, each.check, each.severity)):
        has, lacks = names if item in left else names[::-1]
        slice_of = "" if item.tenant == EVERY_NODES_TENANT else f" of tenant {item.tenant}"
        words = (
            f"Doctor on {has} reports {item.check} ({item.severity}){slice_of}, {lacks} does not"
        )
        found.append(Difference("comparable", f"doctor.{item.tenant}.{item.check}", words))
    return found


def _verdicts(
    a: ReadinessDocument, b: ReadinessDocument, names: tuple[str, str]
) -> list[Difference]:
    found = []
    if a.status is not b.status:
        sides = (_verdict(each, name) for each, name in zip((a, b), names, strict=True))
        found.append(Difference("verdict", "status", ", ".join(sides)))
    if sorted(a.excluded) != sorted(b.excluded):
        left, right = (", ".join(sorted(each.excluded)) or "nothing" for each in (a, b))
        words = f"left out of the verdict: {_sides(names, left, right)}"
        found.append(Difference("verdict", "excluded", words))
    return found


def _verdict(document: ReadinessDocument, name: str) -> str:
    because = f" ({document.reason[:300]})" if document.reason else ""
    return f"{name} is {document.status}{because}"


def _checks(a: list[Check], b: list[Check], names: tuple[str, str]) -> list[Difference]:
    left, right = ({check.id: check for check in side} for side in (a, b))
    found = []
    for name in dict.fromkeys([*left, *right]):
        one, other = left.get(name), right.get(name)
        if one is None or other is None:
            has, lacks = names if other is None else names[::-1]
            words = f"check {name}: {has} has it, {lacks} does not"
        elif one.status is other.status:
            continue
        else:
            words = f"check {name}: {names[0]} {_check(one)}, {names[1]} {_check(other)}"
        found.append(Difference("checks", name, words))
    return found


def _check(check: Check) -> str:
    says = {
        CheckStatus.PASS: "passes",
        CheckStatus.WARN: "warns",
        CheckStatus.FAIL: "fails",
        CheckStatus.UNKNOWN: "is unknown",
    }[check.status]
    return f"{says} ({check.reason[:300]})" if check.reason else says


def mismatch(
    a: ReadinessDocument, b: ReadinessDocument, names: tuple[str, str]
) -> list[Difference]:
    """In what two nodes on one release differ that should not. Equal hashes: nothing. Of unequal ones may
    differ what no release fixes: the tree of another platform (npm installs other packages there), and what
    Doctor says of a tenant that only one of the two has."""
    if a.ready_probe_sha256 == b.ready_probe_sha256:
        return []
    found = differing(_fixed(a, b), _fixed(b, a), names)
    return found or ([] if _excused(a, b) else [_unexplained(a, b, names)])


def _fixed(document: ReadinessDocument, other: ReadinessDocument) -> Comparable:
    """As much of a document's comparable part as the release fixes for both."""
    compared = document.comparable
    common = {item.tenant for item in other.comparable.doctor} | {EVERY_NODES_TENANT}
    doctor = steady(item for item in compared.doctor if item.tenant in common)
    tree = None if other_platform(document, other) else compared.tree_sha256
    return compared.model_copy(update={"doctor": doctor, "tree_sha256": tree})


def other_platform(a: ReadinessDocument, b: ReadinessDocument) -> bool:
    """Whether two nodes are known to be of different platforms; an older agent does not say of which it is."""
    return None not in (a.platform, b.platform) and a.platform != b.platform


def _excused(a: ReadinessDocument, b: ReadinessDocument) -> bool:
    """Whether the fields that were read account for the difference of the hashes."""
    return a.comparable != b.comparable


def _unexplained(a: ReadinessDocument, b: ReadinessDocument, names: tuple[str, str]) -> Difference:
    """One of them hashes what this version does not know, or its hash does not cover what it shows."""
    sides = _sides(names, _shown(a.ready_probe_sha256), _shown(b.ready_probe_sha256))
    return Difference("comparable", "ready_probe_sha256", f"ready_probe_sha256: {sides}")
