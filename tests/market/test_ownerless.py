"""Services that nobody owns any more, forks that keep their lineage, and reports that stay for everybody to read."""

from __future__ import annotations

import pytest

from openresource.market.fields import InvalidRecord
from openresource.market.manifests import InvalidManifest, parse_manifest
from openresource.market.programs import ProgramNotRegistered
from openresource.market.reports import REPORTS_MAX, ReportMissing, TooManyReports
from openresource.market.services import (
    ForkSource,
    ForkSourceMissing,
    ServiceRenounced,
    VersionNotPublished,
    fork_source_text,
    parse_fork_source,
    read_version,
)
from openresource.market.services import (
    version_record as record_of,
)
from openresource.primitives.cids import file_cid
from tests.market.small_chain import (
    BUYER,
    CHANNEL_PATH,
    NAME,
    OTHER_PROGRAM,
    PLACEMENT_PATH,
    PROGRAM,
    PROVIDER,
    PUBLISHER,
    STRANGER,
    VERSION_PATH,
    SmallChain,
    opening,
    placement,
    published_chain,
    version_record,
)
from tests.market.test_natives import refused

SERVICE = f"/services/{PUBLISHER.address}/{NAME}"
RENOUNCED = f"{SERVICE}/renounced"
KEY = "aa" * 8
EVIDENCE = file_cid(b"what it did")


def renounced_chain() -> SmallChain:
    chain = published_chain()
    second = {"publisher": PUBLISHER.address, "name": NAME, "bytes": 9}
    chain.write(PUBLISHER, f"/programs/{OTHER_PROGRAM}", second)
    chain.write(PUBLISHER, RENOUNCED, {"program": PROGRAM})
    return chain


def test_a_renounced_service_refuses_every_change_and_still_runs() -> None:
    chain = renounced_chain()
    assert chain.get(RENOUNCED) == {"program": PROGRAM, "at_ms": chain.at}
    newer = f"{SERVICE}/versions/{OTHER_PROGRAM}"
    refused(chain, ServiceRenounced, PUBLISHER, newer, version_record(version="1.3.0"))
    refused(chain, ServiceRenounced, PUBLISHER, f"{SERVICE}/choose/{KEY}", {"program": PROGRAM})
    refused(chain, ServiceRenounced, PUBLISHER, f"{SERVICE}/permissions", {"call": {"everyone": False}})
    refused(chain, ServiceRenounced, PUBLISHER, f"{SERVICE}/permissions", None)
    refused(chain, ServiceRenounced, PUBLISHER, RENOUNCED, {"program": PROGRAM})
    refused(chain, ServiceRenounced, PUBLISHER, RENOUNCED, None)
    chain.write(PROVIDER, PLACEMENT_PATH, placement(600))
    by_other = f"/placements/{PUBLISHER.address}/{NAME}/{PROGRAM}/{STRANGER.address}"
    chain.write(STRANGER, by_other, {"status": "OFFERED"})
    chain.write(BUYER, f"{CHANNEL_PATH}/open", opening())


def test_who_renounces_names_what_the_service_means_now() -> None:
    chain = published_chain()
    refused(chain, VersionNotPublished, PUBLISHER, RENOUNCED, {"program": OTHER_PROGRAM})
    refused(chain, InvalidRecord, PUBLISHER, RENOUNCED, {})
    refused(chain, InvalidRecord, PUBLISHER, RENOUNCED, {"program": PROGRAM, "more": 1})
    nothing = f"/services/{PUBLISHER.address}/other/renounced"
    refused(chain, VersionNotPublished, PUBLISHER, nothing, {"program": PROGRAM})


def test_a_fork_names_a_version_that_is_there_and_is_listed_with_its_source() -> None:
    chain = published_chain()
    source = {"publisher": PUBLISHER.address, "name": NAME, "program": PROGRAM}
    chain.write(STRANGER, f"/programs/{OTHER_PROGRAM}", {
        "publisher": STRANGER.address, "name": "better", "bytes": 9, "parent": PROGRAM,
    })  # fmt: skip
    path = f"/services/{STRANGER.address}/better/versions/{OTHER_PROGRAM}"
    missing = source | {"program": OTHER_PROGRAM}
    refused(chain, ForkSourceMissing, STRANGER, path, version_record(fork_of=missing))
    refused(chain, InvalidRecord, STRANGER, path, version_record(fork_of=source | {"more": 1}))
    refused(chain, InvalidRecord, STRANGER, path, version_record(fork_of=source | {"name": "No Name"}))
    chain.write(STRANGER, path, version_record(fork_of=source))
    version = read_version(OTHER_PROGRAM, chain.get(path))
    assert version.fork_of == ForkSource(PUBLISHER.address, NAME, PROGRAM)
    assert record_of(version)["fork_of"] == source
    forks = chain.get(f"/forks/{PUBLISHER.address}/{NAME}")
    assert forks == {STRANGER.address: {"better": PROGRAM}}
    # The source itself has not changed by it.
    assert "forks" not in chain.get(SERVICE)


