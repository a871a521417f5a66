"""Who vouches for a fleet, and how a node becomes one of it."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from pydantic import Field, StringConstraints

from shared.canonical import sha256_hex
from shared.envelope import JOIN, RENEWAL, open_envelope, peek, seal
from shared.errors import BadInputError, UntrustedError
from shared.keys import PublicKey, SigningKey
from shared.wire import MAX_INTEGER, NodeName, Reason, Sha256, Wire

MAX_WITNESSES = 32
TOKEN_PREFIX = "rollcall1."  # noqa: S105 - what every token begins with

Pem = Annotated[str, StringConstraints(max_length=8192)]
SiteName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{0,32}$")]


class FleetDocument(Wire):
    """The TUF target `fleet.json`: operators sign who issues certificates and who signs rosters.

    `authorities[0]` issues TLS certificates; further ones are still honoured, or already, while a
    change of authority overlaps. `version` goes up by one with every change; a roster names the
    version that it was signed under, so that a retired roster key has no say any more.
    """

    fleet: Sha256
    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    version: Annotated[int, Field(ge=1, le=MAX_INTEGER)]
    authorities: Annotated[list[Pem], Field(min_length=1, max_length=4)]
    roster_key: PublicKey
    witnesses: Annotated[list[NodeName], Field(max_length=MAX_WITNESSES)] = []
    """The nodes whose green is the quorum of every attestation; empty means every live peer. Operators sign it: a
    role in the roster would let the coordinator choose its own witnesses."""

    @property
    def bundle(self) -> bytes:
        """All authorities in one PEM file, as TLS contexts load it."""
        return "".join(pem.strip() + "\n" for pem in self.authorities).encode()


class CoordinatorKeys(Wire):
    """The public halves of a coordinator's online keys, for operators to sign. `next` is set while
    the coordinator has made new ones and waits for that signature."""

    fleet: Sha256
    name: str
    url: str
    authority: Pem
    roster_key: PublicKey
    online_key: PublicKey
    next: CoordinatorKeys | None = None


class JoinToken(Wire):
    """What an operator carries from the coordinator to a new node, once. The root's fingerprint lets
    the node check all that follows; the authority's hash pins the issuer that the operator dealt with."""

    url: Annotated[str, StringConstraints(pattern=r"^https://[^\s/]+$", max_length=256)]
    secret: Annotated[str, StringConstraints(min_length=32, max_length=128)]
    root_version: Annotated[int, Field(ge=1, le=999_999_999)]
    root_sha256: Sha256
    ca_sha256: Sha256

    def encode(self) -> str:
        return TOKEN_PREFIX + base64.urlsafe_b64encode(self.canonical()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> JoinToken:
        """Raises BadInputError for anything that `rollcall node token create` did not print."""
        body = text.strip().removeprefix(TOKEN_PREFIX)
        try:
            raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
            return cls.from_bytes(raw, max_bytes=4096)
        except (ValueError, binascii.Error, BadInputError) as error:
            raise BadInputError(
                "this is not a join token", remedy="make one with: rollcall node token create"
            ) from error


class JoinRequest(Wire):
    """Travels in an envelope that `message_key` has signed: who asks holds that key. `role` and `site`
    may be left to the token."""

    secret: Annotated[str, StringConstraints(max_length=128)]
    name: NodeName
    role: Annotated[str, StringConstraints(max_length=16)] | None = None
    site: SiteName | None = None
    csr_pem: Pem
    message_key: PublicKey


class JoinAnswer(Wire):
    certificate_pem: Annotated[str, StringConstraints(max_length=16384)]
    roster: str


class RenewalRequest(Wire):
    """A new certificate for a node that is in the roster, signed with its message key. With
    `message_key` the node changes that key as well: the envelope then carries both signatures."""

    fleet: Sha256
    node: NodeName
    csr_pem: Pem
    message_key: PublicKey


class Refusal(Wire):
    """RFC 9457 problem document, as much of it as our clients read."""

    title: str = ""
    detail: Reason = ""
    code: str = ""
    remedy: str | None = None


def seal_join(request: JoinRequest, key: SigningKey) -> bytes:
    return seal(request.canonical(), JOIN, key)


def open_join(raw: bytes) -> JoinRequest:
    """Raises UntrustedError unless the key that asks to be a node's has signed the request."""
    request = JoinRequest.from_bytes(peek(raw, JOIN).payload)
    open_envelope(raw, JOIN, [request.message_key])
    return request


def seal_renewal(request: RenewalRequest, *keys: SigningKey) -> bytes:
    return seal(request.canonical(), RENEWAL, *keys)


def open_renewal(raw: bytes, known: PublicKey) -> RenewalRequest:
    """Raises UntrustedError unless the node's known key has signed, and its new one where it differs."""
    request = RenewalRequest.from_bytes(open_envelope(raw, RENEWAL, [known]).payload)
    open_envelope(raw, RENEWAL, [request.message_key])
    return request


def check_authority(document: FleetDocument, ca_sha256: str) -> None:
    """Raises UntrustedError when the token was made under an issuer that operators did not sign."""
    if ca_sha256 not in {sha256_hex(pem.encode()) for pem in document.authorities}:
        raise UntrustedError(
            "the token names an authority that the fleet's operators have not signed",
            remedy="check the coordinator's address, and make a new token there",
        )
