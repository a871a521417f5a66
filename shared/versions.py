"""OpenClaw's calendar versions. They are not semver: `2026.7.1-2` is a correction, newer than `2026.7.1`."""

from __future__ import annotations

import re
from functools import total_ordering
from typing import Annotated, Final

from pydantic import AfterValidator

from shared.errors import BadInputError

_PATTERN: Final = re.compile(
    r"(\d{4})\.(\d{1,2})\.(\d{1,4})(?:-(?:(\d{1,4})|(alpha|beta|rc)\.(\d{1,4})))?",
    re.ASCII,
)
_PRE_RELEASES: Final = {"alpha": -3, "beta": -2, "rc": -1}


@total_ordering
class OpenClawVersion:
    """A parsed version that keeps its raw text. Ordered: pre-releases, the release, its corrections."""

    __slots__ = ("_key", "raw")

    def __init__(self, raw: str) -> None:
        match = _PATTERN.fullmatch(raw)
        if match is None:
            raise BadInputError(
                f"{raw!r} is not an OpenClaw version",
                remedy="such as 2026.9.6, 2026.7.1-2 or 2026.8.1-beta.3",
            )
        year, month, patch, correction, stage, number = match.groups()
        tail = (_PRE_RELEASES[stage], int(number)) if stage else (0, int(correction or 0))
        self.raw = raw
        self._key = (int(year), int(month), int(patch), *tail)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpenClawVersion) and self._key == other._key

    def __lt__(self, other: OpenClawVersion) -> bool:
        return self._key < other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        return self.raw

    def __repr__(self) -> str:
        return f"OpenClawVersion({self.raw!r})"


VERSION_WORD: Final = r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$"


def as_word(version: str | None) -> str | None:
    """A version that a gateway or a tree says of itself, if it may travel; None for anything else."""
    return version if version is not None and re.fullmatch(VERSION_WORD, version) else None


def check_version(raw: str) -> str:
    return OpenClawVersion(raw).raw


VersionText = Annotated[str, AfterValidator(check_version)]
