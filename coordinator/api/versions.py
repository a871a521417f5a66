"""`ETag` and `If-Match`: nobody overwrites what somebody else has changed meanwhile (RFC 9110, 13)."""

from __future__ import annotations

import re

from shared.canonical import sha256_hex
from shared.errors import BadInputError, RollcallError
from shared.wire import Wire

HEADER = "If-Match"
_TAG = re.compile(r'(?:W/)?"([!#-~]{0,120})"')


class ChangedError(RollcallError):
    """A precondition that does not hold: RFC 9110, 15.5.13."""

    code = "changed"
    http_status = 412


def version_of(value: Wire) -> str:
    """Names this very content."""
    return sha256_hex(value.canonical())[:16]


def quoted(version: str) -> str:
    """The version as a strong entity tag."""
    return f'"{version}"'


def check_match(header: str | None, version: str | None) -> None:
    """`version` is what there is now, None when there is nothing. Without the header everything fits.

    Raises ChangedError when none of the tags is that version, BadInputError for a header of another form.
    """
    if header is None:
        return
    if header.strip() == "*":
        if version is not None:
            return
        raise ChangedError(
            "there is nothing there that could be changed", remedy=f"leave {HEADER} out to make it"
        )
    tags = [each.strip() for each in header.split(",")]
    found = [match for each in tags if (match := _TAG.fullmatch(each)) is not None]
    if len(found) != len(tags):
        raise BadInputError(f"{HEADER} is a list of entity tags in quotes, or *")
    if version not in [match[1] for match in found if not match[0].startswith("W/")]:
        raise ChangedError(
            "somebody has changed it since you looked",
            remedy=f"look at it again, decide, and send its new ETag as {HEADER}",
        )
