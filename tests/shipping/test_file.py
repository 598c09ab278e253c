"""Files for the agent of a SIEM."""

from __future__ import annotations

from mcp_fastguard.shipping.cursor import Cursor, cursor_file
from shipping_support import LOG, drain, line, shipper_to, write_log


def test_records_are_lines_of_a_file_per_log_and_day(tmp_path):
    write_log(tmp_path / "audit", records=2)

    drain(shipper_to(tmp_path / "audit", "file", path=tmp_path / "out"))

    [file] = [found for found in (tmp_path / "out").rglob("*") if found.is_file()]
    assert file == tmp_path / "out" / LOG / "2026-11-28.jsonl"
    assert file.read_text() == f"{line(0)}\n{line(1)}\n"
    assert file.stat().st_mode & 0o077 == 0


def test_line_that_an_interrupted_batch_left_half_is_cut_and_comes_whole(tmp_path):
    write_log(tmp_path / "audit", records=3)
    file = tmp_path / "out" / LOG / "2026-11-28.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text(f"{line(0)}\n{line(1)[:30]}")

    drain(shipper_to(tmp_path / "audit", "file", path=tmp_path / "out"))

    assert file.read_text().splitlines() == [line(0), line(0), line(1), line(2)]


def test_date_of_another_form_names_no_file_elsewhere(tmp_path):
    log = write_log(tmp_path / "audit", records=0)
    (log / "000001.jsonl").write_text(line(0, timestamp="../../../evil") + "\n")

    drain(shipper_to(tmp_path / "audit", "file", path=tmp_path / "out"))

    assert [found.name for found in (tmp_path / "out").rglob("*.jsonl")] == ["1970-01-01.jsonl"]
    assert not list(tmp_path.glob("*evil*"))


def test_folder_that_cannot_be_written_is_a_failure(tmp_path):
    write_log(tmp_path / "audit", records=1)
    (tmp_path / "out").write_text("a file")

    assert shipper_to(tmp_path / "audit", "file", path=tmp_path / "out").step() > 0
    assert Cursor.read(cursor_file(tmp_path / "audit", "test")).failures == 1
