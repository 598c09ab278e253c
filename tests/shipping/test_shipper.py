"""At least once, in order, and nothing held in memory: the shipper against a place that fails."""

from __future__ import annotations

import json
import shutil
import threading

import pytest

from mcp_fastguard import ToolRequest
from mcp_fastguard._fastguard import verify_log
from mcp_fastguard.shipping import ShipError
from mcp_fastguard.shipping.cursor import Cursor, cursor_file, held
from mcp_fastguard.shipping.shipper import FIRST_PAUSE, LONGEST_PAUSE, LONGEST_WISH
from shipping_support import LOG, Memory, drain, line, shipper, write_checkpoint, write_log

OTHER = "20261128T000001-8-00bb"


@pytest.fixture
def memory():
    return Memory()


def test_records_come_once_and_in_order_and_checkpoints_before_them(tmp_path, memory):
    log = write_log(tmp_path, records=5)
    note = write_checkpoint(log, 4)
    found = shipper(tmp_path, memory)

    drain(found)
    drain(found)

    assert memory.seqs == [0, 1, 2, 3, 4]
    first = memory.batches[0][0]
    assert (first.event_type, first.record["note"], first.seq) == ("checkpoint", note, None)
    assert memory.batches[0][1].line == line(0)


def test_cursor_of_an_earlier_process_goes_on_where_it_ended(tmp_path, memory):
    log = write_log(tmp_path, records=3)
    write_checkpoint(log, 3)
    drain(shipper(tmp_path, memory))
    write_log(tmp_path, records=2, first=3)
    write_checkpoint(log, 5)

    drain(shipper(tmp_path, memory))

    assert memory.seqs == [0, 1, 2, 3, 4]
    assert memory.checkpoints == [3, 5]


def test_batch_that_failed_is_sent_again(tmp_path, memory):
    write_log(tmp_path, records=3)
    found = shipper(tmp_path, memory)
    memory.failures = [ShipError("away")]

    assert found.step() > 0
    assert memory.seqs == []
    drain(found)

    assert memory.seqs == [0, 1, 2]


def test_batch_whose_answer_was_lost_comes_twice_with_the_same_names(tmp_path, memory):
    write_log(tmp_path, records=2)
    memory.loses_answers, memory.failures = True, [ShipError("away")]

    shipper(tmp_path, memory).step()
    drain(shipper(tmp_path, memory))

    names = [(item.log, item.seq) for batch in memory.batches for item in batch]
    assert names == [(LOG, 0), (LOG, 1)] * 2


def test_process_that_dies_between_the_answer_and_the_cursor_loses_nothing(tmp_path, memory, monkeypatch):
    write_log(tmp_path, records=2)

    class Killed(BaseException):
        pass

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Cursor, "write", killed)
        with pytest.raises(Killed):
            shipper(tmp_path, memory).step()
    drain(shipper(tmp_path, memory))

    assert memory.seqs == [0, 1, 0, 1]


def test_pauses_grow_to_a_bound_and_are_not_all_alike(tmp_path, memory):
    write_log(tmp_path)
    found = shipper(tmp_path, memory)
    memory.failures = [ShipError("away") for _ in range(40)]

    pauses = [found.step() for _ in range(40)]

    for number, pause in enumerate(pauses):
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2**number)
        assert longest / 2 <= pause <= longest
    assert len(set(pauses)) == len(pauses)


def test_place_that_names_a_time_gets_it_up_to_a_bound(tmp_path, memory):
    write_log(tmp_path)
    found = shipper(tmp_path, memory)
    memory.failures = [ShipError("busy", retry_after=120.0), ShipError("busy", retry_after=1e9)]

    assert found.step() == 120.0
    assert found.step() == LONGEST_WISH


def test_batch_that_was_too_much_is_halved_and_grows_again(tmp_path, memory):
    write_log(tmp_path, records=400)
    found = shipper(tmp_path, memory)
    memory.failures = [ShipError("large", is_too_much=True) for _ in range(3)]
    for _ in range(3):
        found.step()

    drain(found)

    assert [len(batch) for batch in memory.batches] == [12, 24, 48, 96, 100, 100, 20]
    assert memory.seqs == list(range(400))


def test_place_that_is_away_holds_no_more_than_a_batch(tmp_path, memory):
    """The log on disk is what waits: however much it is, a step reads one batch of it."""
    write_log(tmp_path, records=10_000)
    found = shipper(tmp_path, memory)
    memory.loses_answers, memory.failures = True, [ShipError("away") for _ in range(20)]

    for _ in range(20):
        found.step()

    assert {len(batch) for batch in memory.batches} == {memory.max_records}


def test_no_log_keeps_another_waiting(tmp_path, memory):
    write_log(tmp_path, records=1_000)
    write_log(tmp_path, records=2, name=OTHER)
    found = shipper(tmp_path, memory)

    found.step()
    found.step()

    assert {item.log for batch in memory.batches for item in batch} == {LOG, OTHER}


def test_log_of_another_process_is_followed_once_it_begins(tmp_path, memory):
    write_log(tmp_path, records=1)
    found = shipper(tmp_path, memory)
    drain(found)
    write_log(tmp_path, records=2, name=OTHER)

    drain(found)

    assert [(item.log, item.seq) for batch in memory.batches for item in batch] == [(LOG, 0), (OTHER, 0), (OTHER, 1)]


