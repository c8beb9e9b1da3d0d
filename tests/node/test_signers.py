"""Recovery of signers aside: the same answers as here, in order, whatever happens to the processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openresource.ledger.transactions import claimed_transaction, sign_transaction, signed_transaction
from openresource.node import signers as module
from openresource.node.signer_process import RECORD_BYTES, addresses, signer
from openresource.node.signers import BUSY_SIGNATURES, Signers
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak
from openresource.primitives.keys import CURVE_ORDER, PrivateKey, generate_key

WAIT_SECONDS_MAX = 60.0
KEYS = [generate_key(bytes([number]) * 32) for number in range(4)]
ROOT = Path(__file__).resolve().parents[2]


def record_of(number: int, key: PrivateKey | None = None) -> bytes:
    digest = keccak(number.to_bytes(8, "big"))
    return digest + (key or KEYS[number % len(KEYS)]).sign_recoverable(digest)


def signer_of(number: int) -> str:
    return KEYS[number % len(KEYS)].address


def high(record: bytes) -> bytes:
    """The mirror image of a signature, which is as good and refused all the same."""
    s = CURVE_ORDER - int.from_bytes(record[64:96], "big")
    return record[:64] + s.to_bytes(32, "big") + bytes([record[96] ^ 1])


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not is_so():
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process is given up for what a test is about, and not for a machine that has much else to do."""
    monkeypatch.setattr(module, "ANSWER_SECONDS_MAX", 2 * WAIT_SECONDS_MAX)
    monkeypatch.setattr(module, "IDLE_SECONDS", 2 * WAIT_SECONDS_MAX)


@contextlib.asynccontextmanager
async def busy(processes: int) -> AsyncIterator[Signers]:
    """Signers whose processes have started because there was much to do."""
    signers = Signers(processes)
    try:
        await begin(signers, processes)
        yield signers
    finally:
        signers.close()


async def begin(signers: Signers, processes: int) -> None:
    records = [record_of(number) for number in range(50)]
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        is_first = True
        while signers.ready_count < processes or is_first:
            is_first = False
            assert await signers.recover(records) == [signer_of(number) for number in range(50)]


def is_there(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # One that ended but was not waited for is gone too.
    return stat.rpartition(")")[2].split()[0] != "Z"


def opened(pid: int) -> list[str]:
    """What a process has open besides nothing at all, which is /dev/null."""
    places = [os.readlink(place) for place in Path(f"/proc/{pid}/fd").iterdir()]
    return [place for place in places if place != os.devnull]


records = st.one_of(
    st.integers(0, 10_000).map(record_of),
    st.integers(0, 10_000).map(record_of).map(high),
    st.tuples(st.integers(0, 10_000), st.integers(0, RECORD_BYTES - 1), st.integers(1, 255)).map(
        lambda made: changed(record_of(made[0]), made[1], made[2])
    ),
    st.binary(min_size=RECORD_BYTES, max_size=RECORD_BYTES),
    st.just(bytes(RECORD_BYTES)),
    st.just(b"\xff" * RECORD_BYTES),
)


def changed(record: bytes, at: int, mask: int) -> bytes:
    return record[:at] + bytes([record[at] ^ mask]) + record[at + 1 :]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(records, max_size=150), min_size=1, max_size=5))
def test_processes_find_the_same_signers_as_this_one(questions: list[list[bytes]]) -> None:
    async def run() -> None:
        async with busy(1) as signers:
            found = await asyncio.gather(*[signers.recover(question) for question in questions])
            assert found == [[signer(record) for record in question] for question in questions]
            assert signers.ready_count == 1

    asyncio.run(run())


def test_a_signer_found_aside_makes_the_transaction_that_is_verified_here() -> None:
    body = {"operation": {"type": "SET_VALUE", "ref": "/a", "value": "é😀"}, "nonce": -1, "timestamp": 1}
    made = sign_transaction(body, KEYS[0], 7)
    claimed = claimed_transaction(body, made.signature, 7)
    (address,) = asyncio.run(Signers(0).recover([claimed.record]))
    assert signed_transaction(claimed, address).to_json() == made.to_json()
    with pytest.raises(Refusal):
        signed_transaction(claimed, "")
    for other in ({**body, "nonce": 0}, {**body, "nonce": "0"}):
        with pytest.raises(Refusal):
            claimed_transaction(other, made.signature, 7)
    with pytest.raises(Refusal):
        claimed_transaction(body, made.signature, 8)


