"""What a write means to a person: the market's paths in words, everything else as what it is, a write to a path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from openresource.market.kills import APPEAL
from openresource.primitives.amounts import uain_of_number
from openresource.primitives.errors import Refusal
from openresource.primitives.numbers import is_number
from openresource.primitives.paths import parse_path
from openresource.web.shown import ain, short

DETAIL_CHARACTERS_MAX: Final = 160
PROGRAM_REGISTERED: Final = "Program registered"


@dataclass(frozen=True, slots=True)
class Deed:
    """A title, and a few words more."""

    title: str
    detail: str = ""


def deed_of(path: str, value: Any, kind: str = "SET_VALUE") -> Deed:
    """What writing a value at a path means."""
    labels = parse_path(path)
    if kind in _OTHER_KINDS:
        return Deed(_OTHER_KINDS[kind], path[:DETAIL_CHARACTERS_MAX])
    for pattern, describe in _DEEDS:
        if _fits(pattern, labels):
            deed = describe(labels, value if isinstance(value, Mapping) else {"": value})
            return Deed(deed.title, deed.detail[:DETAIL_CHARACTERS_MAX])
    title = "Value deleted" if value is None else "Value written"
    return Deed(title, path[:DETAIL_CHARACTERS_MAX])


def main_deed(deeds: Sequence[Deed]) -> Deed:
    """What a transaction of several writes is about: a program is registered for the sake of what follows."""
    telling = [deed for deed in deeds if deed.title != PROGRAM_REGISTERED]
    return (telling or list(deeds) or [Deed("Nothing written")])[0]


def _fits(pattern: str, labels: Sequence[str]) -> bool:
    wanted = pattern.split("/")
    return len(wanted) == len(labels) and all(
        one in ("*", label) for one, label in zip(wanted, labels, strict=True)
    )


Describe = Callable[[Sequence[str], Mapping[str, Any]], Deed]


def _transfer(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Transfer", f"{_coins(value.get(''))} from {short(labels[1])} to {short(labels[2])}")


def _coins(number: Any) -> str:
    """An amount as the tree keeps it, in words; what is no amount was refused anyhow."""
    try:
        return f"{ain(uain_of_number(number))} AIN" if is_number(number) else "coins"
    except Refusal:
        return "coins"


def _program(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed(PROGRAM_REGISTERED, f"{value.get('name') or ''} {short(labels[1])}".strip())


def _version(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Version published", f"{labels[2]} {value.get('version') or ''}".strip())


def _permissions(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Permissions set", labels[2])


def _chosen(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Version chosen", f"{labels[2]} {short(str(value.get('program') or ''))}".strip())


def _placement(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    words = {
        "OFFERED": "Offer announced",
        "PLACED": "Service placed",
        "REFUSED": "Service refused",
        "DRAINING": "Provider is leaving",
        "GONE": "Provider left",
    }
    title = words.get(str(value.get("status")), "Placement changed")
    return Deed(title, f"{labels[2]} by {short(labels[4])}")


def _open(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed(
        "Channel opened",
        f"{ain(value.get('deposit_uain'))} AIN for {value.get('name')} by {short(labels[1])}",
    )


def _add(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Added to a channel", f"{ain(value.get('amount_uain'))} AIN to {short(labels[2])}")


def _extend(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Channel extended", short(labels[2]))


def _claim(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    rest = ", the rest sent back" if value.get("send_back") is True else ""
    return Deed("Provider paid", f"{ain(value.get('amount_uain'))} AIN from {short(labels[2])}{rest}")


def _close(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Channel closed", f"{short(labels[2])} by {short(labels[1])}")


def _fund(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Hold funded", f"{ain(value.get('amount_uain'))} AIN for {labels[1]}")


def _lease(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Job taken", f"{short(labels[1])} by {short(labels[3])}")


def _asked(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed(
        "Job asked for",
        f"{value.get('name') or ''} by {short(labels[1])}, policy {value.get('policy')}".strip(),
    )


def _commit(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Result bound", f"job {short(labels[1])} by {short(labels[3])}")


def _reveal(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    title = "Result shown" if value.get("status") == "DONE" else "Failure shown"
    return Deed(title, f"job {short(labels[1])} by {short(labels[3])}")


def _secret(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Lot drawn", f"job {short(labels[1])}, with the secret of {short(labels[3])}")


def _job_key(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Input shared", f"job {short(labels[1])} with {short(labels[3])}")


def _dispute(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Result disputed", f"job {short(labels[1])} by {short(labels[3])}")


def _fault(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Fault shown", f"job {short(labels[1])} by {short(labels[3])}")


def _execution(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    title = "Job done" if value.get("status") == "DONE" else "Job failed"
    return Deed(title, f"{short(labels[1])} by {short(labels[3])}")


def _bond(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    title = "Bond raised" if labels[2] == "add" else "Bond withdrawn"
    return Deed(title, f"{ain(value.get('amount_uain'))} AIN, {short(labels[1])}")


def _machine(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    if _is_deleted(value):
        return Deed("Machine closed", short(labels[1]))
    name = value.get("name") or short(labels[1])
    return Deed("Machine opened", f"{name} {value.get('endpoint') or ''}".strip())


def _guest(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    title = "Guest shown out" if _is_deleted(value) else "Guest admitted"
    return Deed(title, f"{short(labels[3])}, machine {short(labels[1])}")


def _rental(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Machine rented", f"{short(labels[1])} for {value.get('minutes')} minutes")


def _shell_key(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Shell key taken back" if _is_deleted(value) else "Shell key vouched for", short(labels[1]))


def _renounced(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Service renounced", f"{labels[2]}: no new version, price or permission")


def _stake(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    title = "Stake raised" if labels[2] == "add" else "Stake withdrawn"
    return Deed(title, f"{ain(value.get('amount_uain'))} AIN, {short(labels[1])}")


def _ballot(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    title = "Appeal proposed" if value.get("deed") == APPEAL else "Stop proposed"
    return Deed(title, f"program {short(labels[1])}: {value.get('reason') or ''}".strip())


def _vote(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed(
        "Vote cast", f"{value.get('choice') or ''} by {short(labels[4])}, program {short(labels[1])}".strip()
    )


def _report(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Harm reported", f"program {short(labels[1])}: {value.get('reason') or ''}".strip())


def _report_answer(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("Report answered", f"program {short(labels[1])} by {short(labels[-2])}")


def _is_deleted(value: Mapping[str, Any]) -> bool:
    return value.get("", value) is None


def _app(labels: Sequence[str], value: Mapping[str, Any]) -> Deed:
    return Deed("App created", labels[1])


_DEEDS: Final[tuple[tuple[str, Describe], ...]] = (
    ("transfer/*/*/*/value", _transfer),
    ("programs/*", _program),
    ("services/*/*/versions/*", _version),
    ("services/*/*/permissions", _permissions),
    ("services/*/*/choose/*", _chosen),
    ("placements/*/*/*/*", _placement),
    ("channels/*/*/open", _open),
    ("channels/*/*/add/*", _add),
    ("channels/*/*/extend/*", _extend),
    ("channels/*/*/claim/*", _claim),
    ("channels/*/*/close/*", _close),
    ("holds/*/*/fund/*", _fund),
    ("job_requests/*/*", _asked),
    ("jobs/*/leases/*", _lease),
    ("jobs/*/commits/*", _commit),
    ("jobs/*/reveals/*", _reveal),
    ("jobs/*/secret/*", _secret),
    ("jobs/*/keys/*", _job_key),
    ("jobs/*/disputes/*/*", _dispute),
    ("jobs/*/faults/*/*", _fault),
    ("jobs/*/executions/*", _execution),
    ("services/*/*/renounced", _renounced),
    ("stakes/*/add/*", _stake),
    ("stakes/*/withdraw/*", _stake),
    ("kills/*/proposals/*", _ballot),
    ("kills/*/votes/*/*", _vote),
    ("reports/*/*/*/report", _report),
    ("reports/*/*/*", _report),
    ("reports/*/*/*/report/answers/*/*", _report_answer),
    ("reports/*/*/*/answers/*/*", _report_answer),
    ("bonds/*/add/*", _bond),
    ("bonds/*/withdraw/*", _bond),
    ("machines/*/offer", _machine),
    ("machines/*/guests/*", _guest),
    ("machines/*/rentals/*", _rental),
    ("ssh_keys/*/*", _shell_key),
    ("manage_app/*/create/*", _app),
)

_OTHER_KINDS: Final = {
    "SET_RULE": "Rule written",
    "SET_FUNCTION": "Function entry written",
    "SET_OWNER": "Owner entry written",
    "INC_VALUE": "Value increased",
    "DEC_VALUE": "Value decreased",
}
