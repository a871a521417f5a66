"""What a signature would mean: a bundle in words, beside what this operator saw last."""

from __future__ import annotations

import json
from typing import Any

from tuf.api.metadata import Root

from coordinator.bundle import Bundle, Published
from coordinator.saying import day
from shared.capability import CapabilityManifest
from shared.fleet import FleetDocument
from shared.keys import OperatorKeys
from shared.metadata import FLEET, capability_path, name_of, online_key, operators_of
from shared.release import ReleaseManifest

ALWAYS = ("openclaw", "plugins", "lock_sha256")
SOMETIMES = ("artifacts", "allow_scripts", "agent", "overlay", "migrations", "floor")


def describe(bundle: Bundle, published: Published | None) -> list[str]:
    """Everything that this bundle changes, a line each. Nothing in it takes effect unshown."""
    lines = []
    if bundle.root is not None:
        lines += _root(bundle.root.signed, None if published is None else published.root.signed)
    if bundle.targets is not None:
        lines += _targets(bundle, published)
    return lines


def _root(root: Root, before: Root | None) -> list[str]:
    operators = operators_of(root)
    threshold = root.roles["root"].threshold
    names = ", ".join(each.name for each in operators)
    lines = [f"root {root.version}: {threshold} of {names}, until {root.expires:%Y-%m-%d}"]
    known = [] if before is None else operators_of(before)
    lines += [f"  new: {_fingerprint(each)}" for each in operators if each not in known]
    lines += [f"  gone: {_fingerprint(each)}" for each in known if each not in operators]
    if before is not None and before.roles["root"].threshold != threshold:
        lines.append(
            f"  CHANGES the threshold from {before.roles['root'].threshold} to {threshold}"
        )
    if before is not None and online_key(before) != online_key(root):
        lines.append(f"  CHANGES the coordinator's online key to {online_key(root).keyid[:16]}")
    return lines


def _fingerprint(operator: OperatorKeys) -> str:
    return f"{operator.name}, keys {operator.root.keyid[:16]} {operator.targets.keyid[:16]}"


def _targets(bundle: Bundle, published: Published | None) -> list[str]:
    if bundle.targets is None:
        return []
    targets = bundle.targets.signed
    lines = [f"targets {targets.version}, until {targets.expires:%Y-%m-%d}"]
    before = {} if published is None else published.targets.signed.targets
    for path, file in sorted(targets.targets.items()):
        known = before.get(path)
        if known is None or known.hashes != file.hashes:
            lines += _entry("adds" if known is None else "CHANGES", path, bundle)
    lines += [f"  withdraws {name_of(path)}" for path in sorted(before.keys() - targets.targets)]
    return lines


def _entry(verb: str, path: str, bundle: Bundle) -> list[str]:
    if path == FLEET:
        return [f"  {verb} the fleet document (authorities and roster key)", _witnesses(bundle)]
    for manifest in bundle.manifests():
        if manifest.name == name_of(path):
            return [f"  {verb} release {manifest.name}", *_release(manifest)]
    for capability in bundle.capabilities():
        if capability_path(capability.name, capability.version) == path:
            return [f"  {verb} {capability.kind} {capability.label}", *_capability(capability)]
    return [f"  {verb} {name_of(path)}, which is not in this bundle"]


def _witnesses(bundle: Bundle) -> str:
    raw = bundle.files.get(FLEET)
    named = [] if raw is None else FleetDocument.from_bytes(raw).witnesses
    return f"    whose green is the quorum: {', '.join(named) or 'every live peer'}"


def _release(manifest: ReleaseManifest) -> list[str]:
    value = manifest.model_dump(mode="json")
    shown = [*ALWAYS, *(name for name in SOMETIMES if value[name])]
    ends = day(manifest.expires)
    return [*(f"    {name}: {_text(value[name])}" for name in shown), f"    until: {ends}"]


def _capability(manifest: CapabilityManifest) -> list[str]:
    """Everything: what a node does with it, and as whose bytes."""
    value = manifest.model_dump(
        mode="json", exclude={"name", "version", "kind", "created", "expires"}
    )
    ends = day(manifest.expires)
    shown = [f"    {name}: {_text(each)}" for name, each in value.items() if each]
    return [*shown, f"    until: {ends}"]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
