"""Which version a bare name means: published, chosen again, and what serves until the chosen one runs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.market.fields import InvalidRecord
from openresource.market.services import (
    Version,
    VersionNotPublished,
    choice_record,
    read_version,
    version_before,
    version_that_serves,
)
from openresource.primitives.cids import file_cid
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey
from tests.market.small_chain import (
    NAME,
    OTHER_PROGRAM,
    PROGRAM,
    PUBLISHER,
    RECORD,
    SmallChain,
    published_chain,
    version_record,
)

SERVICE = f"/services/{PUBLISHER.address}/{NAME}"
CHOOSE = f"{SERVICE}/choose/{RECORD}"
THIRD_PROGRAM = file_cid(b"a third program")


def publish(chain: SmallChain, program: str, version: str) -> None:
    record = {"publisher": PUBLISHER.address, "name": NAME, "bytes": 9}
    chain.write(PUBLISHER, f"/programs/{program}", record)
    chain.write(PUBLISHER, f"{SERVICE}/versions/{program}", version_record(version=version))


def choose(chain: SmallChain, program: str, key: PrivateKey = PUBLISHER) -> None:
    chain.write(key, CHOOSE, choice_record(program))


def test_an_earlier_version_is_chosen_again_and_no_version_changes() -> None:
    chain = published_chain()
    publish(chain, OTHER_PROGRAM, "1.3.0")
    versions = dict(chain.get(f"{SERVICE}/versions"))
    choose(chain, PROGRAM)
    assert chain.get(f"{SERVICE}/latest") == PROGRAM
    assert chain.get(f"{SERVICE}/before") == OTHER_PROGRAM
    assert chain.get(f"{SERVICE}/versions") == versions
    assert chain.get(CHOOSE) is None


def test_a_version_that_is_published_after_a_rollback_gets_a_number_of_its_own() -> None:
    chain = published_chain()
    publish(chain, OTHER_PROGRAM, "1.3.0")
    choose(chain, PROGRAM)
    publish(chain, THIRD_PROGRAM, "1.4.0")
    numbers = [
        chain.get(f"{SERVICE}/versions/{one}/number") for one in (PROGRAM, OTHER_PROGRAM, THIRD_PROGRAM)
    ]
    assert numbers == [1, 2, 3]
    assert chain.get(f"{SERVICE}/latest") == THIRD_PROGRAM
    assert chain.get(f"{SERVICE}/before") == PROGRAM


def test_choosing_what_is_chosen_keeps_what_was_before() -> None:
    chain = published_chain()
    publish(chain, OTHER_PROGRAM, "1.3.0")
    choose(chain, OTHER_PROGRAM)
    assert (chain.get(f"{SERVICE}/latest"), chain.get(f"{SERVICE}/before")) == (OTHER_PROGRAM, PROGRAM)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (choice_record(OTHER_PROGRAM), VersionNotPublished),
        ({"program": "../latest"}, InvalidRecord),
        ({"program": PROGRAM, "more": 1}, InvalidRecord),
        ({}, InvalidRecord),
        (PROGRAM, InvalidRecord),
    ],
)
def test_what_was_never_published_cannot_be_chosen(value: Any, expected: type[Refusal]) -> None:
    chain = published_chain()
    before = repr(chain.state.values)
    with pytest.raises(expected):
        chain.write(PUBLISHER, CHOOSE, value)
    assert repr(chain.state.values) == before


def versions_of(*texts: str) -> dict[str, Version]:
    return {
        text: read_version(text, version_record(version=text, number=number))
        for number, text in enumerate(texts, start=1)
    }


ALL = versions_of("1.0.0", "1.1.0", "1.2.0", "1.3.0")


def serving(latest: str, before: str, *placed: str) -> str:
    found = version_that_serves(ALL, latest, before, placed)
    assert found is not None
    return found.version


def test_a_bare_name_means_the_chosen_version_wherever_somebody_runs_it() -> None:
    assert serving("1.3.0", "1.2.0", "1.2.0", "1.3.0") == "1.3.0"
    assert serving("1.1.0", "1.3.0", "1.1.0", "1.3.0") == "1.1.0"


def test_until_the_chosen_version_runs_the_one_before_it_serves() -> None:
    assert serving("1.3.0", "1.2.0", "1.0.0", "1.2.0") == "1.2.0"
    # After a rollback to 1.1.0 and a new release, the version that was rolled back does not come to light again.
    assert serving("1.3.0", "1.1.0", "1.1.0", "1.2.0") == "1.1.0"


def test_where_neither_runs_the_newest_that_runs_serves() -> None:
    assert serving("1.3.0", "1.2.0", "1.0.0", "1.1.0") == "1.1.0"
    assert serving("1.3.0", "1.2.0") == "1.3.0"


@given(st.sampled_from([*ALL]), st.sampled_from(["", *ALL]), st.sets(st.sampled_from([*ALL])))
def test_what_serves_runs_wherever_anything_runs(latest: str, before: str, placed: set[str]) -> None:
    found = version_that_serves(ALL, latest, before, placed)
    assert found is not None and found.version in (placed or {latest})


def before_of(latest: str, before: str) -> str | None:
    found = version_before(ALL, latest, before)
    return None if found is None else found.version


def test_a_rollback_leads_to_what_was_live_before_and_never_to_something_newer() -> None:
    assert before_of("1.3.0", "1.2.0") == "1.2.0"
    assert before_of("1.3.0", "1.1.0") == "1.1.0"
    # A second rollback goes further back, not forth again.
    assert before_of("1.2.0", "1.3.0") == "1.1.0"
    assert before_of("1.0.0", "1.1.0") is None
    assert before_of("1.1.0", "") == "1.0.0"
