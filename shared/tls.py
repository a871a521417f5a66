"""Mutual TLS: P-256 keys, requests for certificates, and the contexts that both daemons use."""

from __future__ import annotations

import ssl
from asyncio.sslproto import SSLProtocol
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.durable import read_secret, sync_directory, write_durable
from shared.errors import UntrustedError
from shared.roster import DOMAIN, PeerCertificate, tls_name

SSLProtocol.max_size = 32 << 10
"""Bytes that asyncio reads at once from a TLS connection. It keeps and clears a buffer of that size for each, and
an agent has a dozen that say little: 256 KiB, its default, would be 3 MiB of them."""
BACKDATED_S = 3600.0
"""Certificates begin so long before they are issued: clocks differ."""


@dataclass(frozen=True)
class TlsFiles:
    """Paths of one identity. `identity` holds key and certificate together, so that a renewal replaces
    both at once; `ca` holds the authorities that are honoured. Both are 0600."""

    identity: Path
    ca: Path


def make_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def check_certificate(
    pem: str, key: ec.EllipticCurvePrivateKey, node: str, authorities: list[str], now: float
) -> None:
    """Whether this is a certificate that this node can live with: it replaces one that works.

    Raises UntrustedError naming what is wrong with it.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        named = names.get_values_for_type(x509.DNSName) == [tls_name(node)]
        own = certificate.public_key() == key.public_key()
        begins = certificate.not_valid_before_utc.timestamp()
        ends = certificate.not_valid_after_utc.timestamp()
    except (ValueError, x509.ExtensionNotFound) as error:
        raise UntrustedError(f"what came back is not a certificate: {error}") from error
    wrong = {
        "is of another key": not own,
        f"does not name {node}": not named,
        "is of an authority that the fleet document does not name": not any(
            issued_by(certificate, each) for each in authorities
        ),
        "is not valid now; do this clock and the coordinator's differ?": not begins <= now < ends,
    }
    for what, holds in wrong.items():
        if holds:
            raise UntrustedError(f"the certificate that came back {what}")


def save_identity(path: Path, key: ec.EllipticCurvePrivateKey, certificate_pem: str) -> None:
    """Raises UntrustedError, and leaves `path` as it is, when TLS cannot use the two together."""
    trial = path.with_name(f".{path.name}.trial")
    write_durable(trial, key_pem(key) + certificate_pem.encode())
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(trial)
    except ssl.SSLError as error:
        trial.unlink()
        raise UntrustedError(f"TLS does not take the certificate: {error.reason}") from error
    trial.replace(path)
    sync_directory(path.parent)


def read_certificate(path: Path) -> x509.Certificate:
    """The certificate of an identity file."""
    return x509.load_pem_x509_certificate(read_secret(path))


def issued_by(certificate: x509.Certificate, authority_pem: str) -> bool:
    """Whether this authority signed it."""
    try:
        certificate.verify_directly_issued_by(
            x509.load_pem_x509_certificate(authority_pem.encode())
        )
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def request_certificate(key: ec.EllipticCurvePrivateKey, node: str) -> str:
    """A PEM signing request for the node's TLS name."""
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(tls_name(node))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM).decode()


def server_context(files: TlsFiles, *, require_client: bool) -> ssl.SSLContext:
    """For a listener. With `require_client` False, callers may also be operators with a token."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(files.identity)
    context.load_verify_locations(files.ca)
    context.verify_mode = ssl.CERT_REQUIRED if require_client else ssl.CERT_OPTIONAL
    return context


def client_context(ca: Path, identity: TlsFiles | None = None) -> ssl.SSLContext:
    """For a dialler. The server's name is checked against what the caller expects, not the address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(ca)
    if identity is not None:
        context.load_cert_chain(identity.identity)
    return context


def unverified_context() -> ssl.SSLContext:
    """Only for fetching TUF metadata, which proves itself whoever hands it over."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@lru_cache(maxsize=16_384)
def _seconds(moment: str) -> float:
    """Of a certificate's time; the same connections ask again and again."""
    return ssl.cert_time_to_seconds(moment)


def read_peer(peer: dict[str, object] | None) -> PeerCertificate | None:
    """The node that a verified client certificate names; None for no certificate or another name."""
    names = (peer or {}).get("subjectAltName", ())
    begins = (peer or {}).get("notBefore")
    suffix = f".{DOMAIN}"
    if not isinstance(names, tuple) or not isinstance(begins, str):
        return None
    for kind, value in names:
        if kind == "DNS" and str(value).endswith(suffix):
            issued = _seconds(begins) + BACKDATED_S
            return PeerCertificate(str(value).removesuffix(suffix), issued)
    return None
