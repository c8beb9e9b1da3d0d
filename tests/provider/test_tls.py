"""The gateway's TLS identity: the key stays, the certificate may change, nothing older than TLS 1.3 is spoken."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from openresource.provider.tls import TlsFileUnusable, load_or_make_identity, server_context

NOW = datetime.datetime.now(datetime.UTC)


def test_the_key_survives_restarts_and_renewals(tmp_path: Path) -> None:
    path = tmp_path / "provider" / "tls.pem"
    first = load_or_make_identity(path, "127.0.0.1", now=NOW)
    before = path.read_bytes()
    again = load_or_make_identity(path, "127.0.0.1", now=NOW)
    assert path.read_bytes() == before
    renewed = load_or_make_identity(path, "127.0.0.1", now=NOW + datetime.timedelta(days=350))
    moved = load_or_make_identity(path, "provider.example", now=NOW + datetime.timedelta(days=350))
    assert path.read_bytes() != before
    assert first.key_hash == again.key_hash == renewed.key_hash == moved.key_hash


def test_the_key_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "tls.pem"
    load_or_make_identity(path, "127.0.0.1", now=NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_unreadable_key_is_a_refusal_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "tls.pem"
    path.write_text("not a key")
    with pytest.raises(TlsFileUnusable) as caught:
        load_or_make_identity(path, "127.0.0.1", now=NOW)
    assert caught.value.remedy


def test_the_hash_is_the_one_that_a_client_computes_from_the_handshake(tmp_path: Path) -> None:
    identity = load_or_make_identity(tmp_path / "tls.pem", "127.0.0.1", now=NOW)

    async def handshake(version: ssl.TLSVersion) -> tuple[bytes, str]:
        server = await asyncio.start_server(
            lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=server_context(identity)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = version
        try:
            port = server.sockets[0].getsockname()[1]
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            connection = writer.get_extra_info("ssl_object")
            certificate, spoken = connection.getpeercert(binary_form=True), connection.version()
            writer.close()
        finally:
            server.close()
            await server.wait_closed()
        return certificate, spoken

    certificate, spoken = asyncio.run(handshake(ssl.TLSVersion.TLSv1_3))
    assert spoken == "TLSv1.3"
    public_key = x509.load_der_x509_certificate(certificate).public_key()
    encoded = public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert "0x" + hashlib.sha256(encoded).hexdigest() == identity.key_hash
    with pytest.raises((ssl.SSLError, ConnectionError)):
        asyncio.run(handshake(ssl.TLSVersion.TLSv1_2))