def test_a_service_is_no_fork_of_itself() -> None:
    chain = renounced_chain()
    source = {"publisher": PUBLISHER.address, "name": NAME, "program": PROGRAM}
    again = f"/services/{PUBLISHER.address}/again/versions/{OTHER_PROGRAM}"
    chain.write(PUBLISHER, again, version_record(fork_of=source))
    own = source | {"name": "again", "program": OTHER_PROGRAM}
    third = file_cid(b"a third program")
    chain.write(
        PUBLISHER, f"/programs/{third}", {"publisher": PUBLISHER.address, "name": "again", "bytes": 9}
    )
    path = f"/services/{PUBLISHER.address}/again/versions/{third}"
    refused(chain, ForkSourceMissing, PUBLISHER, path, version_record(version="1.3.0", fork_of=own))


def test_a_source_is_one_text_in_a_manifest() -> None:
    source = ForkSource(PUBLISHER.address, NAME, PROGRAM)
    assert parse_fork_source(fork_source_text(source)) == source
    for text in ("", NAME, f"{PUBLISHER.address}/{NAME}", f"{PUBLISHER.address}/{NAME}@1.0.0", f"@{PROGRAM}"):
        assert parse_fork_source(text) is None


def report_path(number: int = 0, reporter: str = BUYER.address) -> str:
    return f"/reports/{PROGRAM}/{reporter}/{number:016x}/report"


def test_a_report_stays_with_its_time_and_its_publisher_may_answer() -> None:
    chain = published_chain()
    assert chain.get(VERSION_PATH) is not None
    chain.write(BUYER, report_path(), {"reason": "it sends what it reads elsewhere", "evidence": EVIDENCE})
    assert chain.get(report_path())["at_ms"] == chain.at
    answers = report_path().removesuffix("report") + "answers"
    answer = f"{answers}/{PUBLISHER.address}/{NAME}"
    chain.write(PUBLISHER, answer, {"reason": "it cannot: it has no network"})
    assert chain.get(answer)["reason"] == "it cannot: it has no network"
    refused(
        chain, VersionNotPublished, STRANGER, f"{answers}/{STRANGER.address}/{NAME}", {"reason": "me too"}
    )
    nowhere = report_path(9).removesuffix("report") + f"answers/{PUBLISHER.address}/{NAME}"
    refused(chain, ReportMissing, PUBLISHER, nowhere, {"reason": "which?"})
    chain.write(BUYER, report_path(), None)
    assert chain.get(f"/reports/{PROGRAM}") is None


def test_reports_have_a_form_and_a_bound() -> None:
    chain = published_chain()
    refused(chain, InvalidRecord, BUYER, report_path(), {"reason": ""})
    refused(chain, InvalidRecord, BUYER, report_path(), {"reason": "x" * 501})
    refused(chain, InvalidRecord, BUYER, report_path(), {"reason": "x", "evidence": "here"})
    refused(chain, InvalidRecord, BUYER, report_path(0, BUYER.address.lower()), {"reason": "x"})
    unknown = report_path().replace(PROGRAM, OTHER_PROGRAM)
    refused(chain, ProgramNotRegistered, BUYER, unknown, {"reason": "x"})
    for number in range(REPORTS_MAX):
        chain.write(BUYER, report_path(number), {"reason": "x"})
    refused(chain, TooManyReports, BUYER, report_path(REPORTS_MAX), {"reason": "x"})
    chain.write(STRANGER, report_path(0, STRANGER.address), {"reason": "x"})


def test_a_manifest_carries_its_source_and_refuses_what_is_none() -> None:
    source = fork_source_text(ForkSource(PUBLISHER.address, NAME, PROGRAM))
    text = 'name = "better"\nfork_of = "{}"\n[run]\nkind = "python"\nentry = "program:answer"\n'
    assert parse_manifest(text.format(source)).fork_of == source
    assert parse_manifest(text.format(source).replace("fork_of", "summary")).fork_of == ""
    with pytest.raises(InvalidManifest) as refusal:
        parse_manifest(text.format("translate"))
    assert "fork_of" in refusal.value.message
