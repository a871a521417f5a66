"""`/v1/releases` and `/v1/blobs`: kept and handed out. Only an operator's signature makes a release."""

from __future__ import annotations

import re

from aiohttp import web

from coordinator.api.access import Access
from coordinator.blobs import Blobs
from coordinator.store.queries import Queries
from shared.envelope import MAX_ENVELOPE_BYTES
from shared.errors import BadInputError, ConflictError, NotFoundError
from shared.fleet import FleetDocument
from shared.http import read_body
from shared.release import MAX_ARTIFACT_BYTES, Release, open_release

_SHA256 = re.compile(r"[0-9a-f]{64}")
SHORTEST_PREFIX = 8


class ReleasesApi:
    def __init__(self, queries: Queries, blobs: Blobs, fleet: FleetDocument) -> None:
        self._queries, self._blobs, self._fleet = queries, blobs, fleet

    def routes(self, app: web.Application, access: Access) -> None:
        add = app.router
        add.add_get("/v1/releases", access.members_only(self.listing))
        add.add_post("/v1/releases", access.operators_only(self.publish))
        add.add_get("/v1/releases/{id}/envelope", access.members_only(self.envelope))
        add.add_put("/v1/blobs/{sha256}", access.operators_only(self.put_blob))
        add.add_get("/v1/blobs/{sha256}", access.members_only(self.get_blob))

    async def releases(self) -> list[Release]:
        raws = await self._queries.envelopes()
        return [open_release(raw.encode(), self._fleet) for raw in raws]

    async def find(self, text: str) -> Release:
        """By id, by a prefix of it, or by name. Raises NotFoundError with what there is."""
        known = await self.releases()
        prefixed = len(text) >= SHORTEST_PREFIX
        found = [
            each
            for each in known
            if each.manifest.name == text or (prefixed and each.id.startswith(text))
        ]
        if len(found) == 1:
            return found[0]
        names = ", ".join(each.manifest.name for each in known) or "none"
        raise NotFoundError(f"no release {text!r}", remedy=f"there are: {names}")

    async def listing(self, _: web.Request) -> web.Response:
        listed = [
            {"id": each.id, **each.manifest.model_dump(mode="json")}
            for each in await self.releases()
        ]
        return web.json_response({"releases": listed})

    async def publish(self, request: web.Request) -> web.Response:
        raw = await read_body(request)
        if len(raw) > MAX_ENVELOPE_BYTES:
            raise BadInputError(f"a release envelope has at most {MAX_ENVELOPE_BYTES} bytes")
        release = open_release(raw, self._fleet)
        manifest = release.manifest
        for sha256 in (manifest.lock_sha256, *(each.sha256 for each in manifest.artifacts)):
            if not await self._blobs.has(sha256):
                raise ConflictError(
                    f"blob {sha256[:12]} of this release is missing: upload it first"
                )
        await self._queries.add_release(release)
        return web.json_response({"id": release.id, "name": manifest.name}, status=201)

    async def envelope(self, request: web.Request) -> web.Response:
        raw = await self._queries.envelope(_hash(request, "id"))
        return web.Response(text=raw, content_type="application/json")

    async def put_blob(self, request: web.Request) -> web.Response:
        body = await read_body(request, limit=MAX_ARTIFACT_BYTES)
        await self._blobs.put(_hash(request, "sha256"), body)
        return web.Response(status=204)

    async def get_blob(self, request: web.Request) -> web.Response:
        body = await self._blobs.get(_hash(request, "sha256"))
        return web.Response(body=body, content_type="application/octet-stream")


def _hash(request: web.Request, name: str) -> str:
    text = request.match_info[name]
    if _SHA256.fullmatch(text) is None:
        raise BadInputError(f"{text[:80]!r} is not a SHA-256")
    return text