def test_answers_come_in_the_order_of_the_questions() -> None:
    async def run() -> None:
        async with busy(2) as signers:
            order: list[int] = []

            async def ask(place: int, count: int) -> None:
                await signers.recover([record_of(number) for number in range(count)])
                order.append(place)

            sizes = [200, 1, 50, 2, 1, 130, 1]
            await asyncio.gather(*[ask(place, size) for place, size in enumerate(sizes)])
            assert order == list(range(len(sizes)))

    asyncio.run(run())


def test_nobody_passes_who_has_an_answer_and_did_not_go_on_yet() -> None:
    async def run() -> None:
        async with busy(1) as signers:
            order: list[str] = []
            loop = asyncio.get_running_loop()

            async def ask(name: str, count: int) -> None:
                await signers.recover([record_of(number) for number in range(count)])
                order.append(name)

            late: list[asyncio.Task[None]] = []
            take = signers._take

            def take_when_somebody_comes(process: Any) -> None:
                # The step of who comes now stands in the loop before that of who gets the answer.
                if not late:
                    late.append(loop.create_task(ask("late", 1)))
                take(process)

            (process,) = signers._processes
            loop.remove_reader(process.channel)
            loop.add_reader(process.channel, take_when_somebody_comes, process)
            await ask("early", 50)
            await asyncio.gather(*late)
            assert order == ["early", "late"]

    asyncio.run(run())


def test_a_full_socket_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_MAX", 10**6)

    async def run() -> None:
        async with busy(1) as signers:
            (process,) = signers._processes
            process.channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
            count = 2_000
            assert await signers.recover([record_of(number) for number in range(count)]) == [
                signer_of(number) for number in range(count)
            ]
            assert signers.pids == [process.child.pid]

    asyncio.run(run())


def test_a_resting_node_has_no_process_and_little_is_answered_at_once() -> None:
    async def run() -> None:
        signers = Signers(2)
        for number in range(BUSY_SIGNATURES // 4):
            assert await signers.recover([record_of(number)]) == [signer_of(number)]
        assert signers.pids == [] and asyncio.all_tasks() == {asyncio.current_task()}
        assert await signers.recover([]) == []

    asyncio.run(run())


def test_without_processes_everything_is_recovered_here() -> None:
    async def run() -> None:
        signers = Signers(0)
        count = 2 * BUSY_SIGNATURES
        found = await asyncio.gather(
            signers.recover([record_of(number) for number in range(count)]), signers.recover([record_of(1)])
        )
        assert list(found) == [[signer_of(number) for number in range(count)], [signer_of(1)]]
        assert signers.pids == []

    asyncio.run(run())


def test_what_a_killed_process_was_asked_is_answered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART_SECONDS", 0.01)

    async def run() -> None:
        async with busy(1) as signers:
            (first,) = signers.pids
            os.kill(first, signal.SIGSTOP)
            asked = [
                asyncio.create_task(
                    signers.recover([record_of(place * 100 + number) for number in range(60)])
                )
                for place in range(20)
            ]
            await asyncio.sleep(0)
            os.kill(first, signal.SIGKILL)
            for place, found in enumerate(await asyncio.gather(*asked)):
                assert found == [signer_of(place * 100 + number) for number in range(60)]
            await until(lambda: first not in signers.pids)
            await begin(signers, 1)
            assert signers.pids != [first] and not is_there(first)

    asyncio.run(run())


def test_a_process_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)

    async def run() -> None:
        async with busy(1) as signers:
            (first,) = signers.pids
            monkeypatch.setattr(module, "ANSWER_SECONDS_MAX", 0.05)
            os.kill(first, signal.SIGSTOP)
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                found = await signers.recover([record_of(number) for number in range(50)])
            assert found == [signer_of(number) for number in range(50)]
            assert first not in signers.pids and not is_there(first)

    asyncio.run(run())


def test_a_process_that_nobody_needs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)

    async def run() -> None:
        signers = Signers(1)
        await begin(signers, 1)
        pids = signers.pids
        monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
        await until(lambda: not signers.pids)
        assert not any(is_there(pid) for pid in pids)

    asyncio.run(run())


