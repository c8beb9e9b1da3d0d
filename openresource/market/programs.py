"""Programs: immutable bytes that anybody may register under their content identifier, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.market.fields import Fields, InvalidRecord, is_cid_text
from openresource.market.services import is_service_name
from openresource.primitives.errors import Refusal

PROGRAM_BYTES_MAX: Final = 64 * 1024 * 1024 * 1024


class ProgramNotRegistered(Refusal):
    result_code = ResultCode.PROGRAM_NOT_REGISTERED
    template = "The program {program} is not registered."
    way_out = "Write /programs/{program} first; the same transaction will do, if it comes before."


@dataclass(frozen=True, slots=True)
class Program:
    """What the chain knows of a program; its bytes and its manifest are in the content store."""

    cid: str
    publisher: str
    name: str
    bytes: int
    parent: str = ""


def read_program(cid: str, record: Any) -> Program:
    """A program from its record."""
    if not is_cid_text(cid):
        raise InvalidRecord(what="program", member="its path", reason="must end in a content identifier")
    fields = Fields(record, "program")
    name = fields.text("name")
    if not is_service_name(name):
        raise fields.wrong("name", "must be lower-case letters, digits and hyphens, at most 63")
    program = Program(
        cid=cid,
        publisher=fields.address("publisher"),
        name=name,
        bytes=fields.integer("bytes", 1, PROGRAM_BYTES_MAX),
        parent=fields.cid("parent") if fields.has("parent") else "",
    )
    fields.take("parent")
    fields.finish()
    return program


def program_record(program: Program) -> dict[str, Any]:
    """The record at `/programs/<cid>`."""
    members: dict[str, Any] = {
        "publisher": program.publisher,
        "name": program.name,
        "bytes": program.bytes,
    }
    if program.parent:
        members["parent"] = program.parent
    return members
