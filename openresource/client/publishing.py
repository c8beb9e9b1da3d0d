"""Publishing: try the program where it was written, put it on the chain, and wait until somebody runs it.

Nothing is published that did not answer its own examples. A publisher needs no coins and no server. What was published
before and is published again, or rolled back to, becomes what the service's name means.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from openresource.client.calls import (
    ANSWER_BYTES_MAX,
    EVENTS_TYPE,
    RECEIPT_HEADER,
    split_events,
    stream_values,
)
from openresource.client.chain import Chain, NodeRefused, Operation, TransactionRefused, set_value
from openresource.client.envelopes import BUSY_STATUSES
from openresource.client.releases import (
    Release,
    check_examples,
    read_release,
    with_interface,
    with_version,
)
from openresource.client.services import INTERFACE_FILE, KEPT_SECONDS, Choice, Directory
from openresource.client.wires import Wire
from openresource.ledger.draft import NetworkDomain
from openresource.market.jobs.comparators import verification_record
from openresource.market.manifests import Manifest, Method
from openresource.market.papers import hex_text
from openresource.market.placements import Placement, sign_test_call
from openresource.market.programs import Program, program_record
from openresource.market.receipts import check_receipt, receipt_from_json
from openresource.market.schemas import check_value
from openresource.market.services import (
    Version,
    VersionTextTaken,
    choice_record,
    parse_fork_source,
    read_version,
    version_record,
)
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey
from openresource.primitives.paths import encode_label, format_path

DEADLINE_SECONDS: Final = 60.0
SHOWN_CHARACTERS_MAX: Final = 200
# So much of a commit's name stands in a version's text.
COMMIT_CHARACTERS: Final = 10
# Dependencies and program, as long as a provider lets a build of each take.
BUILDING_SECONDS_MAX: Final = 1_800.0
TEST_SECONDS: Final = 60.0
# Events tell at once; a look at the state now and then finds what an event did not bring.
LOOK_SECONDS: Final = 2.0
# What everybody who spoke has refused may still be taken by somebody else, for so long.
REFUSED_SECONDS: Final = 20.0
RECEIPT_BYTES_MAX: Final = 64 * 1024
LICENSE_NOT_STATED: Final = "NOASSERTION"
STATUS_WORDS: Final = {
    "OFFERED": "takes it: fetching, building and trying",
    "PLACED": "runs it",
    "REFUSED": "cannot run it",
    "DRAINING": "is stopping",
    "GONE": "has gone",
}

Progress = Callable[[str], None]


class ExampleFailed(Refusal):
    template = "The example of {method} failed before anything was published: {reason}"
    way_out = "Mend the program or its example in openresource.toml, then publish again."


class NoPlacementInTime(Refusal):
    template = "{service} {version} is published, but nobody runs it after {seconds} s. {said}"
    way_out = "The publication stays. Run it yourself with «openresource provide --accept own», or publish again to wait again."


class TestCallFailed(Refusal):
    template = "{service} {version} is placed, but no call through the chain gave an answer: {said}"
    way_out = (
        "The publication stays. Publish again to try again, or mend the program and give it a new version."
    )


class Running(Protocol):
    """A program that was started for a trial."""

    @property
    def level(self) -> str:
        """What holds it: an isolation level, or `none`."""
        ...

    @property
    def described(self) -> Sequence[Mapping[str, Any]] | None:
        """The methods as the program itself describes them; None for kinds that cannot."""
        ...

    async def call(self, method: Method, body: bytes) -> tuple[bytes, str]:
        """Body and type of an answer; anything else is raised."""
        ...


class Bench(Protocol):
    """Where a publisher's own program is tried."""

    def start(self, folder: Path, manifest: Manifest) -> AbstractAsyncContextManager[Running]:
        """Start the program that lies in a folder; it is stopped when the context ends."""
        ...


@dataclass(frozen=True, slots=True)
class ExampleRun:
    """An example that was answered here."""

    method: str
    milliseconds: int
    output: Any


@dataclass(frozen=True, slots=True)
class Prepared:
    """A release that answered its examples, ready to be published."""

    release: Release
    program: str
    level: str
    examples: tuple[ExampleRun, ...]

    @property
    def manifest(self) -> Manifest:
        """Its manifest, methods completed."""
        return self.release.manifest


