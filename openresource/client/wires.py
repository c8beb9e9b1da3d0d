"""The wire to one provider: HTTPS to its endpoint, trusted only if the key is the one that the chain names.

The certificate is fetched in a handshake that carries no data, the hash of its public key is compared with the
placement's, and from then on exactly that certificate is trusted. Certificate authorities play no part.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from openresource.client.connections import Broken, Connections, NotConnected, Response
from openresource.ledger.draft import NetworkDomain
from openresource.market.placements import Placement, check_tls_key
from openresource.primitives.errors import Refusal

HANDSHAKE_SECONDS: Final = 5.0
CONNECTIONS_MAX: Final = 128
IDLE_SECONDS: Final = 30.0


class ProviderAway(Refusal):
    """`was_sent` says whether the request may have reached the provider."""

    template = "The provider {provider} at {endpoint} does not answer: {reason}."
    way_out = "Another provider is tried where there is one; else try again later."


class TlsKeyNotPinned(Refusal):
    template = "{endpoint} shows the key {found}; the chain names {expected} for {provider}."
    way_out = "Nothing was sent. Somebody stands between, or the provider changed its key without announcing it; choose another provider."


class Reply:
    """An answer that is read as it comes; whoever opened it closes it."""

    def __init__(self, wire: Wire, response: Response) -> None:
        self._wire = wire
        # A receipt is about the bytes on the wire, and nothing that a stranger sends is unpacked.
        self._response = response

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, with their names in lower case."""
        return self._response.headers

    async def next_piece(self) -> bytes:
        """The next bytes of the body; empty at its end. A connection that breaks is `ProviderAway`."""
        try:
            return await self._response.next_piece()
        except Broken as error:
            raise self._wire.away(str(error), was_sent=True) from None

    async def whole(self, bytes_max: int) -> bytes:
        """The rest of the body, which may have at most so many bytes."""
        pieces: list[bytes] = []
        size = 0
        while piece := await self.next_piece():
            size += len(piece)
            if size > bytes_max:
                raise self._wire.away(f"its answer is longer than {bytes_max} bytes", was_sent=True)
            pieces.append(piece)
        return b"".join(pieces)

    async def close(self) -> None:
        """Give the connection back, or break it off if the body has not ended."""
        await self._response.close()


