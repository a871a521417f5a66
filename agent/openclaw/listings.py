"""What npm has listed of a tree, kept for the next upgrade: to ask it again takes a second, and a tree that has not
changed is listed the same."""

from __future__ import annotations

MOST = 4


class Listings:
    """By the hash of a tree, of the last few trees that were verified here."""

    def __init__(self) -> None:
        self._kept: dict[str, str] = {}

    def keep(self, tree_sha256: str, listing: str) -> None:
        self._kept.pop(tree_sha256, None)
        self._kept[tree_sha256] = listing
        while len(self._kept) > MOST:
            del self._kept[next(iter(self._kept))]

    def of(self, tree_sha256: str | None) -> str | None:
        """The caller knows that the tree still is what it was."""
        return None if tree_sha256 is None else self._kept.get(tree_sha256)
