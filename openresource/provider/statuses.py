"""Which HTTP status says which refusal; a kind that is not listed here is looked up by what it derives from."""

from __future__ import annotations

from openresource.market import tabs, vouchers
from openresource.market.channels import VoucherSignedByOther
from openresource.market.fields import InvalidRecord
from openresource.market.placements import ForeignTestCall, StaleTestCall
from openresource.market.schemas import InvalidValue, ValueTooLarge
from openresource.primitives.encoding import JsonTooDeep, JsonTooLarge, NotJson
from openresource.primitives.errors import InvalidInput, Refusal
from openresource.primitives.keys import InvalidSignature
from openresource.provider import admission, answers, journal, payments
from openresource.provider.books import BooksBehind
from openresource.sandbox import driver

BAD_REQUEST = 400
PAYMENT_REQUIRED = 402
FORBIDDEN = 403
NOT_FOUND = 404
CONFLICT = 409
WITHDRAWN = 410
TOO_LARGE = 413
UNFIT = 422
TOO_MANY = 429
INTERNAL = 500
BAD_GATEWAY = 502
UNAVAILABLE = 503
TOO_LATE = 504

RETRY_SECONDS = {TOO_MANY: 1, UNAVAILABLE: 1}

_STATUSES: dict[type[Refusal], int] = {
    # How a call was written.
    InvalidInput: BAD_REQUEST,
    InvalidRecord: BAD_REQUEST,
    InvalidSignature: BAD_REQUEST,
    NotJson: BAD_REQUEST,
    JsonTooDeep: BAD_REQUEST,
    JsonTooLarge: TOO_LARGE,
    InvalidValue: UNFIT,
    ValueTooLarge: TOO_LARGE,
    ForeignTestCall: FORBIDDEN,
    StaleTestCall: FORBIDDEN,
    # How it is paid.
    payments.PaymentMissing: PAYMENT_REQUIRED,
    VoucherSignedByOther: PAYMENT_REQUIRED,
    vouchers.VoucherForOtherNetwork: PAYMENT_REQUIRED,
    vouchers.VoucherForOtherChannel: PAYMENT_REQUIRED,
    vouchers.VoucherTooOld: PAYMENT_REQUIRED,
    vouchers.VoucherAhead: PAYMENT_REQUIRED,
    tabs.VoucherPastDeposit: PAYMENT_REQUIRED,
    tabs.VoucherOutOfOrder: PAYMENT_REQUIRED,
    tabs.VoucherTooSmall: PAYMENT_REQUIRED,
    tabs.VoucherReplayed: PAYMENT_REQUIRED,
    tabs.VoucherMissing: PAYMENT_REQUIRED,
    tabs.VoucherAcknowledgesUnknown: PAYMENT_REQUIRED,
    tabs.AcknowledgementDue: PAYMENT_REQUIRED,
    tabs.UnknownSession: PAYMENT_REQUIRED,
    tabs.TooManySessions: PAYMENT_REQUIRED,
    tabs.TooManyCallsInFlight: TOO_MANY,
    tabs.SequenceTooOld: CONFLICT,
    tabs.ChannelIsClaiming: UNAVAILABLE,
    admission.ChannelUnknown: PAYMENT_REQUIRED,
    admission.ChannelOfOtherProvider: PAYMENT_REQUIRED,
    admission.ChannelForOtherService: PAYMENT_REQUIRED,
    admission.ChannelExpiresSoon: PAYMENT_REQUIRED,
    admission.ClaimUnderWay: UNAVAILABLE,
    admission.TooManyNewChannels: UNAVAILABLE,
    admission.TooManyChannels: UNAVAILABLE,
    admission.CallUndone: UNAVAILABLE,
    admission.CallInFlight: CONFLICT,
    admission.CallNotAnswered: NOT_FOUND,
    answers.AnswerForgotten: CONFLICT,
    answers.CallKeyReused: CONFLICT,
    # What happens here.
    journal.JournalFull: UNAVAILABLE,
    journal.JournalBroken: UNAVAILABLE,
    journal.JournalBusy: UNAVAILABLE,
    BooksBehind: UNAVAILABLE,
    driver.Overloaded: UNAVAILABLE,
    driver.ProgramDidNotStart: UNAVAILABLE,
    driver.SandboxUnavailable: UNAVAILABLE,
    driver.KindNotServed: UNAVAILABLE,
    driver.InputTooLarge: TOO_LARGE,
    driver.ProgramRefused: UNFIT,
    driver.ProgramTimedOut: TOO_LATE,
    driver.ProgramError: BAD_GATEWAY,
}
_known: dict[type[Refusal], int] = {}


def register(kind: type[Refusal], status: int) -> None:
    """Gives a kind of refusal its status; for the module that defines it."""
    _STATUSES[kind] = status


def http_status(refusal: Refusal) -> int:
    """The status of a refusal."""
    kind = type(refusal)
    status = _known.get(kind)
    if status is None:
        status = next((_STATUSES[base] for base in kind.__mro__ if base in _STATUSES), INTERNAL)
        _known[kind] = status
    return status