class Wire:
    """Connections to one placement's endpoint; usable only after its key was checked."""

    def __init__(self, placement: Placement, network: NetworkDomain) -> None:
        # The chain checked this signature too, but the node that told us may not be honest.
        check_tls_key(
            placement.provider, placement.endpoint, placement.tls_key, placement.tls_signature, network
        )
        self.placement = placement
        self._network = network
        self._beside: Wire | None = None
        self._certificate = b""
        self._http: Connections | None = None
        # Connections of certificates that were renewed since; calls on them may still be running.
        self._former: list[Connections] = []
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections."""
        if self._beside is not None:
            await self._beside.close()
        clients = [*self._former, self._http]
        self._http, self._former = None, []
        for http in clients:
            if http is not None:
                await http.close()

    def beside(self) -> Wire:
        """Connections of its own to the same place: requests that wait for long must not keep others from theirs."""
        if self._beside is None:
            self._beside = Wire(self.placement, self._network)
        return self._beside

    async def send(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str], seconds: float
    ) -> Reply:
        """Send a request and give the answer when its head is here; `seconds` bound every single wait."""
        http = await self._client()
        try:
            return Reply(
                self,
                await http.send(
                    method, path, headers, body, connect_seconds=HANDSHAKE_SECONDS, seconds=seconds
                ),
            )
        except NotConnected as failure:
            # The endpoint may have a fresh certificate for the same key: the next attempt looks.
            await self._forget(http)
            raise self.away(str(failure), was_sent=False) from None
        except Broken as failure:
            raise self.away(str(failure), was_sent=True) from None

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str],
        seconds: float,
        bytes_max: int,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One exchange as a whole: status, headers and a body of at most `bytes_max`."""
        reply = await self.send(method, path, body=body, headers=headers, seconds=seconds)
        try:
            return reply.status, reply.headers, await reply.whole(bytes_max)
        finally:
            await reply.close()

    def away(self, reason: str, *, was_sent: bool) -> ProviderAway:
        """The refusal that says that this provider does not answer."""
        return ProviderAway(
            provider=self.placement.provider,
            endpoint=self.placement.endpoint,
            reason=reason,
            was_sent=was_sent,
        )

    async def _client(self) -> Connections:
        async with self._opening:
            if self._http is None:
                certificate = await self._shown_certificate()
                self._check_pin(certificate)
                self._certificate = certificate
                self._http = _connections(self.placement.endpoint, certificate)
            return self._http

    async def _forget(self, http: Connections) -> None:
        """After a failed connection: trust is built anew, if the certificate is no longer the one that we trust."""
        async with self._opening:
            if self._http is not http:
                return
            try:
                certificate = await self._shown_certificate()
            except ProviderAway:
                return
            if certificate != self._certificate:
                self._former.append(http)
                self._http = None

    async def _shown_certificate(self) -> bytes:
        parts = urlsplit(self.placement.endpoint)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = (
            ssl.CERT_NONE
        )  # Only for the handshake that shows the key; nothing is sent over it.
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                _, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=context)
        except (OSError, TimeoutError) as error:
            raise self.away(_reason(error), was_sent=False) from None
        try:
            tls = writer.get_extra_info("ssl_object")
            certificate: bytes | None = tls.getpeercert(binary_form=True)
        finally:
            writer.close()
        if not certificate:
            raise self.away("it shows no certificate", was_sent=False)
        return certificate

    def _check_pin(self, certificate: bytes) -> None:
        found = hashlib.sha256(public_key_of(certificate)).digest()
        if not hmac.compare_digest(found, self.placement.tls_key):
            raise TlsKeyNotPinned(
                endpoint=self.placement.endpoint,
                found=found.hex(),
                expected=self.placement.tls_key.hex(),
                provider=self.placement.provider,
            )


class InvalidCertificate(Refusal):
    template = "The certificate cannot be read: {reason}."
    way_out = "Choose another provider."


def public_key_of(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a DER certificate (RFC 5280 §4.1), as it stands there."""
    outer, _ = _element(certificate, 0, 0x30)
    position, end = _element(certificate, outer[0], 0x30)[0]
    if position < end and certificate[position] == 0xA0:  # The version, where it is not the first.
        position = _element(certificate, position, 0xA0)[1]
    for tag in (0x02, 0x30, 0x30, 0x30, 0x30):  # Serial, algorithm, issuer, validity, subject.
        position = _element(certificate, position, tag)[1]
    _, after = _element(certificate, position, 0x30)
    return certificate[position:after]


def _element(data: bytes, position: int, tag: int) -> tuple[tuple[int, int], int]:
    """The bounds of an element's content, and where the next begins."""
    if position + 2 > len(data) or data[position] != tag:
        raise InvalidCertificate(reason=f"no element {tag:#x} at byte {position}")
    length, start = data[position + 1], position + 2
    if length >= 0x80:
        count = length & 0x7F
        if not 1 <= count <= 3 or start + count > len(data):
            raise InvalidCertificate(reason=f"a length at byte {position} is out of bounds")
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    if start + length > len(data):
        raise InvalidCertificate(reason=f"the element at byte {position} is cut off")
    return (start, start + length), start + length


def _connections(endpoint: str, certificate: bytes) -> Connections:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # The key is what identifies; the name in it says nothing.
    context.load_verify_locations(cadata=certificate)
    parts = urlsplit(endpoint)
    return Connections(
        parts.hostname or "",
        parts.port or 443,
        context,
        connections_max=CONNECTIONS_MAX,
        idle_seconds=IDLE_SECONDS,
    )


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
