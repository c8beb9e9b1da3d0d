"""A job as it is shown: its request, where it is, every execution, the verdict, and the verdict computed anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openresource.market.jobs.lifecycle import ACCEPTED, COMMITTED, FINAL, REASONS
from openresource.market.jobs.states import read_folded
from openresource.primitives.errors import Refusal


class JobUnknown(Refusal):
    template = "The chain knows no job {job}."
    way_out = "See yours: openresource job list"


class JobFailed(Refusal):
    template = "The job {job} ended {status}: {reason}."
    way_out = "Nothing was paid for it beyond what its verdict says: openresource job show {job}"


class JobNotInTime(Refusal):
    template = "The job {job} is not settled yet, and the time to wait for it is over."
    way_out = "It goes on without us: openresource job show {job}"


class OutputUnreadable(Refusal):
    template = "The output of {provider} for job {job} cannot be read: {reason}."
    way_out = "Sealed outputs are for the requester's wallet, and the store keeps them for about an hour."


@dataclass(frozen=True, slots=True)
class Output:
    """What a provider answered; a provisional one was checked by nobody yet."""

    value: Any
    provider: str
    digest: str
    is_final: bool


@dataclass(frozen=True, slots=True)
class JobView:
    """A job at one moment, as its records on the chain say."""

    job: str
    request: Mapping[str, Any]
    state: Mapping[str, Any]
    executions: Mapping[str, Mapping[str, Any]]
    verdict: Mapping[str, Any] | None
    keys: Mapping[str, Any]
    # The one record that is left of a job that was settled long ago.
    folded: Mapping[str, Any] | None
    # All of it, as it stands at /jobs/<job>.
    record: Mapping[str, Any]

    @property
    def status(self) -> str:
        return str((self.folded or self.state).get("status", ""))

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def is_accepted(self) -> bool:
        return self.status == ACCEPTED

    @property
    def reason(self) -> str:
        """Why it ended as it did, in words."""
        found = str(self.state.get("reason") or (self.verdict or {}).get("ground") or "")
        return REASONS.get(found, found) or "no reason was given"

    @property
    def requester(self) -> str:
        return str(self.request.get("requester", ""))

    @property
    def publisher(self) -> str:
        return str(self.request.get("publisher", ""))

    @property
    def name(self) -> str:
        return str(self.request.get("name", ""))

    @property
    def program(self) -> str:
        return str(self.request.get("program", ""))

    @property
    def policy(self) -> str:
        return str(self.request.get("policy", "one"))

    @property
    def requested_at_ms(self) -> int:
        return int(self.request.get("requested_at_ms") or (self.folded or {}).get("requested_at_ms") or 0)

    @property
    def paid_uain(self) -> int:
        return int((self.folded or self.state).get("paid_uain") or 0)

    @property
    def early(self) -> list[str]:
        """Providers whose result may be read already, in the order in which they were bound to it."""
        bound = [
            (int(run.get("committed_at_ms") or run.get("revealed_at_ms") or 0), provider)
            for provider, run in self.executions.items()
            if "output_cid" in run or "output" in run
        ]
        return [provider for _, provider in sorted(bound)]

    @property
    def winners(self) -> list[str]:
        """Whose results the verdict accepts, those who worked before those who checked."""
        named = (self.verdict or {}).get("winners")
        winners = list(named) if isinstance(named, Mapping) else []
        if not winners and isinstance(self.state.get("provider"), str):
            winners = [self.state["provider"]]
        roles = {provider: str(run.get("role", "worker")) for provider, run in self.executions.items()}
        return sorted(
            (one for one in winners if one in self.executions), key=lambda one: roles[one] != "worker"
        )

    @property
    def executors_without_key(self) -> set[str]:
        """Who holds a lease and may need the input's key from its requester."""
        if "input_cid" not in self.request or self.is_final:
            return set()
        waiting = {
            provider
            for provider, run in self.executions.items()
            if not run.get("commitment") and not run.get("is_over")
        }
        return waiting - set(self.keys)

    @property
    def wants_secret(self) -> bool:
        """Whether the draw waits for its requester."""
        return self.status == COMMITTED and "secret_hash" in self.request

    @property
    def committed_height(self) -> int:
        """The block in which the work was bound; its beacon draws."""
        return int(self.state.get("committed_height") or 0)

    @property
    def marks(self) -> tuple[Any, ...]:
        """What differs when anything about it has changed that somebody waits for."""
        runs = tuple(
            (provider, *(run.get(mark) for mark in ("commitment", "revealed_at_ms", "is_over", "is_late")))
            for provider, run in sorted(self.executions.items())
        )
        return (self.status, runs, len(self.keys))


@dataclass(frozen=True, slots=True)
class JobResult:
    """An accepted job: the output that its verdict stands for."""

    output: Output
    view: JobView

    @property
    def value(self) -> Any:
        return self.output.value


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict computed anew from the chain alone; `matches` is whether it is the one that was written."""

    job: str
    lines: tuple[str, ...]
    verdict: Mapping[str, Any]
    matches: bool
    height: int


def view_of(job: str, record: Mapping[str, Any]) -> JobView:
    """A job from its records."""
    folded = record.get("folded")
    keys, executions = record.get("keys"), record.get("executions")
    verdict = record.get("judgement") or record.get("verdict")
    return JobView(
        job,
        _mapping(record.get("request")),
        _mapping(record.get("state")),
        {provider: run for provider, run in _mapping(executions).items() if isinstance(run, Mapping)},
        verdict if isinstance(verdict, Mapping) else None,
        _mapping(keys),
        read_folded(folded) if isinstance(folded, str) else None,
        record,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
