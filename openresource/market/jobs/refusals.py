"""Why a step of a job is not taken, and the way out: raised by the job machine, told to whoever wrote."""

from __future__ import annotations

from openresource.market.codes import ResultCode
from openresource.primitives.errors import Refusal


class BudgetTooSmall(Refusal):
    result_code = ResultCode.BUDGET_TOO_SMALL
    template = "The budget of job {job} has {left_uain} µAIN left; this provider needs {needed_uain} µAIN."
    way_out = "Ask for less, or leave the job to cheaper providers; buyers set --budget."


class NotYourTurn(Refusal):
    result_code = ResultCode.NOT_YOUR_TURN
    template = "The turn of {provider} at job {job} begins at {turn_at_ms}; it is {at_ms}."
    way_out = "Try again then, if nobody took it before."


class NotAnExecutor(Refusal):
    result_code = ResultCode.NOT_AN_EXECUTOR
    template = "The requester of job {job} does not let {provider} run it."
    way_out = "Leave it to those whom the request names."


class CommitmentNotOpened(Refusal):
    result_code = ResultCode.COMMITMENT_NOT_OPENED
    template = "The digest and the salt do not open the commitment of {provider} to job {job}."
    way_out = "Reveal what was committed to: keccak(digest ‖ salt ‖ provider ‖ job ‖ time of the lease), and FAILED if it did."


class SecretWrong(Refusal):
    result_code = ResultCode.SECRET_WRONG
    template = "This is not the secret whose hash the request of job {job} holds."
    way_out = "Send the 32 bytes that were drawn for this very request."


class BeaconNotThere(Refusal):
    result_code = ResultCode.BEACON_NOT_THERE
    template = "The beacon of block {height} is not there: {reason}."
    way_out = "Send the secret when the block of the commitment is final, and soon."


class SameOperator(Refusal):
    result_code = ResultCode.SAME_OPERATOR
    template = "{provider} cannot check job {job}: {operator} stands behind a run of it already."
    way_out = "Leave it to providers of other people."


class BondNeeded(Refusal):
    result_code = ResultCode.BOND_NEEDED
    template = (
        "{provider} has {free_uain} µAIN of its bond free; this role in job {job} needs {needed_uain} µAIN."
    )
    way_out = (
        "Bond more: openresource bond add AMOUNT; one bond serves as many leases at once as it has seats."
    )


class TooManyLeases(Refusal):
    result_code = ResultCode.TOO_MANY_LEASES
    template = "{provider} works on {count} jobs already, as many as may be leased at once without a bond."
    way_out = "Finish one of them first, or bond: openresource bond add AMOUNT."


class DisputeNotPossible(Refusal):
    result_code = ResultCode.DISPUTE_NOT_POSSIBLE
    template = "The result of job {job} cannot be disputed: {reason}."
    way_out = "Results of exact programs can be disputed soon after they are accepted, against a bond, until referees have confirmed them."
