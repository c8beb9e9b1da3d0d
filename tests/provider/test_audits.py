"""The audit trail: it grows, survives a crash, and shows when somebody changes what was written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.provider import audits
from openresource.provider.audits import BEGINNING, Audit, AuditBroken, TypedLines, entries_of, verify


def opened(folder: Path) -> Audit:
    audit = Audit(folder, lambda: 1_000)
    audit.open()
    return audit


def test_a_trail_goes_on_where_it_ended(tmp_path: Path) -> None:
    audit = opened(tmp_path)
    assert (audit.entries, audit.digest) == (0, BEGINNING)
    audit.write("enter", is_lasting=True, address="0x1", command="ls")
    audit.write("exit", exit_code=0)
    audit.close()
    again = opened(tmp_path)
    assert (again.entries, again.digest) == (2, audit.digest) == verify(again.path)
    again.write("closed")
    again.close()
    assert [entry["event"] for entry in entries_of(again.path)] == ["enter", "exit", "closed"]
    assert oct(again.path.stat().st_mode & 0o777) == "0o600"


def test_a_line_that_a_crash_has_torn_is_cut_and_told(tmp_path: Path) -> None:
    audit = opened(tmp_path)
    audit.write("enter")
    audit.close()
    with audit.path.open("ab") as file:
        file.write(b'{"entry": "{half')
    again = opened(tmp_path)
    again.close()
    assert [entry["event"] for entry in entries_of(again.path)] == ["enter", "torn"]
    verify(again.path)


@pytest.mark.parametrize("change", [("one", "won"), ('"at_ms', '"at_mz'), ("digest", "digezt")])
def test_a_change_is_seen_at_its_line(tmp_path: Path, change: tuple[str, str]) -> None:
    audit = opened(tmp_path)
    for name in ("zero", "one", "two"):
        audit.write("typed", line=name)
    audit.close()
    text = audit.path.read_text()
    audit.path.write_text(text.replace(*change))
    with pytest.raises(AuditBroken):
        verify(audit.path)
    # A line that is missing breaks the next one.
    lines = text.splitlines(keepends=True)
    audit.path.write_text(lines[0] + lines[2])
    with pytest.raises(AuditBroken) as broken:
        verify(audit.path)
    assert broken.value.facts["line"] == 2
    with pytest.raises(AuditBroken):
        opened(tmp_path)


def test_a_full_file_is_turned_over_and_the_chain_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "FILE_BYTES_MAX", 2_000)
    monkeypatch.setattr(audits, "FILES_KEPT", 3)
    audit = opened(tmp_path)
    for number in range(60):
        audit.write("typed", line=f"line {number}")
    audit.close()
    files = sorted(tmp_path.glob("audit*.jsonl"))
    assert 2 <= len(files) <= 4
    for file in files:
        verify(file)
    first = entries_of(audit.path)[0]
    before = max(tmp_path.glob("audit-*.jsonl"), key=lambda file: int(file.stem.partition("-")[2]))
    assert first["event"] == "continued" and first["digest"] == verify(before)[1]


@pytest.mark.parametrize(
    ("typed", "lines"),
    [
        (b"ls -la\r", ["ls -la"]),
        (b"sl\x7f\x7fls\r\r", ["ls"]),
        (b"rm x\x03ls\n", ["ls"]),
        (b"rm x\x15ls\r", ["ls"]),
        (b"\x1b[A\x1b[1;5Cls\x1bOA\x1bb\r", ["ls"]),
        ("größe\r".encode(), ["größe"]),
        (b"one\rtwo\rthree", ["one", "two"]),
    ],
)
def test_typed_lines_are_what_was_meant(typed: bytes, lines: list[str]) -> None:
    assert TypedLines().feed(typed) == lines


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_whatever_is_typed_lines_are_whole_however_it_arrives(parts: list[bytes]) -> None:
    whole, split = TypedLines(), TypedLines()
    lines = [line for part in parts for line in split.feed(part)]
    assert whole.feed(b"".join(parts)) == lines
    assert all(len(line) <= TypedLines.CHARACTERS_MAX for line in lines)
