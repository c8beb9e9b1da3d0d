"""Links that lead to one place while a build is looked at, and to another once its result has been moved."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openresource.builds.building import _lock_digest
from openresource.builds.trees import FilesTooLarge, FoldersTooDeep, adopt
from openresource.builds.workshop import BuildFailed, BuildLimits
from tests.builds.support import made, workshop
from tests.builds.test_builds_abuse import attack

pytestmark = pytest.mark.timeout(300)

# Beside the work folder lies what the result is called later: there the way up is long, after the move it is short.
TRICK = """
import os
os.makedirs('../home/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16')
os.makedirs('../content')
os.symlink('../home/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16', '../content/d')
os.makedirs('d')
os.makedirs('../home/1/etc')
open('../home/1/etc/passwd', 'w').write('harmless')
os.symlink('../content/d/' + '../' * 15 + 'etc/passwd', 'escaped')
"""


def test_links_never_leave_the_folder_on_their_way(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "file").write_text("x")
    links = {
        "good": "a/b/../file",
        "a/up": "../a/file",
        "dangling": "a/nothing",
        "out and in": "../folder/a/file",
        "over what is missing": "a/nothing/../file",
        "a/b/far": "../../../folder/a",
        "absolute": str(folder / "a" / "file"),
        "loop": "loop",
        "through": "absolute/../b",
    }
    for name, text in links.items():
        os.symlink(text, folder / name)
    removed = set(adopt(folder))
    assert removed == {"out and in", "over what is missing", "a/b/far", "absolute", "loop", "through"}


@pytest.mark.sandbox
def test_files_of_holes_are_counted_as_long_as_they_are_to_read(tmp_path: Path) -> None:
    script = (
        "for number in range(4):\n    with open(f'hole{number}', 'wb') as file: file.truncate(60 << 20)\n"
    )
    with pytest.raises(FilesTooLarge):
        made(
            attack(tmp_path, script), workshop(tmp_path, limits=BuildLimits(seconds=60, disk_bytes=200 << 20))
        )


@pytest.mark.sandbox
def test_folders_are_not_nested_without_end(tmp_path: Path) -> None:
    script = "import os\nfor _ in range(1500):\n    os.mkdir('d'); os.chdir('d')\n"
    with pytest.raises(FoldersTooDeep):
        made(attack(tmp_path, script), workshop(tmp_path))


@pytest.mark.parametrize("report", ["no json", "[]", '{"install": [{}]}', "[" * 100_000, '{"install": [1]}'])
def test_a_report_that_packages_have_written_is_not_believed(tmp_path: Path, report: str) -> None:
    (tmp_path / "report.json").write_text(report)
    with pytest.raises(BuildFailed, match="cannot be read"):
        _lock_digest(tmp_path)


@pytest.mark.sandbox
def test_a_link_that_leads_elsewhere_after_the_move_is_not_kept(tmp_path: Path) -> None:
    built = made(attack(tmp_path, TRICK), workshop(tmp_path))
    assert not (built.folder / "escaped").is_symlink()
    for path in built.folder.rglob("*"):
        assert Path(os.path.realpath(path)).is_relative_to(os.path.realpath(built.folder)), path


@pytest.mark.sandbox
@pytest.mark.parametrize("script", ["os.rename('../out', '../old'); os.symlink('home', '../out')",
                                    "os.rename('../work', '../old'); os.symlink('old', '../work')"])  # fmt: skip
def test_a_result_is_a_folder_of_its_own(tmp_path: Path, script: str) -> None:
    with pytest.raises(BuildFailed, match="something else in the place"):
        made(attack(tmp_path, f"import os\n{script}\n"), workshop(tmp_path))
