"""What every signed paper has in common: a domain that ties it to one network, a digest, a signature of 65 bytes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from openresource.ledger.draft import NetworkDomain
from openresource.market.codes import ResultCode
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import InvalidSignature, PrivateKey, recover
from openresource.primitives.typed_data import domain_separator, signing_digest, struct_hash

DOMAIN_NAME: Final = "Open Resource"
DOMAIN_VERSION: Final = "1"
SCHEME: Final = "openresource"


class PaperNotSigned(Refusal):
    result_code = ResultCode.PAPER_NOT_SIGNED
    template = "No key can have made the paper's signature: {reason}."
    way_out = "Sign the paper again; a signature is r, s and v, 65 bytes, with v = 27 or 28."


@lru_cache(maxsize=64)
def paper_domain(network: NetworkDomain) -> bytes:
    """The hash of a network's EIP-712 domain; the salt is its genesis block's hash."""
    salt = bytes.fromhex(network.genesis_hash.removeprefix("0x"))
    return domain_separator(DOMAIN_NAME, DOMAIN_VERSION, network.chain_id, salt)


def paper_digest(type_string: str, values: Mapping[str, Any], network: NetworkDomain) -> bytes:
    """What is signed for a paper on a network."""
    return signing_digest(paper_domain(network), struct_hash(type_string, values))


def sign_paper(digest: bytes, key: PrivateKey) -> bytes:
    """65 bytes r‖s‖v with v = 27 or 28, as wallets write it."""
    signature = key.sign_recoverable(digest)
    return signature[:64] + bytes((signature[64] + 27,))


def paper_signer(digest: bytes, signature: bytes) -> str:
    """The address that signed a digest."""
    try:
        return recover(digest, signature)
    except InvalidSignature as error:
        raise PaperNotSigned(reason=error.reason) from error


def network_name(network: NetworkDomain) -> str:
    """A network as payment envelopes name it."""
    return f"{SCHEME}:{network.chain_id}"


def full_network_name(network: NetworkDomain) -> str:
    """A network with its first block, so that two networks of one chain id are told apart."""
    return f"{SCHEME}:{network.chain_id}:{network.genesis_hash.lower()}"


def hex_text(data: bytes) -> str:
    """Bytes as papers write them in JSON."""
    return "0x" + data.hex()