def test_more_than_may_wait_is_recovered_here_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 100)

    async def run() -> None:
        async with busy(1) as signers:
            (pid,) = signers.pids
            os.kill(pid, signal.SIGSTOP)
            asked = asyncio.create_task(signers.recover([record_of(number) for number in range(1500)]))
            # What is in flight stays with the process; of the rest only so much may wait.
            await until(lambda: 0 < signers.waiting_count <= 100)
            os.kill(pid, signal.SIGCONT)
            assert await asked == [signer_of(number) for number in range(1500)]

    asyncio.run(run())


def test_no_process_outlives_its_close() -> None:
    async def run() -> None:
        async with busy(2) as signers:
            pids = signers.pids
            asked = asyncio.create_task(signers.recover([record_of(number) for number in range(300)]))
            await asyncio.sleep(0)
            signers.close()
            assert signers.pids == [] and not any(is_there(pid) for pid in pids)
            assert await asked == [signer_of(number) for number in range(300)]
            assert await signers.recover([record_of(1)] * 300) == [signer_of(1)] * 300
            assert signers.pids == []

    asyncio.run(run())


def test_a_process_that_cannot_be_started_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    async def run() -> None:
        signers = Signers(1)
        records = [record_of(number) for number in range(2 * BUSY_SIGNATURES)]
        assert await signers.recover(records) == [signer_of(number) for number in range(len(records))]
        assert signers.pids == []

    asyncio.run(run())


BABBLER = """#!{python}
import socket, sys

with socket.socket(fileno=int(sys.argv[-1])) as channel:
    channel.sendall(b"\\x01")
    while channel.recv(65536):
        channel.sendall(b"\\xff" * 42 * 64)
"""


def test_a_process_that_says_something_else_is_not_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    babbler = tmp_path / "babbler"
    babbler.write_text(BABBLER.format(python=sys.executable))
    babbler.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(babbler))

    async def run() -> None:
        signers = Signers(1)
        numbers = range(60)
        reasons: list[str] = []
        fail = signers._fail

        def fail_aloud(process: Any, reason: str) -> None:
            reasons.append(reason)
            fail(process, reason)

        monkeypatch.setattr(signers, "_fail", fail_aloud)
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                while not reasons:
                    found = await signers.recover([record_of(number) for number in numbers])
                    assert found == [signer_of(number) for number in numbers]
            assert reasons == ["it says something else"] and signers.pids == []
        finally:
            signers.close()

    asyncio.run(run())


def test_another_loop_finds_them_as_if_new() -> None:
    signers = Signers(1)

    async def run() -> int:
        await begin(signers, 1)
        asked = asyncio.create_task(signers.recover([record_of(number) for number in range(300)]))
        await asyncio.sleep(0)
        assert not asked.done()
        return signers.pids[0]

    first = asyncio.run(run())
    try:
        assert asyncio.run(run()) != first and not is_there(first)
    finally:
        signers.close()


OWNER = """
import asyncio, os
from openresource.node.signers import Signers
from tests.node.test_signers import begin

async def run():
    kept = os.open("/proc/self/environ", os.O_RDONLY)
    os.set_inheritable(kept, True)
    signers = Signers(2)
    await begin(signers, 2)
    print(*signers.pids, flush=True)
    await asyncio.sleep(600)

asyncio.run(run())
"""


def test_a_killed_node_leaves_no_process_behind() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "SECRET": "shown"}
    )
    with owner:
        assert owner.stdout is not None
        try:
            pids = [int(word) for word in owner.stdout.readline().split()]
            assert len(pids) == 2 and all(is_there(pid) for pid in pids)
            assert not any(b"SECRET" in Path(f"/proc/{pid}/environ").read_bytes() for pid in pids)
            # No file, socket or pipe of the node but their own socket.
            assert {len(opened(pid)) for pid in pids} == {1}
        finally:
            owner.kill()
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while any(is_there(pid) for pid in pids):
            assert time.monotonic() < deadline, "they are still there"
            time.sleep(0.01)


def test_addresses_are_read_as_they_are_written() -> None:
    assert addresses(KEYS[0].address.encode() + bytes(42)) == [KEYS[0].address, ""]
