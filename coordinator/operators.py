"""Operators and their tokens: roles, the token's text, and what the API says of one."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from shared.canonical import sha256_hex
from shared.wire import Wire

SECRET_BYTES = 32
_TEXT = re.compile(r"rollcall_op_([0-9a-f]{8})_([A-Za-z0-9_-]{43,128})")

TokenId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
TokenName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,31}$")]


class OperatorRole(StrEnum):
    """Ordered: each may do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: OperatorRole) -> bool:
        order = list(OperatorRole)
        return order.index(self) >= order.index(needed)


class OperatorToken(Wire):
    """A token without its secret. Times are seconds since the epoch; `expires` None means never.
    `last_used` is up to a minute old."""

    id: TokenId
    name: TokenName
    role: OperatorRole
    created: float
    created_by: str
    expires: float | None = None
    revoked: float | None = None
    last_used: float | None = None

    @property
    def who(self) -> str:
        return f"{self.name} [{self.id}]"

    def is_expired(self, now: float) -> bool:
        return self.expires is not None and self.expires <= now


class OperatorTokenRequest(Wire):
    name: TokenName
    role: OperatorRole
    ttl_s: Annotated[float, Field(gt=0, le=3660 * 86400)] = 90 * 86400


class NewOperatorToken(OperatorToken):
    """The only answer that ever carries a token's text."""

    token: str


class OperatorTokenList(Wire):
    tokens: list[OperatorToken]


@dataclass(frozen=True)
class TokenText:
    """What an operator presents, taken apart: which token it claims to be, and the secret's hash."""

    id: str
    sha256: str

    @classmethod
    def parse(cls, text: str) -> TokenText:
        """Any text is a claim. One without our form is a token from before tokens had ids: its id is
        the beginning of its hash, so that the same look-up finds it."""
        match = _TEXT.fullmatch(text)
        if match is not None:
            return cls(match[1], sha256_hex(match[2].encode()))
        digest = sha256_hex(text.encode("utf-8", "surrogateescape"))
        return cls(digest[:8], digest)


def make_token() -> str:
    """`rollcall_op_<id>_<secret>`: a fixed beginning, so that scanners for leaked secrets know it."""
    return f"rollcall_op_{secrets.token_hex(4)}_{secrets.token_urlsafe(SECRET_BYTES)}"
