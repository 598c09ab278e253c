"""The lease protocol, searched exhaustively at small sizes: every order of processes, clock, lost messages and crashes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

LEASE, WINDOW = 2, 3


@dataclass(frozen=True)
class Process:
    """`question` is (sent at, permits given back); `answer` is (sent at, granted at). A lease is (ends at, granted at, permits)."""

    question: tuple[int, int, int] | None = None
    answer: tuple[int, int, int] | None = None
    lease: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class State:
    """`counted` and `used` hold times: of grants that count, and of permits that were used in the last window."""

    now: int
    counted: tuple[int, ...]
    used: tuple[int, ...]
    processes: tuple[Process, ...]


@dataclass(frozen=True)
class Rules:
    """The protocol, with the mistakes that it must not make."""

    quota: int = 2
    counts_for: int = WINDOW + LEASE
    lease_begins: str = "sent"
    gives_back_twice: bool = False


def counted_now(state: State, rules: Rules) -> tuple[int, ...]:
    return tuple(sorted(at for at in state.counted if state.now < at + rules.counts_for))


def with_process(state: State, number: int, process: Process) -> State:
    # Processes are alike: their order is no part of the state.
    rest = state.processes[:number] + state.processes[number + 1 :]
    return replace(state, processes=tuple(sorted((*rest, process), key=repr)))


def without(times: tuple[int, ...], at: int, count: int) -> tuple[int, ...]:
    kept = list(times)
    for _ in range(count):
        if at in kept:
            kept.remove(at)
    return tuple(kept)


def steps_of(state: State, number: int, rules: Rules) -> list[State]:
    process, now = state.processes[number], state.now
    found = [with_process(state, number, Process())]  # it crashes, and another begins anew
    running = process.lease is not None and now < process.lease[0]
    if running:
        ends_at, granted_at, permits = process.lease
        if permits:
            used = replace(state, used=tuple(sorted((*state.used, now))))
            found.append(with_process(used, number, replace(process, lease=(ends_at, granted_at, permits - 1))))
    if process.question is None and process.answer is None:
        # It asks, and gives back what it has not used: the lease is over for it, whether or not the question arrives.
        back = (process.lease[1], process.lease[2]) if process.lease else (0, 0)
        kept = process.lease if rules.gives_back_twice else None
        found.append(with_process(state, number, replace(process, question=(now, *back), lease=kept)))
    if process.question is not None:
        sent, back_to, back = process.question
        found.append(with_process(state, number, replace(process, question=None)))  # lost
        counted = without(counted_now(state, rules), back_to, back)
        for granted in range(1, rules.quota - len(counted) + 1):
            charged = replace(state, counted=tuple(sorted(counted + (now,) * granted)))
            found.append(with_process(charged, number, replace(process, question=None, answer=(sent, now, granted))))
        if len(counted) == rules.quota:
            found.append(with_process(replace(state, counted=counted), number, replace(process, question=None)))
    if process.answer is not None:
        sent, granted_at, granted = process.answer
        found.append(with_process(state, number, replace(process, answer=None)))  # lost: it counts all the same
        begins = {"sent": sent, "received": now}[rules.lease_begins]
        lease = (begins + LEASE, granted_at, granted)
        found.append(with_process(state, number, replace(process, answer=None, lease=lease)))
    return found


def most_used(rules: Rules, *, processes: int, until: int) -> tuple[int, int]:
    """The most permits that any window of any run holds, and how many states there are. A run that breaks the promise ends it."""
    start = State(0, (), (), (Process(),) * processes)
    seen, waiting, most = {start}, [start], 0
    while waiting and most <= rules.quota:
        state = waiting.pop()
        most = max(most, len(state.used))
        following = [found for number in range(processes) for found in steps_of(state, number, rules)]
        if state.now < until:
            later = replace(state, now=state.now + 1)
            used = tuple(at for at in later.used if at > later.now - WINDOW)
            following.append(replace(later, used=used, counted=counted_now(later, rules)))
        for found in following:
            if found not in seen:
                seen.add(found)
                waiting.append(found)
    return most, len(seen)


@pytest.mark.parametrize(("quota", "processes", "until"), [(1, 2, 8), (2, 2, 5), (1, 3, 5)])
def test_no_run_uses_more_than_the_quota_in_any_window(quota, processes, until):
    most, states = most_used(Rules(quota=quota), processes=processes, until=until)

    assert most == quota
    assert states > 1_000


@pytest.mark.parametrize(
    "mistake",
    [
        Rules(counts_for=WINDOW),
        Rules(lease_begins="received"),
        Rules(gives_back_twice=True),
    ],
    ids=["a lease counts for a window only", "a lease begins with its answer", "permits are given back and kept"],
)
def test_search_finds_each_mistake_of_the_protocol(mistake):
    most, _ = most_used(mistake, processes=2, until=6)

    assert most > mistake.quota
