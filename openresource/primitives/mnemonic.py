"""Keys from words that a person can write down: BIP-39 phrases and the BIP-32 paths that clients derive from them."""

from __future__ import annotations

import hashlib
import hmac
import unicodedata

from openresource.primitives.errors import InvalidInput, Refusal
from openresource.primitives.hashing import sha256
from openresource.primitives.keys import CURVE_ORDER, PrivateKey
from openresource.primitives.mnemonic_words import WORDS

# Registered coin types; both kinds of client derive one account per index.
COIN_TYPES = {"AIN": 412, "ETH": 60}

_HARDENED = 0x80000000
_ROUNDS = 2048
_NUMBERS = {word: number for number, word in enumerate(WORDS)}


class InvalidMnemonic(Refusal):
    template = "The words are not a recovery phrase: {reason}."
    way_out = "Check spelling and order; a phrase has 12, 15, 18, 21 or 24 words of the English list."


def mnemonic_from_entropy(entropy: bytes) -> str:
    """The phrase that stands for 16 to 32 bytes of entropy."""
    if len(entropy) not in (16, 20, 24, 28, 32):
        raise InvalidInput("A phrase needs 16, 20, 24, 28 or 32 bytes of entropy.", bytes=len(entropy))
    checksum_bits = len(entropy) // 4
    number = int.from_bytes(entropy, "big") << checksum_bits | sha256(entropy)[0] >> 8 - checksum_bits
    count = (len(entropy) * 8 + checksum_bits) // 11
    return " ".join([WORDS[number >> 11 * (count - 1 - place) & 0x7FF] for place in range(count)])


def entropy_of_mnemonic(mnemonic: str) -> bytes:
    """The entropy behind a phrase, after its checksum has been checked."""
    words = unicodedata.normalize("NFKD", mnemonic).split(" ")
    if len(words) not in (12, 15, 18, 21, 24):
        raise InvalidMnemonic(reason="their number is wrong")
    number = 0
    for word in words:
        place = _NUMBERS.get(word, -1)
        if place < 0:
            raise InvalidMnemonic(reason="a word is not on the list")
        number = number << 11 | place
    checksum_bits = len(words) // 3
    entropy = (number >> checksum_bits).to_bytes(checksum_bits * 4, "big")
    if sha256(entropy)[0] >> 8 - checksum_bits != number & (1 << checksum_bits) - 1:
        raise InvalidMnemonic(reason="their checksum is wrong")
    return entropy


def seed_of_mnemonic(mnemonic: str, passphrase: str = "") -> bytes:
    """The seed of 64 bytes behind a valid phrase."""
    entropy_of_mnemonic(mnemonic)
    words = unicodedata.normalize("NFKD", mnemonic).encode()
    salt = unicodedata.normalize("NFKD", "mnemonic" + passphrase).encode()
    return hashlib.pbkdf2_hmac("sha512", words, salt, _ROUNDS)


def key_from_mnemonic(mnemonic: str, index: int = 0, chain: str = "AIN") -> PrivateKey:
    """The key of one account of a phrase: m/44'/coin'/0'/0/index."""
    if not 0 <= index < _HARDENED:
        raise InvalidInput(f"An account's index lies between 0 and {_HARDENED - 1}.", index=index)
    coin_type = COIN_TYPES.get(chain, -1)
    if coin_type < 0:
        raise InvalidInput(f"Accounts are derived for {' and '.join(COIN_TYPES)} only.", chain=chain)
    path = [44 | _HARDENED, coin_type | _HARDENED, _HARDENED, 0, index]
    return derive_key(seed_of_mnemonic(mnemonic), path)


def derive_key(seed: bytes, path: list[int]) -> PrivateKey:
    """The BIP-32 key at a path below a seed; hardened steps have their highest bit set."""
    digest = hmac.digest(b"Bitcoin seed", seed, "sha512")
    key = PrivateKey(digest[:32])
    chain_code = digest[32:]
    for step in path:
        if step & _HARDENED:
            data = b"\0" + key.to_bytes()
        else:
            data = key.compressed_public_key()
        digest = hmac.digest(chain_code, data + step.to_bytes(4, "big"), "sha512")
        tweak = int.from_bytes(digest[:32], "big")
        number = (tweak + int.from_bytes(key.to_bytes(), "big")) % CURVE_ORDER
        if tweak >= CURVE_ORDER or number == 0:
            raise InvalidInput("This index has no key; take the next one.", index=step)
        key = PrivateKey(number.to_bytes(32, "big"))
        chain_code = digest[32:]
    return key
