"""Numbers that prove themselves: check digits of cards, accounts, coins' addresses and national identities."""

from __future__ import annotations

import hashlib
import ipaddress

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
# Verhoeff's scheme: the symmetries of a pentagon, and how digits are shuffled by their place.
PENTAGON = tuple(
    tuple((a + b) % 5 if a < 5 and b < 5 else (a - b) % 5 if a >= 5 and b >= 5 else 5 + (a + (b if a < 5 else -b)) % 5 for b in range(10))
    for a in range(10)
)  # fmt: skip
SHUFFLE = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def digits_of(text: str) -> list[int]:
    """The digits in a text."""
    return [int(character) for character in text if character.isdigit()]


def is_card(text: str) -> bool:
    """Whether the digits end in the check digit of a payment card."""
    digits = digits_of(text)
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    """Whether an account number's check digits are right."""
    letters = text.replace(" ", "").upper()
    if not 15 <= len(letters) <= 34:
        return False
    moved = letters[4:] + letters[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def is_address(text: str) -> bool:
    """Whether it is the address of a machine."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_phone(text: str) -> bool:
    """Whether it has as many digits as telephone numbers have."""
    return 8 <= len(digits_of(text)) <= 15


def is_coin_address(text: str) -> bool:
    """Whether a payment address of Bitcoin proves itself, or it has the shape of one of Ethereum."""
    if text.startswith("0x"):
        return True
    return is_bech32(text) if text.lower().startswith("bc1") else is_base58_checked(text)


def is_base58_checked(text: str) -> bool:
    """Whether the last four bytes are the hash of those before."""
    number = 0
    for character in text:
        number = number * 58 + BASE58.index(character)
    if number >= 1 << 200:
        return False
    content = number.to_bytes(25, "big")
    return hashlib.sha256(hashlib.sha256(content[:-4]).digest()).digest()[:4] == content[-4:]


def is_bech32(text: str) -> bool:
    """Whether the last six letters are those that the others demand (BIP 173 and 350)."""
    if text not in (text.lower(), text.upper()):
        return False
    name, data = text.lower().rsplit("1", 1)
    if any(character not in BECH32 for character in data):
        return False
    values = (
        [ord(one) >> 5 for one in name]
        + [0]
        + [ord(one) & 31 for one in name]
        + [BECH32.index(one) for one in data]
    )
    check = 1
    for value in values:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    return check in (1, 0x2BC830A3)


def is_identity(text: str) -> bool:
    """Whether it is one of the national identities below."""
    return (
        is_us_social(text)
        or is_spanish(text)
        or is_brazilian(text)
        or is_indian(text)
        or is_british_health(text)
    )


def is_us_social(text: str) -> bool:
    """A social security number of the United States: no check digit, but parts that are never given."""
    parts = text.split("-")
    if [len(part) for part in parts] != [3, 2, 4] or not "".join(parts).isdigit():
        return False
    return parts[0] not in ("000", "666") and parts[0] < "900" and parts[1] != "00" and parts[2] != "0000"


def is_spanish(text: str) -> bool:
    """A DNI or NIE: the number's rest by 23 names its letter."""
    if len(text) != 9 or not text[-1].isalpha():
        return False
    number = str("XYZ".find(text[0])) + text[1:8] if text[0] in "XYZ" else text[:8]
    return number.isdigit() and "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[-1]


def is_brazilian(text: str) -> bool:
    """A CPF: its last two digits follow from those before."""
    digits = digits_of(text)
    if "." not in text or len(digits) != 11 or len(set(digits)) == 1:
        return False
    for length in (9, 10):
        total = sum(digit * (length + 1 - at) for at, digit in enumerate(digits[:length]))
        if total * 10 % 11 % 10 != digits[length]:
            return False
    return True


def is_indian(text: str) -> bool:
    """An Aadhaar number: Verhoeff's check digit."""
    digits = digits_of(text)
    if len(digits) != 12 or len(text) != 14 or digits[0] < 2:
        return False
    check = 0
    for at, digit in enumerate(reversed(digits)):
        for _ in range(at % 8):
            digit = SHUFFLE[digit]
        check = PENTAGON[check][digit]
    return check == 0


def is_british_health(text: str) -> bool:
    """An NHS number: its rest by 11."""
    digits = digits_of(text)
    if len(digits) != 10 or [len(part) for part in text.replace("-", " ").split(" ")] != [3, 3, 4]:
        return False
    check = 11 - sum(digit * (10 - at) for at, digit in enumerate(digits[:9])) % 11
    return check % 11 == digits[9] and check != 10
