"""A provider in the form of ERC-8004: its registration file, and feedback files that facts of the chain give.

The form is that of the standard's revision of January 2026: `services`, `x402Support`, `active`; feedback with `value`
and `valueDecimals` and without an authorisation by the agent. https://eips.ethereum.org/EIPS/eip-8004
Nothing here is anybody's opinion: each value is computed from the chain, and each file says by which path to check it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from openresource.ledger.draft import NetworkDomain
from openresource.market.placements import Placement
from openresource.market.reputation import Pair, Reputation, pair_weight_uain
from openresource.primitives.amounts import text_from_uain
from openresource.primitives.errors import Refusal

REGISTRATION_TYPE: Final = "https://eips.ethereum.org/EIPS/eip-8004#registration-v1"
NAMESPACE: Final = "openresource"
SERVICES_MAX: Final = 200
FEEDBACK_MAX: Final = 1_000
AIN_DECIMALS: Final = 6
PERCENT_DECIMALS: Final = 4

_REGISTRY = re.compile(r"([a-z0-9-]{3,12}):([0-9A-Za-z_-]{1,32}):(0x[0-9a-fA-F]{40,64})")


class RegistryInvalid(Refusal):
    template = "{text} names no registration."
    way_out = "Write the registry, = and the agent's number: eip155:1:0x8004…=22"


@dataclass(frozen=True, slots=True)
class Registration:
    """Under which number a provider stands in which identity registry."""

    registry: str
    agent_id: int

    @property
    def accounts(self) -> str:
        """Namespace and chain, with which an address of that chain begins."""
        return self.registry.rpartition(":")[0]


def own_registration(provider: str, network: NetworkDomain) -> Registration:
    """A provider's place on its own chain: the address is the number, and the genesis hash names the registry."""
    return Registration(f"{NAMESPACE}:{network.chain_id}:{network.genesis_hash.lower()}", int(provider, 16))


def parse_registration(text: str) -> Registration:
    """A registration as an operator writes it."""
    registry, equals, number = text.partition("=")
    if (
        not equals
        or _REGISTRY.fullmatch(registry) is None
        or not number.isascii()
        or not number.isdigit()
        or len(number) > 78
    ):
        raise RegistryInvalid(text=text[:120])
    return Registration(registry, int(number))


def registration_json(
    provider: str,
    registrations: Sequence[Registration],
    placements: Sequence[tuple[Placement, str]],
    reputation: Reputation,
    *,
    page: str = "",
) -> dict[str, Any]:
    """The registration file; `placements` are what is served now, each with its version's text."""
    served = [_service_json(placement, version) for placement, version in placements[:SERVICES_MAX]]
    web = [{"name": "web", "endpoint": page}] if page else []
    record = reputation.record
    return {
        "type": REGISTRATION_TYPE,
        "name": f"Open Resource provider {provider}",
        "description": (
            f"Runs {len(placements)} published programs and sells calls of them. Its buyers have paid "
            f"{text_from_uain(record.claimed_uain)} AIN; others have verified {record.valid} of its results and proven "
            f"{record.faults} faults."
        ),
        "image": picture(provider),
        "services": [*web, *served],
        "x402Support": False,
        "active": bool(placements),
        # Numbers beyond 2^53 are texts, as most readers of JSON would round them.
        "registrations": [
            {"agentId": _number(one.agent_id), "agentRegistry": one.registry} for one in registrations
        ],
        "supportedTrust": ["reputation", "crypto-economic"],
    }


def feedback_json(
    provider: str,
    registration: Registration,
    pairs: Mapping[str, Pair],
    reputation: Reputation,
    network: NetworkDomain,
    *,
    created_at: Mapping[str, str],
    height: int,
) -> list[dict[str, Any]]:
    """Feedback files: one for each buyer that paid, and one of the chain for what was verified.

    `created_at` holds the time of each buyer's last payment, and under the provider's own address that of the record,
    as ISO 8601: nothing here knows calendars.
    """
    largest = sorted(pairs.items(), key=lambda item: (-item[1].fee_uain, item[0]))[:FEEDBACK_MAX]
    files = [
        {
            **_head(provider, registration, buyer, created_at[buyer]),
            "value": pair_weight_uain(pair.fee_uain),
            "valueDecimals": AIN_DECIMALS,
            "tag1": "paidWork",
            "tag2": "weightedFees",
            "proofOfPayment": {
                "fromAddress": buyer,
                "toAddress": provider,
                "chainId": str(network.chain_id),
            },
            "openresource": {
                "path": f"/pairs/{provider}/{buyer}",
                "height": height,
                "genesis": network.genesis_hash,
                "payments": pair.payments,
                "paid_uain": pair.paid_uain,
                "fee_uain": pair.fee_uain,
            },
        }
        for buyer, pair in largest
    ]
    record = reputation.record
    if record.valid or record.faults:
        files.append(
            {
                **_head(provider, registration, provider, created_at[provider]),
                "value": reputation.audited_ppm,
                "valueDecimals": PERCENT_DECIMALS,
                "tag1": "verifiedWork",
                "tag2": "percent",
                "openresource": {
                    "path": f"/records/{provider}",
                    "height": height,
                    "genesis": network.genesis_hash,
                    "valid": record.valid,
                    "streak": record.streak,
                    "faults": record.faults,
                },
            }
        )
    return files


def picture(provider: str) -> str:
    """A square of the provider's own colours, as registries of this form show a picture for each name."""
    digits = provider.removeprefix("0x").lower()
    cells = "".join(
        f"<rect x='{number % 4}' y='{number // 4}' width='1' height='1' fill='%23{digits[2 * number : 2 * number + 6]}'/>"
        for number in range(16)
    )
    return f"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 4 4'>{cells}</svg>"


def _head(provider: str, registration: Registration, client: str, created_at: str) -> dict[str, Any]:
    return {
        "agentRegistry": registration.registry,
        "agentId": _number(registration.agent_id),
        "clientAddress": f"{registration.accounts}:{client}",
        "createdAt": created_at,
    }


def _service_json(placement: Placement, version: str) -> dict[str, Any]:
    path = f"/services/{placement.publisher}/{placement.name}/{placement.program}"
    return {"name": placement.name, "endpoint": f"{placement.endpoint}{path}", "version": version}


def _number(agent_id: int) -> int | str:
    return agent_id if agent_id < 1 << 53 else str(agent_id)
