"""Logs are read while they are written."""

from __future__ import annotations

import os

from mcp_fastguard._fastguard import verify_log
from mcp_fastguard.shipping.follow import Place, checkpoint_of, log_folders, read_on, waiting
from shipping_support import LOG, line, write_checkpoint, write_log


def seqs(lines):
    return [found.seq for found in lines]


def test_lines_of_several_files_come_in_their_order_and_once(tmp_path):
    write_log(tmp_path, records=3)
    log = write_log(tmp_path, records=2, first=3, file=2)

    lines, place = read_on(log, Place(), 100, 10_000)
    again, same = read_on(log, place, 100, 10_000)

    assert seqs(lines) == [0, 1, 2, 3, 4]
    assert lines[0].text == line(0).encode()
    assert (again, same) == ([], place)


def test_half_written_line_waits_for_its_end(tmp_path):
    log = write_log(tmp_path, records=1)
    file = log / "000001.jsonl"
    text = line(1)
    with file.open("a") as opened:
        opened.write(text[:20])
    lines, place = read_on(log, Place(), 100, 10_000)
    assert seqs(lines) == [0]

    with file.open("a") as opened:
        opened.write(text[20:] + "\n")
    lines, _ = read_on(log, place, 100, 10_000)

    assert [found.text.decode() for found in lines] == [text]


def test_torn_end_of_a_file_is_passed_over_once_there_is_a_next_one(tmp_path):
    log = write_log(tmp_path, records=2)
    with (log / "000001.jsonl").open("a") as opened:
        opened.write('{"seq":2,"half')
    _, place = read_on(log, Place(), 100, 10_000)
    write_log(tmp_path, records=2, first=2, file=2)

    lines, _ = read_on(log, place, 100, 10_000)

    assert seqs(lines) == [2, 3]


def test_batch_is_bounded_by_lines_and_by_bytes_and_never_empty(tmp_path):
    log = write_log(tmp_path, records=50)
    length = len(line(0))

    assert seqs(read_on(log, Place(), 7, 10_000)[0]) == list(range(7))
    assert seqs(read_on(log, Place(), 100, length * 3)[0]) == [0, 1, 2]
    assert seqs(read_on(log, Place(), 100, 1)[0]) == [0]


def test_file_that_was_cut_or_replaced_is_read_again(tmp_path, caplog):
    log = write_log(tmp_path, records=3)
    file = log / "000001.jsonl"
    _, place = read_on(log, Place(), 100, 10_000)

    os.truncate(file, len(line(0)) + 1)
    lines, place = read_on(log, place, 100, 10_000)
    assert seqs(lines) == [0]

    write_log(tmp_path, records=1, first=1)
    lines, place = read_on(log, place, 100, 10_000)
    assert seqs(lines) == [1]

    other = log / "other"
    other.write_bytes(file.read_bytes() + line(2).encode() + b"\n")
    other.replace(file)
    assert seqs(read_on(log, place, 100, 10_000)[0]) == [0, 1, 2]
    assert caplog.text.count("cut or replaced") == 2


def test_line_that_is_no_record_is_passed_over_and_said(tmp_path, caplog):
    log = write_log(tmp_path, records=1)
    with (log / "000001.jsonl").open("ab") as opened:
        opened.write(b"\0\0\0\n" + line(1).encode() + b"\n")

    assert seqs(read_on(log, Place(), 100, 10_000)[0]) == [0, 1]
    assert "no record" in caplog.text


def test_log_is_done_once_its_seal_and_the_last_checkpoint_were_read(tmp_path):
    log = write_log(tmp_path, records=2)
    with (log / "000001.jsonl").open("a") as opened:
        opened.write('{"seq":2,"timestamp":"2026-11-28T00:00:00.125Z","event_type":"log_sealed"}\n')
    _, place = read_on(log, Place(), 100, 10_000)
    assert (place.is_sealed, place.is_done) == (True, False)

    write_checkpoint(log, 3)
    found = checkpoint_of(log)

    assert found is not None
    assert place._replace(checkpoint=found.records).is_done


def test_folders_of_logs_are_those_with_files_of_logs(tmp_path):
    assert log_folders(tmp_path / "nowhere") == []
    write_log(tmp_path)
    (tmp_path / "ship").mkdir()
    (tmp_path / "ship" / "test.json").write_text("{}")
    (tmp_path / "key").write_text("0")

    assert [log.name for log in log_folders(tmp_path)] == [LOG]


def test_checkpoint_that_cannot_be_read_is_none(tmp_path):
    log = write_log(tmp_path)
    assert checkpoint_of(log) is None
    (log / "checkpoint").write_text("half")
    assert checkpoint_of(log) is None


def test_waiting_bytes_are_those_after_the_place(tmp_path):
    log = write_log(tmp_path, records=2)
    write_log(tmp_path, records=1, first=2, file=2)
    length = len(line(0)) + 1
    _, place = read_on(log, Place(), 1, 10_000)

    assert waiting(log, Place())[0] == 3 * length
    assert waiting(log, place) == (2 * length, line(1).encode() + b"\n")
    assert waiting(log, read_on(log, Place(), 9, 10_000)[1]) == (0, b"")


def test_log_of_a_guard_is_read_through_its_rotations(make_guard, config, issuer):
    from mcp_fastguard import ToolRequest

    guard = make_guard(
        audit={**config["audit"], "max_file_bytes": 65_536},
        limits={"rules": [{"per": "principal", "quota": "1000000/minute"}]},
    )
    token, place, found = issuer.token(), Place(), []
    for number in range(300):
        guard.check(ToolRequest.direct(tool="run_query", arguments={"sql": "x" * 400}, token=token))
        if number % 50 == 0:
            guard.flush()
            lines, place = read_on(guard.audit_folder, place, 40, 1_000_000)
            found += lines
    guard.close()
    lines, place = read_on(guard.audit_folder, place, 10_000, 100_000_000)
    found += lines

    assert len(list(guard.audit_folder.glob("*.jsonl"))) > 2
    assert seqs(found) == list(range(verify_log(guard.audit_folder)[0]))
    assert place.is_sealed
