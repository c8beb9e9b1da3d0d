"""Registering a program: anybody, once for each content identifier."""

from __future__ import annotations

from openresource.ledger.draft import Draft, Native, NativeCall
from openresource.market.codes import ResultCode
from openresource.market.programs import ProgramNotRegistered, read_program
from openresource.primitives.errors import Refusal


class ProgramAlreadyRegistered(Refusal):
    result_code = ResultCode.PROGRAM_ALREADY_REGISTERED
    template = "The program {program} is registered already."
    way_out = "Nothing is left to do: publish a version of a service with it."


class PublisherIsNotSigner(Refusal):
    result_code = ResultCode.PUBLISHER_IS_NOT_SIGNER
    template = "The record names the publisher {publisher}; {signer} signed."
    way_out = "Name the address that signs as the publisher."


def register_program(draft: Draft, call: NativeCall) -> None:
    """Checks the record that was written; it stays as it is."""
    if call.value is None:
        return
    if call.previous is not None:
        raise ProgramAlreadyRegistered(program=call.params["cid"])
    program = read_program(call.params["cid"], call.value)
    if program.publisher != call.signer:
        raise PublisherIsNotSigner(publisher=program.publisher, signer=call.signer)
    if program.parent and draft.get("programs", program.parent) is None:
        raise ProgramNotRegistered(program=program.parent)


NATIVES = (Native("_registerProgram", (("programs",),), register_program),)
FUNCTIONS = {"/programs/$cid": "_registerProgram"}
RULES = {
    "/programs": "false",
    "/programs/$cid": "data === null && newData !== null && newData.publisher === auth.addr"
    " && util.checkValuePathLen(parsedValuePath, 2)",
}
