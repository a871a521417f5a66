"""The fleet's certificate authority for TLS: P-256, made at first start, names only our own domain.

Leaves carry subject and authority key identifiers and key usage; without them Python 3.13 and later
refuse them (LIBRARIES.md). A leaf lives 30 days: longer than a long outage of the coordinator.
"""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.durable import read_secret, write_durable
from shared.errors import BadInputError
from shared.roster import tls_name
from shared.tls import BACKDATED_S, key_pem, make_key

CA_DAYS = 3650
LEAF_DAYS = 30
SKEW = datetime.timedelta(seconds=BACKDATED_S)


class Authority:
    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key, self._certificate = key, certificate

    @property
    def pem(self) -> str:
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    @classmethod
    def create(cls, folder: Path, fleet_name: str, now: datetime.datetime) -> Authority:
        key = make_key()
        subject = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, f"Rollcall {fleet_name}"[:64])]
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + datetime.timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(_usage(sign_certificates=True), critical=True)
        )
        certificate = builder.sign(key, hashes.SHA256())
        write_durable(folder / "ca.key", key_pem(key))
        authority = cls(key, certificate)
        write_durable(folder / "ca.crt", authority.pem.encode())
        return authority

    @classmethod
    def load(cls, folder: Path) -> Authority:
        key = serialization.load_pem_private_key(read_secret(folder / "ca.key"), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise BadInputError(f"{folder / 'ca.key'} is not a P-256 key")
        return cls(key, x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes()))

    def issue(
        self,
        node: str,
        key: ec.EllipticCurvePublicKey,
        now: datetime.datetime,
        address: str | None = None,
    ) -> str:
        """A PEM leaf for this node's TLS name, for both ends of a connection. `address` is a host of ours that it
        is to hold for as well: browsers know of no other name than the one that was typed."""
        names: list[x509.GeneralName] = [x509.DNSName(tls_name(node))]
        names += [] if address is None else [_general_name(address)]
        issuer = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)]))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + datetime.timedelta(days=LEAF_DAYS))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer.value),
                critical=False,
            )
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_of_request(csr_pem: str) -> ec.EllipticCurvePublicKey:
    """The key of a signing request that proves it holds the private half. Everything else that the
    request asks for is ignored: the name is the coordinator's to give."""
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        key, good = request.public_key(), request.is_signature_valid
    except (ValueError, TypeError) as error:
        raise BadInputError("this is not a certificate signing request") from error
    if not good or not isinstance(key, ec.EllipticCurvePublicKey):
        raise BadInputError("the signing request is not signed by a P-256 key")
    if not isinstance(key.curve, ec.SECP256R1):
        raise BadInputError("the signing request's key is not on P-256")
    return key


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
