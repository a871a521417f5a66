"""Files of releases, named by their SHA-256: locks and artifacts. Never overwritten, never trusted."""

from __future__ import annotations

import asyncio
from pathlib import Path

from shared.canonical import sha256_hex
from shared.durable import write_durable
from shared.errors import BadInputError, NotFoundError


class Blobs:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, sha256: str, body: bytes) -> None:
        if sha256_hex(body) != sha256:
            raise BadInputError("the blob's content is not what its hash says")
        await asyncio.to_thread(write_durable, self._folder / sha256, body)

    def path(self, sha256: str) -> Path:
        """Raises NotFoundError. Blocking."""
        if not self.has(sha256):
            raise NotFoundError(f"no blob {sha256[:12]}")
        return self._folder / sha256

    def has(self, sha256: str) -> bool:
        """Blocking."""
        return (self._folder / sha256).is_file()
