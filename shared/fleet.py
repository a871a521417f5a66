"""The fleet document is the root of trust a node joins with; the join token carries its hash."""

from __future__ import annotations

import base64
from typing import Annotated

from pydantic import Field, StringConstraints

from shared.canonical import sha256_hex
from shared.errors import BadInputError, UntrustedError
from shared.keys import PublicKey
from shared.wire import Reason, Sha256, Wire

TOKEN_PREFIX = "rollcall1."  # noqa: S105 - what every token begins with


class FleetDocument(Wire):
    """Made once, at the coordinator's first start; a change of it is a new fleet.

    `release_keys` are operators' keys: the coordinator holds none of their private halves.
    `roster_key` signs who is a node. `ca_pem` vouches for TLS only.
    """

    fleet: Sha256
    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    ca_pem: Annotated[str, StringConstraints(max_length=8192)]
    roster_key: PublicKey
    release_keys: Annotated[list[PublicKey], Field(min_length=1, max_length=16)]
    created: float

    @property
    def sha256(self) -> str:
        return sha256_hex(self.canonical())


class JoinToken(Wire):
    """What an operator carries from the coordinator to a new node, once."""

    url: Annotated[str, StringConstraints(pattern=r"^https://[^\s/]+$", max_length=256)]
    secret: Annotated[str, StringConstraints(min_length=32, max_length=128)]
    fleet_sha256: Sha256

    def encode(self) -> str:
        return TOKEN_PREFIX + base64.urlsafe_b64encode(self.canonical()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> JoinToken:
        """Raises BadInputError for anything that `rollcall node token create` did not print."""
        body = text.strip().removeprefix(TOKEN_PREFIX)
        try:
            raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
            return cls.from_bytes(raw, max_bytes=4096)
        except (ValueError, BadInputError) as error:
            raise BadInputError(
                "this is not a join token", remedy="make one with: rollcall node token create"
            ) from error


class JoinRequest(Wire):
    secret: Annotated[str, StringConstraints(max_length=128)]
    name: str
    role: str
    csr_pem: Annotated[str, StringConstraints(max_length=8192)]
    message_key: PublicKey


class JoinAnswer(Wire):
    certificate_pem: Annotated[str, StringConstraints(max_length=16384)]
    roster: str


class Refusal(Wire):
    """RFC 9457 problem document, as much of it as our clients read."""

    title: str = ""
    detail: Reason = ""
    code: str = ""
    remedy: str | None = None


def check_fleet(document: FleetDocument, expected_sha256: str) -> FleetDocument:
    if document.sha256 != expected_sha256:
        raise UntrustedError(
            "the coordinator is not the one that made this token: its fleet document differs",
            remedy="check the address, and make a new token on the right coordinator",
        )
    return document
