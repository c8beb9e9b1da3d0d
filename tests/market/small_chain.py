"""A chain of natives alone, for tests of the market: writes call natives over a real Draft, a refusal undoes all."""

from __future__ import annotations

import copy
from typing import Any

from openresource.ledger.draft import Draft, Native, NativeCall, NetworkDomain
from openresource.ledger.due import DUE, due_time_ms
from openresource.market import natives
from openresource.market.papers import hex_text
from openresource.market.placements import PLACED, Placement, placement_record, sign_tls_key
from openresource.market.vouchers import NO_RECEIPTS, Voucher, sign_voucher
from openresource.primitives.cids import file_cid
from openresource.primitives.hashing import keccak
from openresource.primitives.keys import PrivateKey, generate_key
from openresource.primitives.paths import parse_path
from tests.support.memory_state import MemoryState

NETWORK = NetworkDomain(100, "0x" + "5a" * 32)
OTHER_NETWORK = NetworkDomain(100, "0x" + "a5" * 32)

BUYER = generate_key(b"buyer".ljust(32, b"."))
SIGNER = generate_key(b"signer".ljust(32, b"."))
PROVIDER = generate_key(b"provider".ljust(32, b"."))
PUBLISHER = generate_key(b"publisher".ljust(32, b"."))
STRANGER = generate_key(b"stranger".ljust(32, b"."))

PROGRAM = file_cid(b"a program")
OTHER_PROGRAM = file_cid(b"another program")
NAME = "translate"
APP = "photo_app"
CHANNEL_ID = "00112233445566778899aabbccddeeff"
ENDPOINT = "https://127.0.0.1:9443"
TLS_KEY = bytes(range(32))
SESSION = keccak(b"s" * 32)
RECORD = "aa" * 8

_NATIVES: dict[str, Native] = {native.name: native for native in natives.NATIVES}
_DUE = {action.kind: action for action in natives.DUE_ACTIONS}


class SmallChain:
    """Values in memory, the market's natives, its due-queue, and a clock that tests set."""

    def __init__(self, network: NetworkDomain = NETWORK) -> None:
        self.state = MemoryState()
        self.network = network
        self.at = 1_000_000
        self.height = 0
        self.program_entries: dict[str, dict[str, Any]] = {}

    def get(self, path: str) -> Any:
        return self.state.read_value(parse_path(path))

    def balance(self, account: str) -> int:
        return Draft(self.state, (), "").balance(account)

    def write(self, key: PrivateKey, path: str, value: Any) -> None:
        """One transaction: the user's write, then the native bound to its path; a refusal undoes both."""
        before = copy.deepcopy(self.state.values)
        labels = tuple(parse_path(path))
        previous = self.state.read_value(labels)
        self.height += 1
        self.state.write_value(labels, value)
        try:
            name, params = _bound(labels, natives.FUNCTIONS)
            if name:
                native = _NATIVES[name]
                call = self._call(key.address, labels, value, previous, params)
                native.run(Draft(self.state, native.writes, key.address), call)
            self._run_programs(key.address, labels, value, previous)
        except Exception:
            self.state.values = before
            raise

    def wait(self, milliseconds: int) -> None:
        """Lets time pass and works the due-queue in its order."""
        self.at += milliseconds
        while True:
            entries = sorted(self.state.values.get(DUE, {}))
            if not entries or due_time_ms(entries[0]) > self.at:
                return
            entry = self.state.values[DUE].pop(entries[0])
            action = _DUE[entry["kind"]]
            action.run(Draft(self.state, action.writes, ""), entry["key"], self.at)

    def _run_programs(self, signer: str, labels: tuple[str, ...], value: Any, previous: Any) -> None:
        for pattern, entry in self.program_entries.items():
            name, params = _bound(labels, {pattern: "entry"})
            if name:
                call = self._call(signer, labels, value, previous, params)
                draft = Draft(self.state, natives.PROGRAM_HOOK.writes, signer)
                natives.PROGRAM_HOOK.run(draft, entry, call)

    def _call(
        self, signer: str, labels: tuple[str, ...], value: Any, previous: Any, params: dict[str, str]
    ) -> NativeCall:
        return NativeCall(
            value=value,
            previous=previous,
            params=params,
            path=labels,
            signer=signer,
            at=self.at,
            height=self.height,
            tx_hash=hex_text(keccak(str(self.height).encode())),
            tx_timestamp=self.at,
            network=self.network,
        )


