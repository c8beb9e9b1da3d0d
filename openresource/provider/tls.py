"""The gateway's TLS identity: one long-lived key whose hash stands on the chain, and a certificate around it.

Buyers do not ask an authority: they compare the hash of the key with the one that the provider's wallet signed
into its placement. So the key must survive restarts, while the certificate may be renewed at will.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from openresource.primitives.errors import Refusal

VALID_DAYS = 365
RENEW_DAYS_BEFORE = 30
# A clock that runs a little behind ours must not refuse a certificate of this minute.
CLOCK_LEEWAY_DAYS = 1


class TlsFileUnusable(Refusal):
    template = "The TLS key in {path} cannot be used: {reason}."
    way_out = (
        "Restore the file, or move it away to make a new key; "
        "placements that name the old key are announced anew with the next start."
    )


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    path: Path
    key_hash: str


def spki_hash(public_key: Any) -> str:
    """0x and the SHA-256 of a public key in its SubjectPublicKeyInfo form: what the chain names."""
    encoded = public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "0x" + hashlib.sha256(encoded).hexdigest()


def load_or_make_identity(path: Path, host: str, *, now: datetime.datetime) -> TlsIdentity:
    """The identity in a file; makes the key if there is none and renews the certificate when it gets old."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists():
        key, certificate = _read(path)
        if _is_current(certificate, host, now):
            return TlsIdentity(path, spki_hash(key.public_key()))
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    _write(path, key, _certificate(key, host, now))
    return TlsIdentity(path, spki_hash(key.public_key()))


def server_context(identity: TlsIdentity) -> ssl.SSLContext:
    """A context that speaks TLS 1.3 and nothing older."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(identity.path)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _read(path: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    data = path.read_bytes()
    try:
        key = serialization.load_pem_private_key(data, password=None)
        certificate = x509.load_pem_x509_certificate(data)
    except (ValueError, TypeError) as error:
        raise TlsFileUnusable(path=str(path), reason="it does not hold a PEM key and certificate") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TlsFileUnusable(path=str(path), reason="its key is not an elliptic-curve key")
    return key, certificate


def _is_current(certificate: x509.Certificate, host: str, now: datetime.datetime) -> bool:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    ends = certificate.not_valid_after_utc - datetime.timedelta(days=RENEW_DAYS_BEFORE)
    return _general_name(host) in names and certificate.not_valid_before_utc <= now < ends


def _certificate(key: ec.EllipticCurvePrivateKey, host: str, now: datetime.datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Open Resource provider")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=CLOCK_LEEWAY_DAYS))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
        # The client trusts exactly this certificate, which makes it its own authority.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
