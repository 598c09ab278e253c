"""What a guard needs from outside and does not get: no call passes, and nothing is lost in silence."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mcp_fastguard import GuardConfig, GuardFault, ToolRequest, keys
from mcp_fastguard.parking import park
from mcp_fastguard.revocations import Entry


def asked(issuer):
    return ToolRequest.direct(tool="add", arguments={}, token=issuer.token())


def code(work, *arguments):
    with pytest.raises(GuardFault) as raised:
        work(*arguments)
    return raised.value.code


def test_reload_whose_fetching_cannot_begin_is_said_and_the_next_call_begins_it(guard, issuer, caplog, monkeypatch):
    guard.start()

    def none():
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(keys, "key_service", none)
        guard.reload()
        assert "start_failed: what asks issuers and other processes could not be started" in caplog.text
        assert code(asyncio.run, guard.authorize(asked(issuer))) == "start_failed"

    assert asyncio.run(guard.authorize(asked(issuer))).subject == "alice"


def test_need_that_nobody_answers_is_left_to_the_gate(make_guard, issuer):
    table = {"issuer": issuer.issuer, "jwks_uri": f"{issuer.issuer}/jwks", "algorithms": ["ES256"]}
    guard = make_guard(issuers=[table])
    waiting = guard.gate.decide(asked(issuer), observes=False, ends=False, now=None)
    guard.close()

    # Nothing was started, so nobody fetches.
    assert asyncio.run(guard._outside.answer(waiting)) is None


def test_entry_that_nobody_tells_is_a_fault(guard):
    assert code(guard._outside.tell, Entry("block", 0.0, tool="add")) == "revocation_untold"


def test_guard_that_learns_of_revocations_from_nowhere_does_not_begin(make_guard, config, tmp_path):
    file = tmp_path / "revocations.jsonl"
    file.touch()
    guard = make_guard(revocations={"file": str(file)})

    assert code(guard._outside.start, GuardConfig.from_dict(config)) == "internal"


def test_thread_that_forks_by_itself_is_not_held():
    """It would wait for its own next step."""
    loop = asyncio.new_event_loop()

    release = park(loop, threading.current_thread())

    release()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