@dataclass(frozen=True, slots=True)
class Publication:
    """What stands on the chain; `tx_hash` is empty if it stood there before."""

    choice: Choice
    tx_hash: str
    # The program that the name meant before; empty if there was none or it is this one.
    before: str = ""

    @property
    def is_new(self) -> bool:
        """Whether this run published it."""
        return bool(self.tx_hash)


@dataclass(slots=True)
class Placed:
    """The provider that answered the test call; without an example there is none to make."""

    placement: Placement
    value: Any = None
    milliseconds: int = 0
    receipt: dict[str, Any] = field(default_factory=dict)


async def prepare(
    folder: Path,
    bench: Bench,
    progress: Progress = lambda _: None,
    version_for: Callable[[Release], Awaitable[str]] | None = None,
    *,
    additions: Mapping[str, bytes] | None = None,
    probe: Callable[[Running, Release], Awaitable[None]] | None = None,
) -> Prepared:
    """Read a folder, start the program, write its interface, run its examples; nothing leaves this machine.

    `version_for` may give a release another version's text than its manifest has; `additions` lie beside the files of
    a folder that has no manifest; `probe` may try more of the running program.
    """
    release = await asyncio.to_thread(read_release, folder, additions)
    if version_for is not None:
        version = await version_for(release)
        if version != release.manifest.version:
            release = with_version(release, version)
    complete = getattr(bench, "complete", None)
    if complete is not None:
        # What only the publisher's side makes of the files, such as the descriptors of a .proto.
        release = await asyncio.to_thread(complete, release)
    progress(f"starting {release.manifest.name} here to learn its interface")
    with tempfile.TemporaryDirectory(prefix="openresource-trial-") as stage:
        # Exactly the published files, so that what works here does not lean on something that stays behind.
        await asyncio.to_thread(release.write_to, Path(stage))
        async with bench.start(Path(stage), release.manifest) as running:
            release = with_interface(release, running.described)
            check_examples(release.manifest.methods)
            examples = [
                await _run_example(running, method, release.manifest.exactness, progress)
                for method in release.manifest.methods
                if method.example is not None
            ]
            if probe is not None:
                await probe(running, release)
            level = running.level
    return Prepared(release, await asyncio.to_thread(lambda: release.program), level, tuple(examples))


