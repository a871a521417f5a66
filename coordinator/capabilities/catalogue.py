"""Which capabilities there are: what operators sign for today, and what the index says is in use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from coordinator.repository import Repository
from shared.capability import Capability, CapabilityView, IndexEntry, IndexState, check_installable
from shared.errors import NotFoundError, RollcallError

SHORTEST_PREFIX = 8


class Catalogue:
    def __init__(self, repository: Repository, has_blob: Callable[[str], bool]) -> None:
        self._repository, self._has_blob = repository, has_blob

    def signed(self, capability: str) -> Capability | None:
        known = self._repository.capabilities
        return next((each for each in known if each.id == capability), None)

    def find(self, text: str) -> Capability:
        """By id or the beginning of it, by `name@version`, or by name: then the version that was signed last.
        Raises NotFoundError with what there is."""
        known = self._repository.capabilities
        found = [
            each
            for each in known
            if text in (each.manifest.name, each.manifest.label)
            or (len(text) >= SHORTEST_PREFIX and each.id.startswith(text))
        ]
        if not found:
            names = ", ".join(each.manifest.label for each in known[-20:]) or "none"
            raise NotFoundError(f"no capability {text!r} is signed", remedy=f"there are: {names}")
        return found[-1]

    async def distrust(self, capability: str, now: float) -> str:
        """Why nodes would not take it, though it is listed; empty when they would."""
        found = self.signed(capability)
        if found is None:
            return ""
        try:
            if expired := await asyncio.to_thread(self._repository.expired):
                return expired
            check_installable(found, now)
        except RollcallError as error:
            return error.message
        return await asyncio.to_thread(self._missing, found)

    def _missing(self, found: Capability) -> str:
        for artifact in found.manifest.artifacts:
            if not self._has_blob(artifact.sha256):
                return f"file {artifact.file} ({artifact.sha256[:12]}) is not here"
        return ""

    def views(self, index: Mapping[str, IndexEntry], live: Collection[str]) -> list[CapabilityView]:
        """Every version that is signed, and those in the index that are not any more; by name, the oldest first.
        `live` are the fleet's nodes: some may have joined since."""
        signed = self._repository.capabilities
        found = [_view(each, index.get(each.manifest.name), live) for each in signed]
        known = {each.id for each in signed}
        found += [_withdrawn(entry) for entry in index.values() if entry.capability not in known]
        return sorted(found, key=lambda each: each.name)


def _view(
    capability: Capability, entry: IndexEntry | None, live: Collection[str]
) -> CapabilityView:
    manifest = capability.manifest
    mine = entry if entry is not None and entry.capability == capability.id else None
    lacking = mine is not None and mine.everywhere and mine.state is IndexState.ACTIVE
    return CapabilityView(
        id=capability.id,
        name=manifest.name,
        version=manifest.version,
        state=IndexState.SIGNED if mine is None else mine.state,
        nodes=[] if mine is None else mine.nodes,
        missing=sorted(set(live) - set(mine.nodes)) if mine is not None and lacking else [],
        since=None if mine is None else mine.since,
        by="" if mine is None else mine.by,
        manifest=manifest,
    )


def _withdrawn(entry: IndexEntry) -> CapabilityView:
    in_use = entry.state in (IndexState.ACTIVE, IndexState.DISABLED)
    return CapabilityView(
        id=entry.capability,
        name=entry.name,
        version=entry.version,
        state=IndexState.WITHDRAWN if in_use else entry.state,
        nodes=entry.nodes,
        since=entry.since,
        by=entry.by,
    )
