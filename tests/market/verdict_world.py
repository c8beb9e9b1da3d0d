"""A chain with one exact program and several bonded providers, and jobs on it as providers and buyers make them."""

from __future__ import annotations

from typing import Any

from openresource.ledger.machine import Inserted
from openresource.market.jobs import asked_job_id, commitment, public_salt, salted_digest, secret_hash
from openresource.market.papers import hex_text
from openresource.market.placements import sign_tls_key
from openresource.primitives.amounts import UAIN_PER_AIN
from openresource.primitives.hashing import keccak
from tests.market.small_chain import NAME, PROGRAM, RECORD, TLS_KEY, version_record
from tests.support.chains import Chain, key_of

PUBLISHER = key_of("publisher").address
BUYER = key_of("buyer").address
SECRET = keccak(b"a buyer's secret")


def good(inserted: Inserted) -> Inserted:
    assert not inserted.has_failed, inserted.result
    return inserted


def code_of(inserted: Inserted) -> int:
    """The code of the native that refused, else the operation's own."""
    for native in (inserted.result.get("func_results") or {}).values():
        if native["code"] != 0:
            return int(native["code"])
    return int(inserted.result["code"])


def address(name: str) -> str:
    return key_of(name).address


class JobWorld:
    """Jobs by name of their participants; every provider holds coins, a bond of `seats`, and a placement."""

    def __init__(
        self, providers: dict[str, int], *, exactness: str = "bit_exact", verify: Any = None, **market: Any
    ) -> None:
        self.chain = Chain("buyer", "disputer", *providers, **({"market": market} if market else {}))
        publish = [
            {
                "type": "SET_VALUE",
                "ref": f"/programs/{PROGRAM}",
                "value": {"publisher": PUBLISHER, "name": NAME, "bytes": 9},
            },
            {
                "type": "SET_VALUE",
                "ref": f"/services/{PUBLISHER}/{NAME}/versions/{PROGRAM}",
                "value": version_record(exactness=exactness, **({"verify": verify} if verify else {})),
            },
        ]
        good(self.chain.run("publisher", {"type": "SET", "op_list": publish}))
        for number, (name, seats) in enumerate(providers.items()):
            self.place(name, 9_000 + number)
            if seats:
                bond = {"amount_uain": seats * UAIN_PER_AIN}
                good(self.chain.set(name, f"/bonds/{address(name)}/add/{RECORD}", bond))
        self.chain.seal()
        self.salt: bytes | None = None
        self.supply = self.chain.supply_uain()

    def place(self, name: str, port: int) -> None:
        """A provider offers the program and has it placed."""
        endpoint = f"https://127.0.0.1:{port}"
        path = f"/placements/{PUBLISHER}/{NAME}/{PROGRAM}/{address(name)}"
        signature = sign_tls_key(endpoint, TLS_KEY, key_of(name), self.chain.machine.domain)
        record = {
            "status": "PLACED",
            "endpoint": endpoint,
            "tls_key": hex_text(TLS_KEY),
            "tls_signature": hex_text(signature),
            "capacity": 4,
            "ask_uain": 500,
            "isolation": "bubblewrap",
            "runtime_class": "python-3.11-x86-64-v3",
        }
        good(self.chain.set(name, path, {"status": "OFFERED"}))
        good(self.chain.set(name, path, record))

    def ask(self, policy: str, key: str = "ab" * 16, **changes: Any) -> str:
        """The buyer asks for a run on 7; gives the job's name."""
        job = asked_job_id(BUYER, key)
        value: dict[str, Any] = {
            "publisher": PUBLISHER,
            "name": NAME,
            "program": PROGRAM,
            "policy": policy,
            "budget_uain": 3_000,
            "input": 7,
            "input_digest": hex_text(salted_digest(public_salt(job), 7)),
        }
        if policy.startswith("audited"):
            value["secret_hash"] = hex_text(secret_hash(SECRET))
        good(self.chain.set("buyer", f"/job_requests/{BUYER}/{key}", value | changes))
        self.next_block()
        return job

    def next_block(self, later_ms: int = 1_000) -> None:
        """Time passes, and what is due is done."""
        if self.chain.machine.is_open:
            self.chain.seal()
        self.chain.open(later_ms)

    def wait_until(self, at_ms: int) -> None:
        """The next block is not before a time."""
        self.next_block(max(1_000, at_ms - self.chain.now_ms))

    def lease(self, job: str, name: str) -> Inserted:
        return self.chain.set(name, f"/jobs/{job}/leases/{address(name)}", {"at_ms": 1})

    def digest(self, job: str, output: Any) -> bytes:
        return salted_digest(public_salt(job) if self.salt is None else self.salt, output)

    def commit(self, job: str, name: str, output: Any = 49) -> Inserted:
        """Binds a provider to an output; it must hold a lease."""
        leased = self.value(f"/jobs/{job}/executions/{address(name)}/lease_at_ms")
        bound = commitment(self.digest(job, output), keccak(name.encode()), address(name), job, leased or 0)
        return self.chain.set(name, f"/jobs/{job}/commits/{address(name)}", {"commitment": hex_text(bound)})

    def work(self, job: str, name: str, output: Any = 49) -> None:
        """Leases and commits."""
        good(self.lease(job, name))
        good(self.commit(job, name, output))

    def tell_secret(self, job: str) -> Inserted:
        return self.chain.set("buyer", f"/jobs/{job}/secret/{BUYER}", {"secret": hex_text(SECRET)})

    def reveal(self, job: str, name: str, output: Any = 49) -> Inserted:
        report = {
            "status": "DONE",
            "output": output,
            "digest": hex_text(self.digest(job, output)),
            "salt": hex_text(keccak(name.encode())),
        }
        return self.chain.set(name, f"/jobs/{job}/reveals/{address(name)}", report)

    def value(self, path: str) -> Any:
        return self.chain.value(path)

    def status(self, job: str) -> str:
        return str(self.value(f"/jobs/{job}/state/status"))

    def leaser(self, job: str, *names: str) -> str:
        """Leases for the first of these that may, and gives its name."""
        for name in names:
            if not self.lease(job, name).has_failed:
                return name
        raise AssertionError(f"nobody of {names} may lease {job}")

    def bond(self, name: str) -> int:
        """What is left of a bond."""
        return self.chain.balance(f"deposits|market|bond:{address(name)}")

    def is_conserved(self) -> bool:
        return self.chain.supply_uain() == self.supply