class Publisher:
    """Puts prepared releases on the chain for one wallet."""

    def __init__(
        self,
        chain: Chain,
        directory: Directory,
        key: PrivateKey,
        *,
        progress: Progress = lambda _: None,
        clock_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._chain = chain
        self._directory = directory
        self._key = key
        self._progress = progress
        self._clock_ms = clock_ms

    async def publish(self, prepared: Prepared) -> Publication:
        """Content to the node, then program and version in one transaction; what stands already is left as it is."""
        publisher, name, program = self._key.address, prepared.manifest.name, prepared.program
        known, latest, registered = await asyncio.gather(
            self._chain.read(f"/services/{publisher}/{name}/versions"),
            self._chain.read(f"/services/{publisher}/{name}/latest"),
            self._chain.read(f"/programs/{program}"),
        )
        before = latest if isinstance(latest, str) and latest != program else ""
        version = version_of(prepared)
        _check_version_text(known, program, version)
        if not await self._chain.has_block(program):
            self._progress(f"sending {len(prepared.release.files)} files ({prepared.release.bytes} bytes)")
            sent = await self._chain.put_files(prepared.release.files)
            assert sent == program, "the content store names the same bytes alike"
        if isinstance(known, dict) and program in known:
            choice = Choice(publisher, name, read_version(program, known[program]))
            if before:
                await self.choose(choice)
            return Publication(choice, "", before)
        operations: list[Operation] = []
        if registered is None:
            parent = version.fork_of.program if version.fork_of is not None else ""
            record = program_record(Program(program, publisher, name, prepared.release.bytes, parent))
            operations.append(set_value(f"/programs/{program}", record))
        operations.append(
            set_value(f"/services/{publisher}/{name}/versions/{program}", version_record(version))
        )
        self._progress("writing program and version to the chain")
        try:
            info = await self._chain.submit_final(operations, self._key)
        except TransactionRefused:
            # Somebody may have registered the same bytes a moment ago; then the version alone is left to write.
            if registered is not None or await self._chain.read(f"/programs/{program}") is None:
                raise
            info = await self._chain.submit_final(operations[-1:], self._key)
        stamped = await self._chain.read(f"/services/{publisher}/{name}/versions/{program}")
        return Publication(Choice(publisher, name, read_version(program, stamped)), info.tx_hash, before)

    async def version_for(self, release: Release, commit: str) -> str:
        """The manifest's version, or where that stands for other files already, the version with the commit's name.

        So nobody has to raise a number by hand, and each version tells the commit that it was made from.
        """
        version = release.manifest.version
        name = release.manifest.name
        path = format_path(("services", self._key.address, name, "by_version", encode_label(version)))
        program = await self._chain.read(path)
        if not isinstance(program, str) or await self._has_files(program, release):
            return version
        return f"{version}{'.' if '+' in version else '+'}{commit[:COMMIT_CHARACTERS]}"

    async def _has_files(self, program: str, release: Release) -> bool:
        try:
            published = await self._chain.get_files(program)
        except NodeRefused:
            return False  # The node keeps them no more; a version of its own is never wrong.
        files = [dict(one) for one in (published, release.files)]
        for one in files:
            # Written when it was published, from what the program said of itself.
            one.pop(INTERFACE_FILE, None)
        return files[0] == files[1]

    async def choose(self, choice: Choice) -> str:
        """Make a published version what the service's name means; final when this returns, with the transaction's hash."""
        path = f"/services/{choice.service}/choose/{secrets.token_hex(8)}"
        self._progress(f"choosing {choice.version.version}")
        info = await self._chain.submit_final(set_value(path, choice_record(choice.program)), self._key)
        return info.tx_hash

    async def wait_seen(self) -> None:
        """Wait until nobody uses an older answer of the chain; whoever calls after this gets what is placed now."""
        await asyncio.sleep(KEPT_SECONDS)

    async def wait_placed(
        self, prepared: Prepared, publication: Publication, *, deadline_seconds: float = DEADLINE_SECONDS
    ) -> Placed:
        """Wait until a provider runs the version and has answered a test call found through the chain."""
        method = next((one for one in prepared.manifest.methods if one.example is not None), None)
        build = prepared.manifest.build
        is_built = bool(build.language or build.command or build.requirements)
        return await self.wait_running(
            publication.choice,
            method,
            deadline_seconds=deadline_seconds,
            building_seconds=BUILDING_SECONDS_MAX if is_built else 0.0,
        )

    async def wait_running(
        self,
        choice: Choice,
        method: Method | None,
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        building_seconds: float = 0.0,
    ) -> Placed:
        """Wait until a provider runs a version; with a method, until it has answered that one's example.

        A provider that has taken it and builds it yet is waited for as long as builds may take.
        """
        said: dict[str, str] = {}
        failures: dict[str, str] = {}
        tried: set[tuple[str, int]] = set()
        began = time.monotonic()
        changed = asyncio.Event()
        refused_at: float | None = None
        self._progress(f"waiting for a provider to take it, at most {deadline_seconds:.0f} s")
        follower = asyncio.create_task(self._follow(choice, changed))
        try:
            while True:
                changed.clear()
                placements = await self._directory.all_placements(choice)
                is_taken = any(placement.status == "OFFERED" for placement in placements)
                for placement in placements:
                    self._report(placement, said)
                    # A provider announces anew after a restart, and then deserves another try.
                    if placement.status != "PLACED" or (placement.provider, placement.at_ms) in tried:
                        continue
                    tried.add((placement.provider, placement.at_ms))
                    if method is None:
                        return Placed(placement)
                    try:
                        return await self._test(choice, placement, method)
                    except Refusal as refusal:
                        if isinstance(refusal, TestCallTooEarly):
                            # The chain said so a moment before the provider heard that it had.
                            tried.discard((placement.provider, placement.at_ms))
                        failures[placement.provider] = refusal.message
                        self._progress(f"{placement.provider}: the test call failed: {refusal.message}")
                patience_seconds = max(deadline_seconds, building_seconds if is_taken else 0.0)
                waited_seconds = time.monotonic() - began
                if not _is_only_refused(placements):
                    refused_at = None
                elif refused_at is None:
                    refused_at = waited_seconds
                if refused_at is not None:
                    patience_seconds = min(patience_seconds, refused_at + REFUSED_SECONDS)
                left_seconds = patience_seconds - waited_seconds
                if left_seconds <= 0:
                    raise _late(choice, patience_seconds, said, failures)
                try:
                    async with asyncio.timeout(min(LOOK_SECONDS, left_seconds)):
                        await changed.wait()
                except TimeoutError:
                    pass  # Nothing was told; the loop looks for itself and knows the deadline.
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)

    async def _follow(self, choice: Choice, changed: asyncio.Event) -> None:
        path = f"/placements/{choice.publisher}/{choice.name}/{choice.program}"
        async with aclosing(self._chain.events(path)) as events:
            async for _ in events:
                changed.set()

    def _report(self, placement: Placement, said: dict[str, str]) -> None:
        words = STATUS_WORDS.get(placement.status, placement.status)
        text = f"{words}: {placement.reason}" if placement.reason else words
        if said.get(placement.provider) != text:
            said[placement.provider] = text
            self._progress(f"{placement.provider} {text}")

    async def _test(self, choice: Choice, placement: Placement, method: Method) -> Placed:
        assert isinstance(method.example, Mapping)
        network = await self._chain.domain()
        body = json.dumps(method.example["input"], ensure_ascii=False).encode()
        timestamp_ms = self._clock_ms()
        signature = sign_test_call(choice.program, timestamp_ms, self._key, network)
        headers = {
            "Content-Type": "application/json",
            "OpenResource-Test": f"{choice.publisher};{timestamp_ms};{hex_text(signature)}",
        }
        self._progress(f"calling {method.name} at {placement.endpoint}")
        began = time.monotonic()
        wire = Wire(placement, network)
        try:
            status, answered, content = await wire.request(
                "POST",
                f"/services/{choice.service}/{choice.program}{method.path}",
                body=body,
                headers=headers,
                seconds=TEST_SECONDS,
                bytes_max=ANSWER_BYTES_MAX,
            )
        finally:
            await wire.close()
        if status != 200:
            refused = TestCallTooEarly if status in BUSY_STATUSES else TestCallRefused
            raise refused(_words_of(content) or f"It answered with status {status}.")
        content_type = answered.get("content-type", "").partition(";")[0]
        receipt_text = answered.get(RECEIPT_HEADER)
        if content_type == EVENTS_TYPE:
            content, receipt_text = split_events(content, placement)
        record = _check_free_receipt(receipt_text, placement, choice, network, body, content)
        value = _value_of(content, content_type)
        return Placed(placement, value, round((time.monotonic() - began) * 1000), record)