def test_places_of_logs_that_are_gone_are_forgotten(tmp_path, memory):
    log = write_log(tmp_path)
    found = shipper(tmp_path, memory)
    drain(found)
    shutil.rmtree(log)

    drain(found)

    assert Cursor.read(cursor_file(tmp_path, "test")).places == {}


def test_records_that_a_place_rejects_for_good_are_counted_and_said(tmp_path, memory, caplog):
    write_log(tmp_path, records=3)
    memory.rejected = 2

    drain(shipper(tmp_path, memory))

    cursor = Cursor.read(cursor_file(tmp_path, "test"))
    assert (cursor.shipped, cursor.rejected) == (3, 2)
    assert "2 of 3 records were refused for good" in caplog.text


def test_cursor_says_how_it_goes(tmp_path, memory):
    write_log(tmp_path, records=3)
    found = shipper(tmp_path, memory)
    memory.failures = [ShipError("the place is away")]
    found.step()
    cursor = Cursor.read(cursor_file(tmp_path, "test"))
    assert (cursor.failures, cursor.last_error, cursor.shipped) == (1, "the place is away", 0)

    drain(found)

    cursor = Cursor.read(cursor_file(tmp_path, "test"))
    assert (cursor.failures, cursor.last_error, cursor.shipped) == (0, None, 3)
    assert cursor.shipped_at == 1_795_824_000.0
    assert cursor_file(tmp_path, "test").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version":2,"places":{}}', '{"version":1,"places":{"a":[1,2,3,4,5,6,7]}}']
)
def test_file_that_is_no_cursor_ships_nothing(tmp_path, memory, text):
    write_log(tmp_path)
    file = cursor_file(tmp_path, "test")
    file.parent.mkdir()
    file.write_text(text)

    with pytest.raises(ShipError, match="cursor"):
        shipper(tmp_path, memory)


def test_cursor_is_held_by_one_shipper_alone(tmp_path, memory):
    write_log(tmp_path)
    found = shipper(tmp_path, memory)

    with held(cursor_file(tmp_path, "test")), pytest.raises(ShipError, match="another process"):
        found.run(threading.Event())
    found.drain()

    assert memory.seqs == [0, 1, 2, 3, 4]


def test_shipper_runs_until_it_is_stopped_and_closes_its_place(tmp_path, memory):
    write_log(tmp_path)
    stop = threading.Event()
    sent = memory.send

    def send(items):
        stop.set()
        return sent(items)

    memory.send = send
    shipper(tmp_path, memory).run(stop)

    assert memory.is_closed
    assert memory.seqs == [0, 1, 2, 3, 4]


def test_drain_ends_at_the_first_failure_and_says_it(tmp_path, memory):
    write_log(tmp_path)
    memory.failures = [ShipError("away")]

    with pytest.raises(ShipError, match="away"):
        shipper(tmp_path, memory).drain()


def test_log_that_cannot_be_read_is_a_failure_that_is_tried_again(tmp_path, memory, monkeypatch):
    write_log(tmp_path)
    found = shipper(tmp_path, memory)

    def broken(*_):
        raise OSError(5, "Input/output error", "000001.jsonl")

    with monkeypatch.context() as patched:
        patched.setattr("mcp_fastguard.shipping.shipper.read_on", broken)
        assert found.step() > 0
    assert "Input/output error" in Cursor.read(cursor_file(tmp_path, "test")).last_error
    drain(found)

    assert memory.seqs == [0, 1, 2, 3, 4]


def test_what_is_shipped_of_a_guard_proves_its_log(make_guard, config, issuer, tmp_path, memory):
    """Lines byte for byte, and a checkpoint that finds the log cut back: the guarantee of shipping."""
    guard = make_guard(audit={**config["audit"], "checkpoint_records": 1})
    for number in range(3):
        guard.check(ToolRequest.direct(tool="run_query", arguments={"sql": f"select {number} ü"}, token=issuer.token()))
    guard.close()
    log = guard.audit_folder
    drain(shipper(log.parent, memory))

    shipped = [item for batch in memory.batches for item in batch if item.log == log.name]
    [file] = log.glob("*.jsonl")
    assert [item.line for item in shipped if item.seq is not None] == file.read_text().splitlines()
    key = (log / "vkey").read_text().strip()
    note = [item.record["note"] for item in shipped if item.seq is None][-1]
    assert verify_log(log, key, note)[3] is None

    file.chmod(0o600)
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-2]))
    shutil.rmtree(log / "tile", ignore_errors=True)
    (log / "checkpoint").unlink()
    assert verify_log(log, key, note)[3] is not None


def test_shipped_checkpoint_fits_the_schema_of_the_records(tmp_path, memory):
    from jsonschema import Draft202012Validator

    from mcp_fastguard.audit import record_schema

    write_checkpoint(write_log(tmp_path), 5)
    drain(shipper(tmp_path, memory))

    Draft202012Validator(record_schema()).validate(json.loads(memory.batches[0][0].line))
