"""Answers that were paid for, kept so that a retry of the same (session, number) gets the same answer and receipt.

The newest are in memory, within bounds; older ones come from the books until their time is over. Large bodies lie
in files of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from openresource.market.tabs import CallKey
from openresource.primitives.encoding import base64url
from openresource.primitives.errors import Refusal
from openresource.provider.books import Books
from openresource.provider.journal import JournalFull
from openresource.provider.records import CallPaid, unpack

INLINE_BYTES_MAX = 64 * 1024
MEMORY_BYTES_MAX = 32 * 1024 * 1024
MEMORY_ANSWERS_MAX = 20_000
FILE_BYTES_MAX = 64 * 1024 * 1024
FILES_BYTES_MAX = 1024 * 1024 * 1024
KEPT_MS = 60 * 60 * 1000
FINGERPRINT_BYTES = 16

_INSERT_RECEIPT = (
    "INSERT OR IGNORE INTO receipts (id, channel, nonce, service, program, price_uain, at_ms, json) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_ANSWER = "INSERT OR REPLACE INTO answers (session, sequence, at_ms, record) VALUES (?, ?, ?, ?)"


class AnswerForgotten(Refusal):
    template = "The call {sequence} of this session was answered and paid; its answer is no longer kept."
    way_out = "Its receipt remains at /receipts. Send a new call with a new number; nothing was charged for this one."


class CallKeyReused(Refusal):
    template = "The number {sequence} of this session already stands for another call."
    way_out = (
        "Give every call a number of its own; a retry repeats method and input exactly. Nothing was charged."
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it goes out, first or again."""

    key: CallKey
    fingerprint: bytes
    status: int
    content_type: str
    body: bytes
    body_file: str
    is_whole: bool
    receipt_id: bytes
    receipt_json: bytes

    @property
    def receipt_header(self) -> bytes:
        """The receipt as the response header carries it."""
        return base64url(self.receipt_json).encode()


def fingerprint_of(program: str, method_path: str, body: bytes) -> bytes:
    """What tells a retry from another call with the same number."""
    digest = hashlib.blake2b(body, digest_size=FINGERPRINT_BYTES, salt=b"openresource")
    digest.update(f"|{program}|{method_path}".encode())
    return digest.digest()


class Answers:
    """The store of answers; `put` and `take` follow the journal, never lead it."""

    def __init__(self, folder: Path, books: Books) -> None:
        self._folder = folder
        self._books = books
        self._answers: OrderedDict[CallKey, Answer] = OrderedDict()
        self._by_receipt: dict[bytes, CallKey] = {}
        self._memory_bytes = 0
        self._files: OrderedDict[str, int] = OrderedDict()
        self._files_bytes = 0

    def open(self) -> None:
        """Finds the bodies that lie in files."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = sorted((entry for entry in os.scandir(self._folder)), key=lambda entry: entry.stat().st_mtime)
        for entry in found:
            if entry.name.endswith(".new"):
                os.unlink(entry.path)
            else:
                self._count_file(entry.name, entry.stat().st_size)

    def keep(self, call: CallPaid, payload: bytes) -> None:
        """Remembers a call that is in the journal, as the record in `payload`, and hands it on to the books."""
        key = CallKey(call.session, call.sequence)
        answer = answer_of(call)
        previous = self._answers.pop(key, None)
        if previous is not None:
            self._memory_bytes -= _size(previous)
        self._answers[key] = answer
        self._by_receipt[call.receipt_id] = key
        self._memory_bytes += _size(answer)
        while self._memory_bytes > MEMORY_BYTES_MAX or len(self._answers) > MEMORY_ANSWERS_MAX:
            _, oldest = self._answers.popitem(last=False)
            self._by_receipt.pop(oldest.receipt_id, None)
            self._memory_bytes -= _size(oldest)
        self._books.write(
            _INSERT_RECEIPT,
            (
                call.receipt_id,
                call.name,
                call.nonce,
                call.service,
                call.program,
                call.price_uain,
                call.at_ms,
                call.receipt_json,
            ),
        )
        self._books.write(_INSERT_ANSWER, (call.session, call.sequence, call.at_ms, payload))

    def find(self, key: CallKey) -> Answer | None:
        """An answer in memory."""
        return self._answers.get(key)

    async def recall(self, key: CallKey) -> Answer:
        """An answer that was given: from memory or from the books."""
        answer = self._answers.get(key)
        if answer is not None:
            return answer
        row = await self._books.read(
            lambda connection: connection.execute(
                "SELECT record FROM answers WHERE session = ? AND sequence = ?", (key.session, key.sequence)
            ).fetchone()
        )
        if row is None:
            raise AnswerForgotten(sequence=key.sequence)
        call = unpack(row[0])
        assert isinstance(call, CallPaid)
        return answer_of(call)

    async def receipt(self, receipt_id: bytes) -> bytes | None:
        """A receipt's JSON by its id."""
        key = self._by_receipt.get(receipt_id)
        if key is not None and key in self._answers:
            return self._answers[key].receipt_json
        row = await self._books.read(
            lambda connection: connection.execute(
                "SELECT json FROM receipts WHERE id = ?", (receipt_id,)
            ).fetchone()
        )
        return bytes(row[0]) if row is not None else None

    # ── Bodies in files ──────────────────────────────────────────────────────────────────────────────────────

    async def write_body(self, key: CallKey, body: bytes) -> str:
        """Puts a large body on disk before its call is journaled; gives the file's name."""
        name = f"{key.session.hex()}-{key.sequence}"
        await asyncio.get_running_loop().run_in_executor(None, _write_whole, self._folder / name, body)
        self._count_file(name, len(body))
        while self._files_bytes > FILES_BYTES_MAX and len(self._files) > 1:
            oldest, size = self._files.popitem(last=False)
            self._files_bytes -= size
            (self._folder / oldest).unlink(missing_ok=True)
        return name

    async def read_body(self, answer: Answer) -> bytes:
        """The whole body of an answer."""
        if not answer.is_whole:
            raise AnswerForgotten(sequence=answer.key.sequence)
        if not answer.body_file:
            return answer.body
        path = self._folder / answer.body_file
        try:
            return await asyncio.get_running_loop().run_in_executor(None, path.read_bytes)
        except FileNotFoundError:
            raise AnswerForgotten(sequence=answer.key.sequence) from None

    def drop_files(self, before_ms: int) -> None:
        """Forgets bodies whose time is over."""
        for name in list(self._files):
            path = self._folder / name
            if path.exists() and path.stat().st_mtime * 1000 >= before_ms:
                return
            path.unlink(missing_ok=True)
            self._files_bytes -= self._files.pop(name)

    def _count_file(self, name: str, size: int) -> None:
        self._files_bytes += size - self._files.pop(name, 0)
        self._files[name] = size


def answer_of(call: CallPaid) -> Answer:
    """The answer in a record."""
    return Answer(
        CallKey(call.session, call.sequence),
        call.fingerprint,
        call.status,
        call.content_type,
        call.body,
        call.body_file,
        call.is_whole,
        call.receipt_id,
        call.receipt_json,
    )


def check_same_call(answer: Answer, fingerprint: bytes) -> None:
    """Refuses a call that reuses the number of another one."""
    if answer.fingerprint != fingerprint:
        raise CallKeyReused(sequence=answer.key.sequence)


def _size(answer: Answer) -> int:
    return len(answer.body) + len(answer.receipt_json) + 400


def _write_whole(path: Path, body: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    try:
        with open(fresh, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, path)
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise JournalFull(reason=error.strerror or str(error)) from error
