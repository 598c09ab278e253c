"""What a guard does in doubt: should the gate ever answer what it must not, or have no room for a record, no call passes."""

from __future__ import annotations

import asyncio
import functools
from datetime import UTC, datetime, timedelta

import pytest

from mcp_fastguard import GuardFault, ToolRequest
from mcp_fastguard._fastguard import Agreeing, ObservedCall, Waiting
from shared_limits_support import state_of
from support import of_quick_build


class _Gate:
    """A guard's own gate, of which some verbs answer otherwise."""

    def __init__(self, gate, **answers):
        self._gate, self._answers = gate, answers

    def __getattr__(self, name):
        if name in self._answers:
            return functools.partial(self._answered, self._answers[name])
        return getattr(self._gate, name)

    @staticmethod
    def _answered(answer, *_, **__):
        """A list is answered one by one; a fault is raised."""
        found = answer.pop(0) if isinstance(answer, list) else answer
        if isinstance(found, GuardFault):
            raise found
        return found


@pytest.fixture
def waiting(make_guard, issuer, tmp_path):
    """What a gate answers that lacks the keys of an issuer."""
    table = {"issuer": issuer.issuer, "jwks_uri": f"{issuer.issuer}/jwks", "algorithms": ["ES256"]}
    lacks = make_guard(issuers=[table], audit={"path": str(tmp_path / "lacks")})
    found = lacks.gate.decide(asked(issuer), observes=False, ends=False, now=None)
    assert isinstance(found, Waiting)
    return found


def asked(issuer, tool="run_query"):
    return ToolRequest.direct(tool=tool, arguments={"sql": "select 1"}, token=issuer.token())


def answering(guard, monkeypatch, **answers):
    """The guard with such a gate; gives how often it has looked for what a call waits for."""
    asked_for = []

    async def answer(waiting):
        asked_for.append(waiting.issuer)

    monkeypatch.setattr(guard, "gate", _Gate(guard.gate, **answers))
    monkeypatch.setattr(guard._outside, "answer", answer)
    return asked_for


def fault(work):
    with pytest.raises(GuardFault) as raised:
        asyncio.run(work)
    return raised.value.code


def test_call_that_waits_without_end_is_refused(guard, issuer, waiting, monkeypatch):
    asked_for = answering(guard, monkeypatch, decide=waiting)

    assert fault(guard.authorize(asked(issuer))) == "internal"
    assert asked_for == [issuer.issuer] * 3


def test_head_that_waits_without_end_is_refused(guard, issuer, waiting, monkeypatch):
    asked_for = answering(guard, monkeypatch, check_head=waiting)

    assert fault(guard.authorize_head(asked(issuer))) == "internal"
    assert asked_for == [issuer.issuer] * 3


def test_nested_call_that_must_wait_for_keys_is_refused(guard, issuer, waiting, monkeypatch):
    async def nested():
        call = guard.call(asked(issuer))
        await call.authorize()
        answering(guard, monkeypatch, check_nested=waiting)
        await call.nested(asked(issuer))

    assert fault(nested()) == "internal"


def test_call_that_only_an_observer_lets_pass_is_refused_to_a_direct_user(make_guard, issuer, monkeypatch):
    until = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
    guard = make_guard(observe={"rooms": ["policy"], "until": until})
    observed = guard.gate.decide(asked(issuer, "secret"), observes=True, ends=False, now=None)
    assert isinstance(observed, ObservedCall)
    answering(guard, monkeypatch, decide=observed)

    assert fault(guard.authorize(asked(issuer))) == "internal"


def test_call_that_others_must_agree_to_is_refused_without_a_store(make_guard, issuer, tmp_path, monkeypatch):
    state = state_of(tmp_path, "redis://127.0.0.1:1/0")
    guard = make_guard(state=state, limits={"rules": [{"per": "principal", "quota": "5/minute"}]})
    agreeing = guard.gate.decide(asked(issuer), observes=False, ends=False, now=None)
    assert isinstance(agreeing, Agreeing)
    monkeypatch.setattr(guard._outside, "deployment", None)

    assert fault(guard.authorize(asked(issuer))) == "internal"


def test_public_path_of_routes_that_serve_the_endpoint_alone_has_no_app(make_guard, issuer):
    guard = make_guard(admin={"issuer": issuer.issuer})
    [route] = guard.admin_routes()
    scope = {"type": "http", "method": "GET", "path": "/health", "headers": [], "query_string": b"", "scheme": "https"}

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        pytest.fail(f"something was answered: {message}")

    assert fault(route.app(scope, receive, send)) == "internal"


def test_routes_of_the_endpoint_are_none_without_its_table(guard):
    assert guard.admin_routes() == []


# --- a queue without room ---------------------------------------------------------------------------

FULL = GuardFault("audit_queue_full", "the queue of the audit log is full")
FAILED = GuardFault("audit_failed", "the log cannot be written")


@pytest.fixture
def allowed(guard, issuer):
    """What the gate says of a call that passes."""
    return guard.gate.decide(asked(issuer), observes=False, ends=False, now=None)


def test_call_waits_for_room_in_the_queue_and_passes(guard, issuer, allowed, monkeypatch):
    left = [FULL, FULL, allowed]
    answering(guard, monkeypatch, decide=left)

    assert asyncio.run(guard.authorize(asked(issuer))) is allowed
    assert left == []


def test_queue_that_stays_full_refuses_the_call(guard, issuer, monkeypatch):
    answering(guard, monkeypatch, decide=FULL)

    assert fault(guard.authorize(asked(issuer))) == "audit_queue_full"


def test_log_that_fails_while_a_call_waits_for_room_refuses_it_at_once(guard, issuer, monkeypatch):
    left = [FULL, FAILED, FULL]
    answering(guard, monkeypatch, decide=left)

    assert fault(guard.authorize(asked(issuer))) == "audit_failed"
    assert left == [FULL]


@pytest.fixture
def provoke():
    """Has the next decision be none, because of the log; only builds for tests can."""
    return of_quick_build("fault_next")


async def walked(guard, issuer):
    return await guard.call(asked(issuer)).authorize()


def test_call_of_a_server_waits_for_room_and_passes(guard, issuer, provoke):
    guard.start()
    provoke(FULL.code)

    assert asyncio.run(walked(guard, issuer)).subject == "alice"


def test_call_of_a_server_waits_for_nothing_but_room(guard, issuer, provoke):
    guard.start()
    provoke(FAILED.code)

    assert fault(walked(guard, issuer)) == "audit_failed"


# --- a corridor out of order ------------------------------------------------------------------------


def test_call_that_was_not_authorized_has_no_proof(guard, issuer):
    call = guard.call(asked(issuer))

    with pytest.raises(GuardFault) as raised:
        call.settle_at_once()
    assert raised.value.code == "internal"
    assert not call.is_settled
