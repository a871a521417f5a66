"""`/v1/releases` and `/v1/blobs`: kept and handed out. Only an operator's signature makes a release."""

from __future__ import annotations

from aiohttp import web

from coordinator.api.access import Allows
from coordinator.api.routes import BINARY, JSON, SHA256, Call, Resource, Route
from coordinator.blobs import Blobs
from coordinator.store.queries import Queries
from shared.envelope import MAX_ENVELOPE_BYTES
from shared.errors import ConflictError, NotFoundError
from shared.fleet import FleetDocument
from shared.release import MAX_ARTIFACT_BYTES, Release, ReleaseManifest, open_release
from shared.wire import Sha256, Wire

SHORTEST_PREFIX = 8


class ListedRelease(ReleaseManifest):
    id: Sha256


class ReleaseList(Wire):
    releases: list[ListedRelease]


class PublishedRelease(Wire):
    id: Sha256
    name: str


class ReleasesApi(Resource):
    def __init__(self, queries: Queries, blobs: Blobs, fleet: FleetDocument) -> None:
        self._queries, self._blobs, self._fleet = queries, blobs, fleet

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

    async def listing(self, _: Call) -> ReleaseList:
        return ReleaseList(
            releases=[
                ListedRelease(id=each.id, **each.manifest.model_dump())
                for each in await self.releases()
            ]
        )

    async def publish(self, call: Call) -> PublishedRelease:
        release = open_release(call.raw, self._fleet)
        manifest = release.manifest
        call.subject, call.detail = release.label, f"OpenClaw {manifest.openclaw}"
        for sha256 in (manifest.lock_sha256, *(each.sha256 for each in manifest.artifacts)):
            if not await self._blobs.has(sha256):
                raise ConflictError(
                    f"blob {sha256[:12]} of this release is missing: upload it first"
                )
        await self._queries.add_release(release)
        return PublishedRelease(id=release.id, name=manifest.name)

    async def envelope(self, call: Call) -> web.Response:
        raw = await self._queries.envelope(call.parameters["id"])
        return web.Response(text=raw, content_type="application/json")

    async def put_blob(self, call: Call) -> web.Response:
        await self._blobs.put(call.parameters["sha256"], call.raw)
        call.detail = f"{len(call.raw)} bytes"
        return web.Response(status=204)

    async def get_blob(self, call: Call) -> web.Response:
        body = await self._blobs.get(call.parameters["sha256"])
        return web.Response(body=body, content_type="application/octet-stream")

    routes = (
        Route(
            "GET",
            "/v1/releases",
            listing,
            Allows.MEMBER,
            "Every release that can be a target.",
            answer=ReleaseList,
        ),
        Route(
            "POST",
            "/v1/releases",
            publish,
            Allows.OPERATOR,
            "Publish a signed release whose blobs are here already.",
            body=JSON,
            answer=PublishedRelease,
            success=(201,),
            refusals=(409,),
            limit=MAX_ENVELOPE_BYTES,
        ),
        Route(
            "GET",
            "/v1/releases/{id}/envelope",
            envelope,
            Allows.MEMBER,
            "The signed bytes of a release.",
            parameters={"id": SHA256},
            answer=JSON,
            refusals=(404,),
        ),
        Route(
            "PUT",
            "/v1/blobs/{sha256}",
            put_blob,
            Allows.OPERATOR,
            "Upload a file of a release under its hash.",
            parameters={"sha256": SHA256},
            body=BINARY,
            success=(204,),
            limit=MAX_ARTIFACT_BYTES,
        ),
        Route(
            "GET",
            "/v1/blobs/{sha256}",
            get_blob,
            Allows.MEMBER,
            "A file of a release.",
            parameters={"sha256": SHA256},
            answer=BINARY,
            refusals=(404,),
        ),
    )