class TestCallRefused(Refusal):
    template = "The provider refused the test call."


class TestCallTooEarly(TestCallRefused):
    """The provider says that it will be ready, or have room, in a moment."""


class NotReceipted(Refusal):
    template = "{provider} answered without a receipt that fits: {reason}."


def version_of(prepared: Prepared) -> Version:
    """The version's record, as the manifest states it."""
    manifest = prepared.manifest
    summary = manifest.summary or next((one.summary for one in manifest.methods if one.summary), "")
    return Version(
        program=prepared.program,
        version=manifest.version,
        unit="call",
        royalty_uain=manifest.royalty_uain,
        price_cap_uain=manifest.price_cap_uain,
        license=manifest.license or LICENSE_NOT_STATED,
        summary=summary or manifest.name,
        domain=manifest.domain,
        exactness=manifest.exactness,
        bytes=prepared.release.bytes,
        fork_of=parse_fork_source(manifest.fork_of),
        verify=verification_record(manifest.verification) if manifest.comparator is not None else None,
    )


async def _run_example(running: Running, method: Method, exactness: str, progress: Progress) -> ExampleRun:
    assert isinstance(method.example, Mapping)
    progress(f"trying the example of {method.name}")
    began = time.monotonic()
    body = json.dumps(method.example["input"], ensure_ascii=False).encode()
    try:
        content, content_type = await running.call(method, body)
        value = _value_of(content, content_type)
        values = value if method.stream and isinstance(value, list) else [value]
        if isinstance(method.output, Mapping):
            for one in values:
                check_value(method.output, one, field="output")
    except Refusal as refusal:
        raise ExampleFailed(method=method.name, reason=str(refusal)) from refusal
    if exactness == "bit_exact" and "output" in method.example and value != method.example["output"]:
        raise ExampleFailed(
            method=method.name,
            reason=f"it answered {_shown(value)}, its example says {_shown(method.example['output'])}, and the program is "
            "bit_exact.",
        )
    return ExampleRun(method.name, round((time.monotonic() - began) * 1000), value)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]}…"


