"""What operators draft and sign: a fleet's first root, releases and capabilities, and whatever changes later. Each is a
bundle on top of what is published."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.bundle import Bundle, Published
from shared.capability import CapabilityManifest
from shared.errors import BadInputError, ConflictError
from shared.fleet import CoordinatorKeys, FleetDocument
from shared.keys import OperatorKeys
from shared.metadata import (
    FLEET,
    capability_path,
    is_release,
    name_of,
    new_root,
    new_targets,
    operators_of,
    release_path,
)
from shared.release import ReleaseManifest

ROOT_DAYS, TARGETS_DAYS = 365.0, 180.0
DAY_S = 86400.0


def begin(
    coordinator: CoordinatorKeys, operators: list[OperatorKeys], threshold: int, now: float
) -> Bundle:
    """The first root and targets of a fleet."""
    _check_names(operators)
    fleet = FleetDocument(
        fleet=coordinator.fleet,
        name=coordinator.name,
        version=1,
        authorities=[coordinator.authority],
        roster_key=coordinator.roster_key,
    )
    root = new_root(operators, threshold, coordinator.online_key, expires=now + ROOT_DAYS * DAY_S)
    files = {FLEET: fleet.canonical()}
    return Bundle(root, new_targets(files.items(), now + TARGETS_DAYS * DAY_S), files)


def add_release(
    published: Published, manifest: ReleaseManifest, blobs: dict[str, bytes], now: float
) -> Bundle:
    """Raises ConflictError when the name is taken: releases are frozen."""
    check_name_free(published, manifest.name)
    files = {release_path(manifest.name): manifest.canonical()}
    targets = new_targets(files.items(), now + TARGETS_DAYS * DAY_S, base=published.targets.signed)
    return Bundle(None, targets, files, blobs)


def check_name_free(published: Published, name: str) -> None:
    if release_path(name) in published.targets.signed.targets:
        raise ConflictError(
            f"a release {name!r} exists",
            remedy="releases are frozen; choose another name with --as",
        )


def add_capability(
    published: Published, manifest: CapabilityManifest, blobs: dict[str, bytes], now: float
) -> Bundle:
    """Raises ConflictError when the version is taken: what is signed is frozen."""
    path = capability_path(manifest.name, manifest.version)
    if path in published.targets.signed.targets:
        raise ConflictError(
            f"capability {manifest.label} exists",
            remedy="what is signed is frozen; choose another version with --as-version",
        )
    files = {path: manifest.canonical()}
    targets = new_targets(files.items(), now + TARGETS_DAYS * DAY_S, base=published.targets.signed)
    return Bundle(None, targets, files, blobs)


def withdraw_capability(published: Published, name: str, version: str, now: float) -> Bundle:
    path, base = capability_path(name, version), published.targets.signed
    if path not in base.targets:
        raise BadInputError(
            f"no capability {name}@{version} is signed", remedy="see: rollcall capability list"
        )
    targets = new_targets([], now + TARGETS_DAYS * DAY_S, base=base, without=[path])
    return Bundle(None, targets, withdrawn=(path,))


def withdraw(published: Published, name: str, now: float) -> Bundle:
    path = release_path(name)
    if path not in published.targets.signed.targets:
        names = ", ".join(_release_names(published)) or "none"
        raise BadInputError(f"no release {name!r} is published", remedy=f"there are: {names}")
    base = published.targets.signed
    targets = new_targets([], now + TARGETS_DAYS * DAY_S, base=base, without=[path])
    return Bundle(None, targets, withdrawn=(path,))


def _release_names(published: Published) -> list[str]:
    return sorted(name_of(path) for path in published.targets.signed.targets if is_release(path))


@dataclass(frozen=True)
class Change:
    """A new root: other operators or threshold, other keys of the coordinator, a later expiry.
    `overlap` keeps the old authority valid beside the new one."""

    add: tuple[OperatorKeys, ...] = ()
    remove: tuple[str, ...] = ()
    threshold: int | None = None
    overlap: bool = True
    witnesses: tuple[str, ...] | None = None
    """Whose green is the quorum; as before when None, every live peer when empty."""


def change(published: Published, coordinator: CoordinatorKeys, asked: Change, now: float) -> Bundle:
    """The root and targets that follow, with everything that `asked` and the coordinator's next keys
    change, and both expiries put off."""
    root = published.root.signed
    known = {each.name: each for each in operators_of(root)}
    if unknown := [name for name in asked.remove if name not in known]:
        raise BadInputError(
            f"{unknown[0]!r} is no operator of this fleet", remedy=f"there are: {', '.join(known)}"
        )
    operators = [each for name, each in known.items() if name not in asked.remove] + list(asked.add)
    _check_names(operators)
    following = coordinator.next or coordinator
    fleet = _fleet_after(published.fleet, following, asked)
    drafted = new_root(
        operators,
        asked.threshold or root.roles["root"].threshold,
        following.online_key,
        expires=now + ROOT_DAYS * DAY_S,
        version=root.version + 1,
    )
    files = {} if fleet == published.fleet else {FLEET: fleet.canonical()}
    base = published.targets.signed
    return Bundle(drafted, new_targets(files.items(), now + TARGETS_DAYS * DAY_S, base=base), files)


def _fleet_after(
    fleet: FleetDocument, coordinator: CoordinatorKeys, asked: Change
) -> FleetDocument:
    authorities = [coordinator.authority]
    witnesses = fleet.witnesses if asked.witnesses is None else list(asked.witnesses)
    if asked.overlap:
        authorities += [pem for pem in fleet.authorities if pem.strip() != authorities[0].strip()]
    wanted = fleet.model_copy(
        update={
            "authorities": authorities[:4],
            "roster_key": coordinator.roster_key,
            "witnesses": witnesses,
        }
    )
    return wanted if wanted == fleet else wanted.model_copy(update={"version": fleet.version + 1})


def _check_names(operators: list[OperatorKeys]) -> None:
    keys = [each.root.keyid for each in operators] + [each.targets.keyid for each in operators]
    if len(set(keys)) != len(keys):
        raise BadInputError("two of these operators have the same key")
    names = [each.name for each in operators]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadInputError(f"two operators are called {twice[0]!r}")
