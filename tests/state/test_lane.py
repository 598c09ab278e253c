"""The one connection over which a process asks: each answer comes to who asked, whatever callers and servers do."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Self

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, RedisError, ResponseError

from mcp_fastguard.state import lane
from mcp_fastguard.state.breaker import BreakingStore
from mcp_fastguard.state.lane import Lane
from mcp_fastguard.state.store import RedisStore
from mcp_fastguard.state.window_script import StoreUnavailable
from own_store_support import settings_of
from shared_limits_support import Server

#: Seconds for what must come.
PATIENCE = 20.0
SAYS = "return ARGV[1]"


def store_at(port: int, budget: float = PATIENCE) -> RedisStore:
    return RedisStore(settings_of(port, budget))


@contextlib.asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[Any]:
    client = Redis(port=server.port)
    try:
        yield client
    finally:
        await client.aclose()


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def whole() -> Any:
        async with asyncio.timeout(PATIENCE):
            return await coroutine

    return asyncio.run(whole())


class Talk:
    """One connection of the server below: scripts are heard, and answered only by the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.heard: asyncio.Queue[list[bytes]] = asyncio.Queue()
        self.is_over = asyncio.Event()

    async def command(self) -> list[bytes] | None:
        count = await self._reader.readline()
        if not count:
            return None
        parts = []
        for _ in range(int(count[1:])):
            size = int((await self._reader.readline())[1:])
            parts.append((await self._reader.readexactly(size + 2))[:-2])
        return parts

    def say(self, text: bytes) -> None:
        self._writer.write(text)

    async def hang_up(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


class Scripted:
    """A server that greets as a Redis does, and says of scripts what the test says."""

    def __init__(self, version: str = "7.2.0") -> None:
        self._info = f"# Server\r\nredis_version:{version}\r\n# Memory\r\nmaxmemory:0\r\n".encode()
        #: Connections, in their order.
        self.talks: list[Talk] = []
        self._new = asyncio.Condition()
        #: Whether connections are greeted.
        self.greets = asyncio.Event()
        self.greets.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def talk(self, number: int) -> Talk:
        """The connection of this number, from 0, once it is there."""
        async with self._new:
            await self._new.wait_for(lambda: len(self.talks) > number)
        return self.talks[number]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        talk = Talk(reader, writer)
        async with self._new:
            self.talks.append(talk)
            self._new.notify_all()
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while (command := await talk.command()) is not None:
                if command[0] == b"HELLO":
                    await self.greets.wait()
                    talk.say(b"%1\r\n$5\r\nproto\r\n:3\r\n")
                elif command[0] == b"INFO":
                    talk.say(b"$%d\r\n%b\r\n" % (len(self._info), self._info))
                else:
                    talk.heard.put_nowait(command)
        talk.is_over.set()
        writer.close()


@contextlib.asynccontextmanager
async def scripted(budget: float = PATIENCE, **options: Any) -> AsyncIterator[tuple[RedisStore, Scripted]]:
    async with Scripted(**options) as server:
        store = store_at(server.port, budget)
        try:
            yield store, server
        finally:
            await store.aclose()


async def asked(store: RedisStore, talk: Callable[[], Coroutine[Any, Any, Talk]], *words: str) -> list[Any]:
    """Asks, and waits until the server has heard it all."""
    answers = [store.run(SAYS, [b"k"], [word]) for word in words]
    heard = (await talk()).heard
    assert [(await heard.get())[-1].decode() for _ in words] == list(words)
    return answers


def nobody_runs() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


async def soon(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.005)


# --- a server that does what it must --------------------------------------------------------------


def test_answers_come_to_who_asked_though_others_leave(own_server):
    async def walk() -> tuple[list[Any], int]:
        store = store_at(own_server.port)
        answers = []
        for number in range(600):
            answers.append(store.run(SAYS, [], [number]))
            if number % 7 == 0:
                # In the midst of connecting, of sending, and of waiting for answers.
                answers[number * 2 // 3].cancel()
            if number % 40 == 0:
                await asyncio.sleep(0)
        found = await asyncio.gather(*answers, return_exceptions=True)
        clients = len(await store._redis.client_list())
        await soon(nobody_runs)
        await store.aclose()
        return found, clients

    found, clients = run(walk())
    assert all(isinstance(one, asyncio.CancelledError) or int(one) == number for number, one in enumerate(found))
    assert sum(isinstance(one, asyncio.CancelledError) for one in found) > 50
    # That which lists them is another.
    assert clients == 2


def test_scripts_that_the_server_has_lost_are_sent_whole_and_answer_who_asked(own_server):
    async def walk() -> list[Any]:
        store = store_at(own_server.port)
        for _ in range(3):
            asked = [store.run(f"return '{number % 3}' .. ARGV[1]", [], [number]) for number in range(30)]
            found = await asyncio.gather(*asked)
            await store._redis.script_flush()
        await store.aclose()
        return found

    assert run(walk()) == [f"{number % 3}{number}".encode() for number in range(30)]


def test_error_of_a_script_is_its_own_alone(own_server):
    async def walk() -> list[Any]:
        store = store_at(own_server.port)
        scripts = [SAYS, "return redis.error_reply('NO mine')", SAYS, "return {1, {2, false, 'x'}}"]
        found = await asyncio.gather(*(store.run(script, [], ["a"]) for script in scripts), return_exceptions=True)
        await store.aclose()
        return found

    first, error, second, nested = run(walk())
    assert (first, second, nested) == (b"a", b"a", [1, [2, None, b"x"]])
    assert isinstance(error, ResponseError)


def test_nothing_runs_while_nobody_asks_and_the_connection_stays():
    async def walk() -> tuple[bool, list[bytes], int]:
        async with scripted() as (store, server):
            said = []
            for word in (b"$1\r\na\r\n", b"$1\r\nb\r\n"):
                (answer,) = await asked(store, lambda: server.talk(0), "x")
                server.talks[0].say(word)
                said.append(await answer)
                lanes = store._lane is not None and not store._lane.is_talking
            return lanes, said, len(server.talks)

    assert run(walk()) == (True, [b"a", b"b"], 1)


def test_who_asks_first_lends_nobody_a_context(monkeypatch):
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")

    async def walk() -> list[str]:
        async with scripted() as (store, server):
            seen, connected = [], store._connected

            async def connect() -> Any:
                seen.append(who.get("nobody"))
                return await connected()

            monkeypatch.setattr(store, "_connected", connect)
            who.set("alice")
            (answer,) = await asked(store, lambda: server.talk(0), "a")
            server.talks[0].say(b":1\r\n")
            await answer
            return seen

    assert run(walk()) == ["nobody"]


# --- callers that leave ---------------------------------------------------------------------------


def test_answer_of_a_caller_that_left_comes_to_nobody():
    async def walk() -> tuple[Any, int]:
        async with scripted() as (store, server):
            leaves, stays = await asked(store, lambda: server.talk(0), "leaves", "stays")
            leaves.cancel()
            server.talks[0].say(b"$4\r\nleft\r\n$6\r\nstayed\r\n")
            return await stays, len(server.talks)

    assert run(walk()) == (b"stayed", 1)


def test_caller_that_left_before_it_was_asked_for_is_not_asked_for():
    async def walk() -> list[bytes]:
        async with scripted() as (store, server):
            server.greets.clear()
            leaves, stays = (store.run(SAYS, [], [word]) for word in ("leaves", "stays"))
            talk = await server.talk(0)
            leaves.cancel()
            server.greets.set()
            heard = await talk.heard.get()
            talk.say(b":1\r\n")
            await stays
            return heard

    assert run(walk())[-1] == b"stays"


# --- answers that are late ------------------------------------------------------------------------


def age(store: RedisStore) -> Lane:
    """Lets its oldest question have been sent long ago, and looks."""
    found = store._lane
    assert found is not None
    found._flying[0].sent_at -= PATIENCE
    found._look()
    return found


def test_late_answer_comes_to_nobody_and_the_next_question_has_another_connection():
    async def walk() -> tuple[Any, int]:
        async with scripted() as (store, server):
            (late,) = await asked(store, lambda: server.talk(0), "late")
            assert age(store).is_over
            server.talks[0].say(b"$4\r\nlate\r\n")
            with pytest.raises(StoreUnavailable, match="did not answer in time"):
                await late
            (next_one,) = await asked(store, lambda: server.talk(1), "next")
            server.talks[1].say(b"$4\r\nnext\r\n")
            await server.talks[0].is_over.wait()
            return await next_one, len(server.talks)

    assert run(walk()) == (b"next", 2)


def test_answers_behind_a_late_one_still_come_in_time():
    async def walk() -> tuple[list[Any], bool, int]:
        async with scripted() as (store, server):
            late, behind = await asked(store, lambda: server.talk(0), "late", "behind")
            assert (age(store).is_over, late.done(), behind.done()) == (True, False, False)
            (next_one,) = await asked(store, lambda: server.talk(1), "next")
            server.talks[1].say(b":3\r\n")
            server.talks[0].say(b":1\r\n:2\r\n")
            found = [await answer for answer in (late, behind, next_one)]
            # Then it is closed, for it had no more questions.
            await server.talks[0].is_over.wait()
            return found, server.talks[1].is_over.is_set(), len(server.talks)

    assert run(walk()) == ([1, 2, 3], False, 2)


def test_connection_that_nobody_answers_on_is_closed():
    async def walk() -> list[Any]:
        async with scripted(0.02) as (store, server):
            answers = await asked(store, lambda: server.talk(0), "a", "b")
            found = await asyncio.gather(*answers, return_exceptions=True)
            await server.talks[0].is_over.wait()
            await soon(lambda: store._lane is not None and not store._lane.is_talking)
            return found

    found = run(walk())
    assert {(type(one), str(one)) for one in found} == {(StoreUnavailable, "the store did not answer in time")}


def test_answer_that_came_while_the_event_loop_stood_still_is_taken(own_server):
    async def walk() -> Any:
        store = store_at(own_server.port)
        breaking = BreakingStore(store, budget=0.2)
        await store.run(SAYS, [], ["first"])
        answer = breaking.run(SAYS, [], ["second"])
        while store._lane is None or not store._lane._flying:
            await asyncio.sleep(0)
        time.sleep(1.0)
        try:
            return await answer
        finally:
            await store.aclose()

    assert run(walk()) == b"second"


def test_connecting_that_takes_longer_than_a_call_waits_serves_the_next(monkeypatch):
    monkeypatch.setattr(lane, "OPENS_WITHIN", PATIENCE)

    async def walk() -> tuple[Any, int]:
        async with scripted() as (store, server):
            server.greets.clear()
            with pytest.raises(StoreUnavailable, match="in time"):
                await BreakingStore(store, budget=0.01).run(SAYS, [], ["late"])
            server.greets.set()
            (answer,) = await asked(store, lambda: server.talk(0), "next")
            server.talks[0].say(b":1\r\n")
            return await answer, len(server.talks)

    assert run(walk()) == (1, 1)


def test_connecting_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(lane, "OPENS_WITHIN", 0.05)

    async def walk() -> int:
        async with scripted(0.05) as (store, server):
            server.greets.clear()
            with pytest.raises(StoreUnavailable, match="could not be reached in time"):
                await store.run(SAYS, [], ["never"])
            monkeypatch.undo()
            store._patience = PATIENCE
            server.greets.set()
            await server.talks[0].is_over.wait()
            (answer,) = await asked(store, lambda: server.talk(1), "next")
            server.talks[1].say(b":1\r\n")
            return int(await answer)

    assert run(walk()) == 1


# --- servers that hang up, or say what nobody asked for -------------------------------------------


def test_connection_that_dies_tells_all_who_wait_and_no_more():
    async def walk() -> tuple[list[Any], Any]:
        async with scripted() as (store, server):
            answers = await asked(store, lambda: server.talk(0), "a", "b", "c")
            server.talks[0].say(b":1\r\n$5\r\nhal")
            await server.talks[0].hang_up()
            found = await asyncio.gather(*answers, return_exceptions=True)
            (answer,) = await asked(store, lambda: server.talk(1), "next")
            server.talks[1].say(b":4\r\n")
            return found, await answer

    (first, *died), after = run(walk())
    assert (first, after) == (1, 4)
    assert [isinstance(one, RedisConnectionError) for one in died] == [True, True]


def test_answers_come_to_who_asked_though_connections_are_killed(own_server):
    async def walk() -> tuple[list[Any], int]:
        store = store_at(own_server.port)
        answers: list[Any] = []
        killed = 0
        async with client_of(own_server) as client:
            for number in range(2_000):
                answers.append(store.run(SAYS, [], [number]))
                if number % 100 == 0:
                    killed += await client.client_kill_filter(_type="normal", skipme=True)
        found = await asyncio.gather(*answers, return_exceptions=True)
        await store.aclose()
        return found, killed

    found, killed = run(walk())
    died = [one for one in found if isinstance(one, RedisConnectionError)]
    assert all(int(one) == number for number, one in enumerate(found) if one not in died)
    assert killed > 0
    assert len(died) < len(found)


def test_server_that_hung_up_meanwhile_is_connected_to_anew_without_a_failure():
    async def walk() -> tuple[int, int]:
        async with scripted() as (store, server):
            (answer,) = await asked(store, lambda: server.talk(0), "a")
            server.talks[0].say(b":1\r\n")
            await answer
            await server.talks[0].hang_up()
            reader = store._lane._connection._reader  # type: ignore[union-attr]
            await soon(reader.at_eof)
            (answer,) = await asked(store, lambda: server.talk(1), "b")
            server.talks[1].say(b":2\r\n")
            return int(await answer), len(server.talks)

    assert run(walk()) == (2, 2)


def test_answer_that_nobody_asked_for_answers_nobody():
    async def walk() -> tuple[int, bytes]:
        async with scripted() as (store, server):
            (answer,) = await asked(store, lambda: server.talk(0), "a")
            server.talks[0].say(b":1\r\n:2\r\n")
            await answer
            parser = store._lane._connection._parser  # type: ignore[union-attr]
            reader = store._lane._connection._reader  # type: ignore[union-attr]
            await soon(lambda: bool(parser._reader.has_data() or reader._buffer))
            (answer,) = await asked(store, lambda: server.talk(1), "b")
            server.talks[1].say(b":3\r\n")
            await server.talks[0].is_over.wait()
            return int(await answer), len(server.talks)

    assert run(walk()) == (3, 2)


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\0\r\n", b"*2\r\n:1\r\n?\r\n"])
def test_garbage_ends_the_connection_and_answers_nobody(garbage):
    async def walk() -> tuple[list[Any], Any]:
        async with scripted() as (store, server):
            answers = await asked(store, lambda: server.talk(0), "a", "b")
            server.talks[0].say(garbage)
            found = await asyncio.gather(*answers, return_exceptions=True)
            await server.talks[0].is_over.wait()
            (answer,) = await asked(store, lambda: server.talk(1), "next")
            server.talks[1].say(b":4\r\n")
            return found, await answer

    found, after = run(walk())
    assert [isinstance(one, RedisError) for one in found] == [True, True]
    assert after == 4


def test_keys_that_move_for_ever_are_followed_so_often_and_no_more():
    async def walk() -> tuple[Any, int]:
        async with scripted() as (store, server):
            answer = store.run(SAYS, [b"k"], ["a"])
            for number in range(3):
                talk = await server.talk(number)
                await talk.heard.get()
                talk.say(b"-MOVED 1 127.0.0.1:1\r\n")
            (found,) = await asyncio.gather(answer, return_exceptions=True)
            return found, len(server.talks)

    found, talks = run(walk())
    assert isinstance(found, MovedError)
    assert talks == 3


def test_server_that_is_too_old_is_not_asked_and_looked_at_once():
    async def walk() -> tuple[list[Any], int, bool]:
        async with scripted(version="6.2.14") as (store, server):
            found = [await asyncio.gather(store.run(SAYS, [], ["a"]), return_exceptions=True) for _ in range(3)]
            await server.talks[0].is_over.wait()
            return [one for (one,) in found], len(server.talks), server.talks[0].heard.empty()

    found, talks, heard_nothing = run(walk())
    assert {type(one) for one in found} == {StoreUnavailable}
    assert all("6.2.14" in str(one) for one in found)
    assert (talks, heard_nothing) == (1, True)


def test_store_that_is_closed_tells_who_waits_and_leaves_nothing_behind():
    async def walk() -> list[Any]:
        async with Scripted() as server:
            store = store_at(server.port)
            answers = await asked(store, lambda: server.talk(0), "a", "b")
            await store.aclose()
            found = await asyncio.gather(*answers, return_exceptions=True)
            await server.talks[0].is_over.wait()
            return found

    found = run(walk())
    assert {(type(one), str(one)) for one in found} == {(StoreUnavailable, "the connection to the store was closed")}
