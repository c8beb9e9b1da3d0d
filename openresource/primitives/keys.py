"""Keys, addresses and signatures on secp256k1, as AI Network's and Ethereum's clients make them."""

from __future__ import annotations

import hmac
import re
from typing import Any, Final

import coincurve

from openresource.primitives.errors import InvalidInput, Refusal
from openresource.primitives.hashing import hash_message, hash_transaction, keccak
from openresource.primitives.limits import CHAIN_ID_MAX

CURVE_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_HALF_ORDER_BYTES: Final = (CURVE_ORDER // 2).to_bytes(32, "big")

_ADDRESS: Final = re.compile("0x[0-9a-fA-F]{40}")
_HEX_BYTES: Final = re.compile("0x(?:[0-9a-fA-F]{2})*")
_SIGNATURE_CHARACTERS: Final = 2 + 2 * (32 + 65)

_PublicKey: Any = coincurve.PublicKey
_PrivateKey: Any = coincurve.PrivateKey

# Addresses recur; making the checksum form costs a hash.
_CHECKSUMS_KEPT_MAX: Final = 20_000
_checksums: Final[dict[str, str]] = {}


class InvalidPrivateKey(Refusal):
    template = "A private key is a number of 32 bytes between 1 and the order of the curve; this is none."


class InvalidAddress(Refusal):
    template = "{address} is not an address: 0x and 40 hex digits."


class InvalidPublicKey(Refusal):
    template = "The bytes are not a public key on the curve."


class InvalidSignature(Refusal):
    template = "The signature is not valid: {reason}."
    way_out = "Sign again with the key of the account, for the chain id of this network."


class PrivateKey:
    """A private key that signs; it never shows itself."""

    def __init__(self, secret: bytes) -> None:
        number = int.from_bytes(secret, "big")
        if len(secret) != 32 or not 0 < number < CURVE_ORDER:
            raise InvalidPrivateKey()
        self._key: Any = _PrivateKey(secret)
        self.public_key: bytes = self._key.public_key.format(compressed=False)[1:]
        self.address: str = address_of(self.public_key)

    def sign_recoverable(self, digest: bytes) -> bytes:
        """65 bytes r‖s‖v over a digest of 32 bytes: RFC 6979 nonce, low s, v = 0 or 1."""
        signature: bytes = self._key.sign_recoverable(digest, hasher=None)
        return signature

    def shared_point(self, public_key: bytes) -> bytes:
        """The 64 bytes of the point that this key and the other side's public key agree on."""
        point: bytes = _point(public_key).multiply(self.to_bytes()).format(compressed=False)
        return point[1:]

    def compressed_public_key(self) -> bytes:
        """The public key as 33 bytes: its X and the parity of its Y."""
        encoded: bytes = self._key.public_key.format(compressed=True)
        return encoded

    def to_bytes(self) -> bytes:
        """The secret itself, for key stores only."""
        secret: bytes = self._key.secret
        return secret.rjust(32, b"\0")

    def __repr__(self) -> str:
        return f"PrivateKey(of {self.address})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrivateKey) and hmac.compare_digest(self.to_bytes(), other.to_bytes())

    def __hash__(self) -> int:
        return hash(self.address)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("A private key does not travel.")


def private_key_from_hex(text: str) -> PrivateKey:
    """A private key from up to 64 hex digits, with or without 0x."""
    digits = text.removeprefix("0x")
    if re.fullmatch("[0-9a-fA-F]{1,64}", digits) is None:
        raise InvalidPrivateKey()
    return PrivateKey(bytes.fromhex(digits.rjust(64, "0")))


def generate_key(entropy: bytes) -> PrivateKey:
    """A key from at least 32 bytes of entropy."""
    if len(entropy) < 32:
        raise InvalidInput("A key needs at least 32 bytes of entropy.", bytes=len(entropy))
    digest = keccak(b"openresource key" + entropy)
    while not 0 < int.from_bytes(digest, "big") < CURVE_ORDER:
        digest = keccak(digest)
    return PrivateKey(digest)


def address_of(public_key: bytes) -> str:
    """The checksummed address of a public key of 64 bytes (X‖Y), or of 33 or 65 bytes with its prefix."""
    if len(public_key) != 64:
        public_key = _point(public_key).format(compressed=False)[1:]
    return _with_checksum(keccak(public_key)[12:].hex())


def is_address(value: Any) -> bool:
    """Whether a value is 0x and 40 hex digits of any case."""
    return isinstance(value, str) and _ADDRESS.fullmatch(value) is not None


def is_checksum_address(value: Any) -> bool:
    """Whether a value is an address in its mixed-case form."""
    return is_address(value) and checksum_address(value) == value


def checksum_address(address: str) -> str:
    """The mixed-case form of an address, whose capitals are a checksum."""
    known = _checksums.get(address)
    if known is not None:
        return known
    if not is_address(address):
        raise InvalidAddress(address=address)
    checked = _with_checksum(address[2:].lower())
    _remember(address, checked)
    return checked


def address_bytes(address: str) -> bytes:
    """The 20 bytes of an address."""
    if not is_address(address):
        raise InvalidAddress(address=address)
    return bytes.fromhex(address[2:])


def sign_digest(digest: bytes, key: PrivateKey, chain_id: int) -> str:
    """A signature text that carries its digest: 0x, digest, r, s, v with the chain id in it."""
    if not 0 <= chain_id <= CHAIN_ID_MAX:
        raise InvalidInput(
            f"A chain id lies between 0 and {CHAIN_ID_MAX}; {chain_id} would not fit into a signature.",
            chain_id=chain_id,
        )
    signature = key.sign_recoverable(digest)
    return "0x" + digest.hex() + signature[:64].hex() + f"{signature[64] + _v_offset(chain_id):02x}"


def sign_message(text: str, key: PrivateKey, chain_id: int) -> str:
    """The signature of a text."""
    return sign_digest(hash_message(text), key, chain_id)


def sign_transaction(body: dict[str, Any], key: PrivateKey, chain_id: int) -> str:
    """The signature of a transaction's body."""
    return sign_digest(hash_transaction(body), key, chain_id)


def hash_from_signature(signature: str) -> bytes:
    """The digest that a signature text carries."""
    return _signature_bytes(signature)[:32]


def signature_record(signature: str, chain_id: int) -> bytes:
    """Digest, r, s and recovery id (97 bytes) of a signature text that was made for a chain id."""
    parts = _signature_bytes(signature)
    return parts[:32] + _recoverable(parts, chain_id)


def recover_address(digest: bytes, signature: str, chain_id: int) -> str:
    """The address whose key made a signature text over a digest."""
    return address_of(_recover_key(digest, _recoverable(_signature_bytes(signature), chain_id)))


def verify_signature(data: str | dict[str, Any], signature: str, address: str, chain_id: int) -> bool:
    """Whether an address signed a text or a transaction's body; a malformed signature is refused, not false."""
    expected = checksum_address(address)
    if len(signature) != _SIGNATURE_CHARACTERS and _HEX_BYTES.fullmatch(signature) is not None:
        return False
    parts = _signature_bytes(signature)
    digest = parts[:32]
    if not hmac.compare_digest(digest, _digest_of(data)):
        return False
    recoverable = _recoverable(parts, chain_id)
    signer = address_of(_recover_key(digest, recoverable))
    # A high s is the mirror image of a good signature; libraries that verify strictly refuse it.
    return signer == expected and recoverable[32:64] <= _HALF_ORDER_BYTES


def recover(digest: bytes, signature: bytes) -> str:
    """The address behind 65 bytes r‖s‖v over a digest (v = 0, 1, 27 or 28); a high s is refused as malleable."""
    return address_of(recover_public_key(digest, signature))


def recover_public_key(digest: bytes, signature: bytes) -> bytes:
    """The 64 bytes of the public key behind 65 bytes r‖s‖v over a digest."""
    if len(signature) != 65 or len(digest) != 32:
        raise InvalidSignature(reason="a digest has 32 bytes and a signature 65")
    v = signature[64]
    if v >= 27:
        v -= 27
    if v > 1:
        raise InvalidSignature(reason="its last byte is none of 0, 1, 27 and 28")
    if signature[32:64] > _HALF_ORDER_BYTES:
        raise InvalidSignature(reason="its s lies in the upper half of the curve's order")
    return _recover_key(digest, signature[:64] + bytes((v,)))


def _digest_of(data: str | dict[str, Any]) -> bytes:
    if isinstance(data, str):
        return hash_message(data)
    if "nonce" not in data or "timestamp" not in data or "operation" not in data:
        raise InvalidInput(
            what="signed object", reason="it is no transaction: nonce, timestamp or operation is missing"
        )
    return hash_transaction(data)


def _v_offset(chain_id: int) -> int:
    return 27 if chain_id == 0 else 35 + 2 * chain_id


def _signature_bytes(signature: str) -> bytes:
    """Digest, r, s and v of a signature text."""
    # fromhex overlooks spaces; the length of what it makes tells whether there were any.
    try:
        parts = bytes.fromhex(signature[2:]) if len(signature) == _SIGNATURE_CHARACTERS else b""
    except ValueError:
        parts = b""
    if len(parts) != 97 or not signature.startswith("0x"):
        raise InvalidSignature(reason="it is not 0x and the hex digits of a digest and 65 more bytes")
    return parts


def _recoverable(parts: bytes, chain_id: int) -> bytes:
    """r, s and recovery id of a signature that was made for a chain id."""
    recovery = parts[96] - _v_offset(chain_id)
    if recovery not in (0, 1):
        raise InvalidSignature(reason=f"it was not made for chain id {chain_id}")
    return parts[32:96] + bytes((recovery,))


def _recover_key(digest: bytes, signature: bytes) -> bytes:
    try:
        point: bytes = _PublicKey.from_signature_and_message(signature, digest, hasher=None).format(
            compressed=False
        )
    except ValueError as error:
        raise InvalidSignature(reason="no key belongs to it") from error
    return point[1:]


def _point(public_key: bytes) -> Any:
    try:
        return _PublicKey(b"\x04" + public_key if len(public_key) == 64 else public_key)
    except ValueError as error:
        raise InvalidPublicKey() from error


def _with_checksum(digits: str) -> str:
    known = _checksums.get(digits)
    if known is not None:
        return known
    marks = keccak(digits.encode()).hex()
    capitals = digits.upper()
    checked = "0x" + "".join([capitals[i] if marks[i] > "7" else digits[i] for i in range(40)])
    _remember(digits, checked)
    return checked


def _remember(text: str, checked: str) -> None:
    if len(_checksums) >= _CHECKSUMS_KEPT_MAX:
        _checksums.clear()
    _checksums[text] = checked
