"""Draws: whose turn it is, on which job the lot falls, and how often it should.

Every bond has seats, one for each full `bond_per_seat_uain`, and every draw gives each seat the same chance: splitting a bond
into many addresses gains nothing. A draw is a hash; logarithms are taken in whole numbers, so that every node agrees.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from openresource.primitives.amounts import PPM
from openresource.primitives.hashing import keccak

SECRET_BYTES: Final = 32
# How many results must have been verified before fewer than all are looked at.
STREAK_TRUSTED: Final = 10
# Audits cost a cheat so many times what cheating gains, on average.
AUDIT_SAFETY: Final = 4

_FRACTION_BITS: Final = 32
_MANTISSA_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody who has the program placed; `operator` is who stands behind the machine, as far as is known."""

    provider: str
    seats: int
    operator: str = ""
    runtime_class: str = ""
    bond_uain: int = 0


def seats_of(bond_uain: int, bond_per_seat_uain: int) -> int:
    """How many seats a bond has."""
    return bond_uain // bond_per_seat_uain if bond_per_seat_uain > 0 else 0


def ranking(seed: bytes, candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """The order in which candidates have their turn: drawn by seats, those without any after all others."""
    with_key = [
        (candidate.seats <= 0, _arrival(seed, candidate), candidate.provider) for candidate in candidates
    ]
    return tuple(provider for _, _, provider in sorted(with_key))


def lease_seed(job: str) -> bytes:
    """What orders those who may lease a job."""
    return keccak(b"lease" + job.encode())


def auditors_seed(job: str, secret: bytes, beacon: bytes) -> bytes:
    """What orders those who may audit a job: nobody knows it before the work is bound."""
    return keccak(b"auditors" + job.encode() + secret + beacon)


def referees_seed(job: str, beacon: bytes) -> bytes:
    """What orders those who may referee a dispute."""
    return keccak(b"referees" + job.encode() + beacon)


def secret_hash(secret: bytes) -> bytes:
    """What a request says about the buyer's secret."""
    return keccak(secret)


def draw_number(job: str, secret: bytes, beacon: bytes) -> int:
    """The lot of a job, 0 to 2^64 - 1: the buyer's secret was bound before the beacon was known to anybody."""
    return int.from_bytes(keccak(b"draw" + job.encode() + secret + beacon)[:8], "big")


def is_drawn(number: int, rate_ppm: int) -> bool:
    """Whether the lot falls on a job at a rate."""
    return number * PPM < rate_ppm << 64


def audit_rate_ppm(
    *, streak: int, price_uain: int, stake_uain: int, lowest_ppm: int = 0, safety: int = AUDIT_SAFETY
) -> int:
    """How often a provider is audited: always at first, less with each result that was verified, never too seldom to deter.

    With a gain g of at most the price and a stake S that a proven fault costs, a rate of g / (g + S) makes cheating
    worth nothing; `safety` times that makes it a loss.
    """
    if streak < STREAK_TRUSTED:
        return PPM
    risk_uain = price_uain + stake_uain
    deterring_ppm = PPM if risk_uain == 0 else -(-safety * price_uain * PPM // risk_uain)
    return min(PPM, max(lowest_ppm, deterring_ppm, -(-PPM // streak)))


def negative_log2(number: int, bits: int) -> int:
    """-log2 of number / 2^bits in 2^-32ths, rounded to a neighbour; number is at least 1."""
    whole = number.bit_length() - 1
    shift = whole - _MANTISSA_BITS
    mantissa = number >> shift if shift > 0 else number << -shift
    fraction = 0
    for _ in range(_FRACTION_BITS):
        mantissa = mantissa * mantissa >> _MANTISSA_BITS
        fraction <<= 1
        if mantissa >> (_MANTISSA_BITS + 1):
            mantissa >>= 1
            fraction |= 1
    return (bits - whole << _FRACTION_BITS) - fraction


def _arrival(seed: bytes, candidate: Candidate) -> int:
    """When a candidate comes in a race where each seat comes at the same rate: -log(u) divided by the seats."""
    number = int.from_bytes(keccak(seed + candidate.provider.encode()), "big") or 1
    # Shifted up, so that the division by many seats leaves enough to tell candidates apart.
    return (negative_log2(number, 256) << 32) // max(1, candidate.seats)
