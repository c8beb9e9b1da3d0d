"""The wire to a provider: nothing is sent unless the key is the one that the provider's wallet named."""

import asyncio
import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from openresource.client.wires import InvalidCertificate, ProviderAway, TlsKeyNotPinned, Wire, public_key_of
from openresource.ledger.draft import NetworkDomain
from openresource.market.placements import Placement, TlsKeyNotSignedByProvider, sign_tls_key
from openresource.primitives.keys import generate_key

NETWORK = NetworkDomain(chain_id=100, genesis_hash="0x" + "ab" * 32)
PROVIDER = generate_key(b"p" * 32)
KINDS = {
    "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


def certificate_of(key, version_field: bool = True) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=9))
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)


def spki(key) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_public_key_of_a_certificate_is_found(kind):
    key = KINDS[kind]()
    assert public_key_of(certificate_of(key)) == spki(key)


@given(st.binary(max_size=400))
def test_bytes_that_are_no_certificate_are_refused(data):
    with pytest.raises(InvalidCertificate):
        public_key_of(data)


@given(st.data())
def test_a_certificate_that_is_cut_off_is_refused(data):
    whole = CERTIFICATE
    with pytest.raises(InvalidCertificate):
        public_key_of(whole[: data.draw(st.integers(0, 60))])


CERTIFICATE = certificate_of(KINDS["ec"]())


def placement_at(endpoint: str, tls_key: bytes, signer=PROVIDER) -> Placement:
    return Placement(
        "0x" + "1" * 40,
        "echo",
        "bafy",
        PROVIDER.address,
        "PLACED",
        endpoint=endpoint,
        tls_key=tls_key,
        tls_signature=sign_tls_key(endpoint, tls_key, signer, NETWORK),
    )


class TlsServer:
    """A server that keeps what it was sent."""

    def __init__(self, tmp_path):
        self.key = KINDS["ec"]()
        self.received = b""
        pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        der = x509.load_der_x509_certificate(certificate_of(self.key))
        self.file = tmp_path / "tls.pem"
        self.file.write_bytes(pem + der.public_bytes(serialization.Encoding.PEM))

    async def __aenter__(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file)
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=context)
        port = self.server.sockets[0].getsockname()[1]
        self.endpoint = f"https://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *ended):
        self.server.close()

    async def serve(self, reader, writer):
        try:
            data = await reader.read(65536)
            self.received += data
            if data:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                await writer.drain()
        finally:
            writer.close()


def pin(key) -> bytes:
    import hashlib

    return hashlib.sha256(spki(key)).digest()


def test_a_provider_with_the_pinned_key_is_spoken_to(tmp_path):
    async def journey():
        async with TlsServer(tmp_path) as server:
            wire = Wire(placement_at(server.endpoint, pin(server.key)), NETWORK)
            status, _, body = await wire.request("GET", "/", headers={}, seconds=60, bytes_max=100)
            await wire.close()
            assert (status, body) == (200, b"hi")

    asyncio.run(journey())


def test_nothing_is_sent_to_a_provider_with_another_key(tmp_path):
    async def journey():
        async with TlsServer(tmp_path) as server:
            wire = Wire(placement_at(server.endpoint, bytes(32)), NETWORK)
            with pytest.raises(TlsKeyNotPinned):
                await wire.request("POST", "/", body=b"secret", headers={}, seconds=60, bytes_max=100)
            await wire.close()
            assert server.received == b""

    asyncio.run(journey())


def test_a_key_that_the_provider_did_not_sign_is_refused_before_any_connection():
    with pytest.raises(TlsKeyNotSignedByProvider):
        Wire(placement_at("https://127.0.0.1:1", bytes(32), generate_key(b"q" * 32)), NETWORK)


def test_a_provider_that_is_away_is_named():
    async def journey():
        wire = Wire(placement_at("https://127.0.0.1:1", bytes(32)), NETWORK)
        with pytest.raises(ProviderAway) as refusal:
            await wire.request("GET", "/", headers={}, seconds=60, bytes_max=100)
        assert refusal.value.endpoint == "https://127.0.0.1:1"

    asyncio.run(journey())
