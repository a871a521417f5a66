"""`/v1/releases` and `/v1/blobs`: what operators have published, and the files that it names."""

from __future__ import annotations

import asyncio

from aiohttp import web

from coordinator.api.access import Allows
from coordinator.api.routes import BINARY, SHA256, Call, Resource, Route
from coordinator.blobs import Blobs
from coordinator.repository import Repository
from shared.errors import NotFoundError
from shared.release import MAX_ARTIFACT_BYTES, Release, ReleaseManifest
from shared.wire import Sha256, Wire

SHORTEST_PREFIX = 8
BLOB_DEADLINE_S = 600.0
"""For an artifact of the greatest size over a slow line."""


class ListedRelease(ReleaseManifest):
    id: Sha256


class ReleaseList(Wire):
    releases: list[ListedRelease]


class ReleasesApi(Resource):
    def __init__(self, repository: Repository, blobs: Blobs) -> None:
        self._repository, self._blobs = repository, blobs

    def find(self, text: str) -> Release:
        """By id, by a prefix of it, or by name. Raises NotFoundError with what there is."""
        known = self._repository.releases
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
                for each in self._repository.releases
            ]
        )

    async def put_blob(self, call: Call) -> web.Response:
        call.detail = f"{len(call.raw)} bytes"
        await self._blobs.put(call.parameters["sha256"], call.raw)
        return web.Response(status=204)

    async def get_blob(self, call: Call) -> web.StreamResponse:
        """In pieces: a whole artifact in one write would be buffered whole under TLS."""
        path = await asyncio.to_thread(self._blobs.path, call.parameters["sha256"])
        opened = await asyncio.to_thread(path.open, "rb")
        return web.Response(body=opened, content_type="application/octet-stream")

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
            "PUT",
            "/v1/blobs/{sha256}",
            put_blob,
            Allows.OPERATOR,
            "Upload a file of a release under its hash.",
            parameters={"sha256": SHA256},
            body=BINARY,
            success=(204,),
            limit=MAX_ARTIFACT_BYTES,
            deadline_s=BLOB_DEADLINE_S,
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
