"""Mutual TLS: P-256 keys, requests for certificates, and the contexts that both daemons use."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.durable import write_durable
from shared.roster import DOMAIN, tls_name


@dataclass(frozen=True)
class TlsFiles:
    """Paths of one identity. The key file is 0600; none of them is ever sent."""

    key: Path
    certificate: Path
    ca: Path


def make_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def save_key(key: ec.EllipticCurvePrivateKey, path: Path) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_durable(path, pem)


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
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.ca)
    context.verify_mode = ssl.CERT_REQUIRED if require_client else ssl.CERT_OPTIONAL
    return context


def client_context(ca: Path, identity: TlsFiles | None = None) -> ssl.SSLContext:
    """For a dialler. The server's name is checked against what the caller expects, not the address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(ca)
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    return context


def unverified_context() -> ssl.SSLContext:
    """Only for fetching the fleet document, whose hash the join token carries."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def node_of_certificate(peer: dict[str, object] | None) -> str | None:
    """The node that a verified client certificate names; None for no certificate or another name."""
    names = (peer or {}).get("subjectAltName", ())
    suffix = f".{DOMAIN}"
    if not isinstance(names, tuple):
        return None
    for kind, value in names:
        if kind == "DNS" and str(value).endswith(suffix):
            return str(value).removesuffix(suffix)
    return None
