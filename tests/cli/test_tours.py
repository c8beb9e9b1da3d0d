"""What `up` shows of a service is data beside it, and wrong data is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from openresource.cli.liars import key_for
from openresource.cli.tours import TourInvalid, find_tours, read_tour
from openresource.cli.up import samples_folder
from openresource.client.releases import read_release
from openresource.market.jobs.draws import Candidate, lease_seed, ranking
from openresource.market.jobs.requests import asked_job_id
from tests.cli.support import write_program


def test_a_tour_names_title_providers_calls_and_trigger(tmp_path: Path) -> None:
    folder = write_program(tmp_path / "shout")
    (folder / "letter.json").write_text('{"text": "from a file"}')
    (folder / "demo.toml").write_text(
        'title = "Shout"\nproviders = [2]\n'
        '[[calls]]\nmethod = "shout"\nsay = "a word"\ninput = {text = "a"}\n'
        '[[calls]]\nmethod = "shout"\ninput_file = "letter.json"\n'
        '[trigger]\nmethod = "shout"\nvalue = "note"\n'
    )
    tour = read_tour(folder)
    assert (tour.title, tour.providers) == ("Shout", (2,))
    assert [call.input for call in tour.calls] == [{"text": "a"}, {"text": "from a file"}]
    assert tour.trigger is not None and tour.trigger.value == "note"


def test_a_job_is_shown_at_all_three_providers_and_by_audit_unless_it_says_otherwise(tmp_path: Path) -> None:
    folder = write_program(tmp_path / "shout")
    (folder / "demo.toml").write_text('[job]\nmethod = "shout"\ninput = {text = "a"}\n')
    tour = read_tour(folder)
    assert tour.providers == (1, 2, 3)
    assert tour.job is not None and (tour.job.method, tour.job.policy) == ("shout", "audited:1")


def test_a_key_is_found_that_gives_a_provider_the_first_turn() -> None:
    requester, providers = "0x" + "1" * 40, [f"0x{digit * 40}" for digit in "234"]
    keys = (f"{number:032x}" for number in range(1_000))
    for provider in providers:
        key = key_for(requester, provider, providers, lambda: next(keys))
        turns = ranking(lease_seed(asked_job_id(requester, key)), [Candidate(one, 2) for one in providers])
        assert turns[0] == provider


def test_a_folder_without_a_tour_is_only_published(tmp_path: Path) -> None:
    tour = read_tour(write_program(tmp_path / "shout"))
    assert tour.title == "shout" and not tour.calls and tour.trigger is None


def test_a_folder_of_folders_counts_for_what_is_in_it(tmp_path: Path) -> None:
    write_program(tmp_path / "b")
    write_program(tmp_path / "a")
    (tmp_path / "notes").mkdir()
    assert [tour.folder.name for tour in find_tours([tmp_path])] == ["a", "b"]


def test_a_folder_without_a_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TourInvalid):
        find_tours([tmp_path])


@pytest.mark.parametrize(
    "text",
    [
        "title = ",
        'tilte = "x"',
        "providers = [4]",
        "providers = []",
        '[[calls]]\nsay = "x"\ninput = {}',
        '[[calls]]\nmethod = "m"\ninput = ["x"]',
        "[trigger]\nvalue = 1",
        '[job]\nmethod = "m"\ninput = {}\npolicy = "all"',
        '[job]\nmethod = "m"',
        "job = 1",
    ],
)
def test_a_tour_that_is_not_of_the_form_is_refused(tmp_path: Path, text: str) -> None:
    folder = write_program(tmp_path / "shout")
    (folder / "demo.toml").write_text(text)
    with pytest.raises(TourInvalid) as caught:
        read_tour(folder)
    assert "demo.toml" in caught.value.message


def test_every_packaged_sample_and_example_has_a_tour() -> None:
    examples = Path(__file__).parents[2] / "examples"
    for tour in find_tours([samples_folder(), examples]):
        # The services that only greet show how a language is published; there is nothing to see. One that calls others
        # is called with an allowance, which the journey gives to nobody.
        manifest = read_release(tour.folder).manifest
        assert tour.calls or tour.folder.name.startswith("hello-") or manifest.calls is not None, tour.folder