def _check_version_text(known: Any, program: str, version: Version) -> None:
    for cid, record in (known if isinstance(known, dict) else {}).items():
        if cid != program and isinstance(record, dict) and record.get("version") == version.version:
            raise VersionTextTaken(
                version=version.version,
                name="this service",
                program=cid,
                remedy="What is published never changes: raise version in openresource.toml and publish again.",
            )


def _check_free_receipt(
    text: str | None,
    placement: Placement,
    choice: Choice,
    network: NetworkDomain,
    body: bytes,
    content: bytes,
) -> dict[str, Any]:
    if not text or len(text) > RECEIPT_BYTES_MAX:
        raise NotReceipted(provider=placement.provider, reason="there is none")
    try:
        raw = text.encode()
        if not text.startswith("{"):
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        record = parse_json(raw, bytes_max=RECEIPT_BYTES_MAX, depth_max=16)
        receipt = receipt_from_json(record)
        check_receipt(
            receipt,
            network,
            provider=placement.provider,
            channel=receipt.channel,
            nonce=receipt.nonce,
            session=receipt.session,
            sequence=receipt.sequence,
            program=choice.program,
            price_uain=0,
            input_body=body,
            output_body=content,
        )
    except (ValueError, Refusal) as problem:
        reason = problem.message.rstrip(".") if isinstance(problem, Refusal) else str(problem)
        raise NotReceipted(provider=placement.provider, reason=reason) from problem
    return dict(record)


def _value_of(content: bytes, content_type: str) -> Any:
    kind = content_type.partition(";")[0]
    if kind == EVENTS_TYPE:
        return stream_values(content)
    if kind == "application/x-ndjson":
        return [json.loads(line) for line in content.splitlines() if line.strip()]
    if kind == "application/json":
        return parse_json(content, bytes_max=ANSWER_BYTES_MAX, depth_max=128)
    return content.decode("utf-8", "replace")


def _words_of(content: bytes) -> str:
    try:
        record = parse_json(content[:RECEIPT_BYTES_MAX] or b"{}", bytes_max=RECEIPT_BYTES_MAX, depth_max=32)
    except Refusal:
        return ""
    error = record.get("error") if isinstance(record, dict) else None
    words = error if isinstance(error, dict) else record if isinstance(record, dict) else {}
    return str(words.get("message") or "")


def _is_only_refused(placements: Sequence[Placement]) -> bool:
    """Whether some refused it, and nobody runs it or is about to."""
    statuses = {placement.status for placement in placements}
    return "REFUSED" in statuses and not statuses & {"OFFERED", "PLACED", "DRAINING"}


def _late(choice: Choice, seconds: float, said: dict[str, str], failures: dict[str, str]) -> Refusal:
    facts: dict[str, Any] = {
        "service": choice.service,
        "version": choice.version.version,
        "program": choice.program,
        "seconds": round(seconds),
        "providers": said,
    }
    if failures:
        words = "; ".join(f"{provider}: {reason}" for provider, reason in failures.items())
        return TestCallFailed(**facts, said=words)
    words = "; ".join(f"{provider} {text}" for provider, text in said.items())
    return NoPlacementInTime(**facts, said=words or "No provider has said anything about it.")