def _bound(labels: tuple[str, ...], functions: dict[str, str]) -> tuple[str, dict[str, str]]:
    for pattern, name in functions.items():
        wanted = parse_path(pattern)
        if len(wanted) == len(labels) and all(
            want.startswith("$") or want == label for want, label in zip(wanted, labels, strict=True)
        ):
            return name, {
                want[1:]: label for want, label in zip(wanted, labels, strict=True) if want[0] == "$"
            }
    return "", {}


def version_record(**changes: Any) -> dict[str, Any]:
    return {
        "version": "1.2.0",
        "unit": "call",
        "royalty_uain": 200,
        "price_cap_uain": 2_000,
        "license": "Apache-2.0",
        "summary": "Translates short texts.",
        "exactness": "bit_exact",
        "bytes": 9,
    } | changes


def placement(ask_uain: int = 500, **changes: Any) -> dict[str, Any]:
    """A complete record of the provider's placement."""
    return (
        placement_record(
            Placement(
                publisher=PUBLISHER.address,
                name=NAME,
                program=PROGRAM,
                provider=PROVIDER.address,
                status=PLACED,
                endpoint=ENDPOINT,
                tls_key=TLS_KEY,
                tls_signature=sign_tls_key(ENDPOINT, TLS_KEY, PROVIDER, NETWORK),
                capacity=4,
                ask_uain=ask_uain,
                isolation="bubblewrap",
                runtime="python-3.11",
            )
        )
        | changes
    )


PLACEMENT_PATH = f"/placements/{PUBLISHER.address}/{NAME}/{PROGRAM}/{PROVIDER.address}"
VERSION_PATH = f"/services/{PUBLISHER.address}/{NAME}/versions/{PROGRAM}"
CHANNEL_PATH = f"/channels/{BUYER.address}/{CHANNEL_ID}"
CHANNEL = f"{BUYER.address}/{CHANNEL_ID}"


def published_chain(ask_uain: int = 500, royalty_uain: int = 200) -> SmallChain:
    """A chain with a program, its version and a placement; the buyer has 1 AIN and an app."""
    chain = SmallChain()
    chain.state.give(BUYER.address, 1_000_000)
    chain.state.write_value(("manage_app", APP, "config", "admin", BUYER.address), True)
    chain.write(PUBLISHER, f"/programs/{PROGRAM}", {"publisher": PUBLISHER.address, "name": NAME, "bytes": 9})
    chain.write(PUBLISHER, VERSION_PATH, version_record(royalty_uain=royalty_uain))
    chain.write(PROVIDER, PLACEMENT_PATH, {"status": "OFFERED"})
    chain.write(PROVIDER, PLACEMENT_PATH, placement(ask_uain))
    return chain


def opening(deposit_uain: int = 10_000, expires_at_ms: int = 2_000_000, **changes: Any) -> dict[str, Any]:
    return {
        "publisher": PUBLISHER.address,
        "name": NAME,
        "program": PROGRAM,
        "provider": PROVIDER.address,
        "deposit_uain": deposit_uain,
        "expires_at_ms": expires_at_ms,
    } | changes


def voucher(
    total_uain: int,
    *,
    nonce: int = 0,
    key: PrivateKey = BUYER,
    channel: str = CHANNEL,
    session: bytes = SESSION,
    acknowledged: int = 0,
    receipts: bytes = NO_RECEIPTS,
    network: NetworkDomain = NETWORK,
) -> Voucher:
    """A signed voucher."""
    return sign_voucher(Voucher(channel, nonce, total_uain, session, acknowledged, receipts), key, network)


def claim_record(paper: Voucher, amount_uain: int, send_back: bool = False) -> dict[str, Any]:
    record: dict[str, Any] = {
        "nonce": paper.nonce,
        "total_uain": paper.total_uain,
        "session": hex_text(paper.session),
        "acknowledged": paper.acknowledged,
        "receipts": hex_text(paper.receipts),
        "signature": hex_text(paper.signature),
        "amount_uain": amount_uain,
    }
    if send_back:
        record["send_back"] = True
    return record
