"""Room `audit`: when records are on disk, and who waits for it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time

import pytest

from mcp_fastguard import Denied, Guard, GuardConfigError, GuardFault, ToolRequest


def request(token, tool="run_query", **arguments):
    return ToolRequest.direct(tool=tool, arguments=arguments, token=token)


def on_disk(guard):
    """What the log holds now; nothing is flushed."""
    lines = [line for file in guard.audit_folder.glob("*.jsonl") for line in file.read_bytes().splitlines()]
    return [json.loads(line) for line in lines]


def decisions(guard):
    return [record["id"].rpartition("-")[2] for record in on_disk(guard) if record["event_type"] == "decision"]


@pytest.fixture
def slow(make_guard, config):
    """Builds guards whose logs are written ten seconds after a decision, unless somebody waits."""

    def make(*, tools=None, **audit):
        audit = {**config["audit"], "flush_interval": "10s", **audit}
        return make_guard(audit=audit, tools=tools or config["tools"])

    return make


def read_only(config):
    return {**config["tools"], "run_query": {**config["tools"]["run_query"], "read_only": True}}


def test_each_has_the_record_on_disk_before_check_answers(slow, issuer):
    guard = slow(durability="each")
    for _ in range(3):
        allowed = guard.check(request(issuer.token()))
        assert str(allowed.record) in decisions(guard)


def test_each_has_a_refusal_on_disk_before_check_answers(slow, issuer):
    guard = slow(durability="each")
    with pytest.raises(Denied) as denied:
        guard.check(request(issuer.token(), "secret"))

    assert denied.value.code == "scope_insufficient"
    assert [record["code"] for record in on_disk(guard) if record["event_type"] == "decision"] == ["scope_insufficient"]


@pytest.mark.parametrize("tool", ["run_query", "secret"])
def test_each_has_the_record_on_disk_before_authorize_answers(slow, issuer, config, tool):
    guard = slow(durability="each", tools=read_only(config))

    async def main():
        try:
            await guard.authorize(request(issuer.token(), tool))
        except Denied as denied:
            assert denied.code == "scope_insufficient"

    asyncio.run(main())
    assert len(decisions(guard)) == 1


def test_call_that_writes_is_on_disk_before_its_tool_runs(slow, issuer):
    guard = slow()
    seen = []

    async def tool():
        seen.append(decisions(guard))

    async def main():
        for _ in range(3):
            async with guard.call(request(issuer.token())) as call:
                await call.run(tool)
                assert str(call.proof.record) in seen[-1]

    asyncio.run(main())


def test_call_that_only_reads_does_not_wait_for_the_disk(slow, issuer, config):
    guard = slow(tools=read_only(config))

    async def main():
        await guard.authorize(request(issuer.token()))
        guard.flush()
        return await guard.authorize(request(issuer.token()))

    assert str(asyncio.run(main()).record) not in decisions(guard)


def test_nested_call_that_writes_is_on_disk_before_its_tool_runs(slow, issuer):
    guard = slow()

    async def main():
        async with guard.call(request(issuer.token())) as call:
            nested = await call.nested(request(None, "add"))
            assert str(nested.proof.record) in decisions(guard)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("rules", "waits"),
    [
        (({}, {}), True),
        (({"read_only": True}, {}), False),
        (({"read_only": False}, {"read_only": True}), True),
        (({}, {"read_only": True}), False),
        (({"read_only": True}, {"tier": "log"}), False),
    ],
)
def test_tool_writes_unless_a_rule_says_read_only_and_none_denies_it(make_guard, issuer, config, rules, waits):
    rule, code = rules
    guard = make_guard(tools={**config["tools"], "run_query": {**config["tools"]["run_query"], **rule}})
    if code:
        guard.tool(open=True, name="run_query", **code)(lambda: None)

    assert guard.gate.must_keep(guard.check(request(issuer.token()))) is waits


def test_only_tools_write(guard, issuer):
    listed = ToolRequest.message(method="tools/list", params={}, id=1, token=issuer.token())

    assert guard.gate.must_keep(guard.check(listed)) is False


@pytest.mark.parametrize(("durability", "waits"), [("batched", False), ("each", True)])
def test_without_intents_only_each_waits(make_guard, issuer, config, durability, waits):
    guard = make_guard(audit={**config["audit"], "intent": False, "durability": durability})

    assert guard.gate.must_keep(guard.check(request(issuer.token()))) is waits


def test_missing_intents_are_said_at_the_start(make_guard, config, caplog):
    with caplog.at_level(logging.WARNING, logger="mcp_fastguard"):
        make_guard(audit={**config["audit"], "intent": False})

    assert "audit.intent: the record of a call that has changed something can be lost" in caplog.text


def test_read_only_of_a_prompt_stops_the_start(make_guard):
    with pytest.raises(GuardConfigError, match="only tools write"):
        make_guard(prompts={"summary": {"open": True, "read_only": True}})


def test_calls_that_wait_at_once_share_syncs_and_leave_the_loop_free(make_guard, issuer, monkeypatch):
    guard = make_guard()
    threads = []
    keeper = guard._keeper
    gate = _Gate(guard.gate, threads)
    monkeypatch.setattr(keeper, "_gate", gate)
    # The disk is slow with the first of them: all others come meanwhile.
    gate.until = lambda: sum(dict(guard.gate.statistics())[name] for name in ("audit_queued", "audit_written")) >= 200

    async def main():
        await asyncio.gather(*(guard.authorize(request(issuer.token())) for _ in range(200)))

    asyncio.run(main())
    assert len(decisions(guard)) == 200
    # The first one's, one for those who came meanwhile, and one should the last of them be recorded and not wait yet.
    assert 2 <= len(threads) <= 3
    assert threading.get_ident() not in threads


class _Gate:
    """A gate that takes note of who waits for the disk."""

    def __init__(self, gate, threads, fault=None):
        self._gate, self._threads, self._fault = gate, threads, fault
        self.until = lambda: True

    def keep(self):
        self._threads.append(threading.get_ident())
        ends = time.monotonic() + 10
        while len(self._threads) == 1 and not self.until():
            assert time.monotonic() < ends
            time.sleep(0.001)
        if self._fault is not None:
            raise self._fault
        self._gate.keep()


def test_record_that_does_not_reach_the_disk_refuses_the_call(make_guard, issuer, monkeypatch):
    guard = make_guard()
    fault = GuardFault("audit_failed", "not on disk after 2000 ms")
    monkeypatch.setattr(guard._keeper, "_gate", _Gate(guard.gate, [], fault))
    ran = []

    async def tool():
        ran.append(1)

    async def main():
        async with guard.call(request(issuer.token())) as call:
            await call.run(tool)

    with pytest.raises(GuardFault) as raised:
        asyncio.run(main())
    assert raised.value.code == "audit_failed"
    assert not ran


def test_thread_that_the_system_does_not_give_refuses_the_call_and_is_tried_again(make_guard, issuer, monkeypatch):
    guard = make_guard()

    def none(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none)
        with pytest.raises(GuardFault) as raised:
            asyncio.run(guard._keeper.keep())

    assert raised.value.code == "audit_failed"
    asyncio.run(guard._keeper.keep())


def test_call_that_is_cancelled_while_it_waits_harms_no_other(make_guard, issuer):
    guard = make_guard()

    async def main():
        waiting = [asyncio.ensure_future(guard.authorize(request(issuer.token()))) for _ in range(10)]
        await asyncio.sleep(0)
        waiting[3].cancel()
        return await asyncio.gather(*waiting, return_exceptions=True)

    found = asyncio.run(main())
    assert [type(decision).__name__ for decision in found].count("AllowedCall") == 9
    assert isinstance(found[3], asyncio.CancelledError)


def test_child_of_a_fork_waits_by_a_thread_of_its_own(make_guard, issuer):
    guard = make_guard()
    asyncio.run(guard.authorize(request(issuer.token())))
    token = issuer.token()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            allowed = asyncio.run(guard.authorize(request(token)))
            status = 0 if str(allowed.record) in decisions(guard) else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_guard_without_a_log_waits_for_nothing(make_guard, issuer):
    guard: Guard = make_guard(audit={"enabled": False})

    assert asyncio.run(guard.authorize(request(issuer.token()))).tool == "run_query"
    assert guard.check(request(issuer.token())).tool == "run_query"
