"""A master that sentinels name, and its failover: real servers, and `kill -9`."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis import Redis
from redis.exceptions import RedisError

from mcp_fastguard import Guard, ToolRequest
from servers_support import free_port
from shared_limits_support import EXECUTABLES, Server, run, state_of

#: Seconds for what servers do among each other.
PATIENCE = 30.0


class Group(NamedTuple):
    master: Server
    replica: Server
    sentinel: int


def until(holds: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.fixture(params=EXECUTABLES)
def make_group(request: Any, tmp_path: Path) -> Iterator[Callable[..., Group]]:
    """A master, its replica, and a sentinel that watches them."""
    servers: list[Server] = []
    sentinels: list[subprocess.Popen[bytes]] = []

    def make(*options_of_replica: str) -> Group:
        for name in ("master", "replica"):
            (tmp_path / name).mkdir()
            servers.append(Server(request.param, tmp_path / name))
        master, replica = servers
        master.start("--repl-diskless-sync-delay", "0")
        replica.start("--replicaof", "127.0.0.1", str(master.port), *options_of_replica)
        port = free_port()
        written = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {tmp_path}",
            f"sentinel monitor mine 127.0.0.1 {master.port} 1",
            "sentinel down-after-milliseconds mine 500",
            "sentinel failover-timeout mine 3000",
        ]
        file = tmp_path / "sentinel.conf"
        file.write_text("\n".join(written) + "\n")
        sentinels.append(subprocess.Popen([master.executable, str(file), "--sentinel"], stdout=subprocess.DEVNULL))
        with Redis(port=replica.port) as client:
            until(lambda: client.info("replication")["master_link_status"] == "up", "the replica has no master")
        until(lambda: _knows_replica(port), "the sentinel knows no replica")
        return Group(master, replica, port)

    yield make
    for sentinel in sentinels:
        sentinel.kill()
        sentinel.wait()
    for server in servers:
        server.kill()


def _knows_replica(port: int) -> bool:
    try:
        with Redis(port=port) as client:
            found = client.execute_command("SENTINEL REPLICAS mine")
    except RedisError:
        return False
    return bool(found)


@pytest.fixture
def guard_of(config: dict[str, Any], tmp_path: Path) -> Iterator[Callable[[int], Guard]]:
    guards: list[Guard] = []

    def make(sentinel: int) -> Guard:
        # One that is not there comes first: sentinels fail too.
        url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel}/mine/0"
        state = state_of(tmp_path, url, processes=1)
        limits = {"rules": [{"per": "principal", "quota": "1000/h"}]}
        guards.append(Guard.from_dict({**config, "state": state, "limits": limits}))
        return guards[-1]

    yield make
    for guard in guards:
        guard.close()


def exact(guard: Guard) -> int:
    return guard.state_status()["answers"].get(("limits", "exact"), 0)


async def called(guard: Guard, token: str) -> int | None:
    return (await guard.authorize(ToolRequest.direct(tool="add", arguments={}, token=token))).remaining


async def called_until(guard: Guard, token: str, holds: Callable[[], bool]) -> int | None:
    end = time.monotonic() + PATIENCE
    while True:
        left = await called(guard, token)
        if holds():
            return left
        assert time.monotonic() < end, guard.state_status()
        await asyncio.sleep(0.1)


def test_f12_master_is_found_anew_after_a_failover_with_what_it_had_handed_on(make_group, guard_of, issuer):
    group = make_group()
    guard, token = guard_of(group.sentinel), issuer.token()

    async def walk() -> tuple[int | None, int | None, int]:
        for _ in range(10):
            before = await called(guard, token)
        with Redis(port=group.master.port) as client:
            # Of what this connection has written, and so of all before it.
            client.set("mark", "")
            assert client.wait(1, 5_000) == 1
        group.master.kill()
        asked = exact(guard)
        after = await called_until(guard, token, lambda: exact(guard) > asked)
        return before, after, asked

    assert run(walk(), guard) == (990, 989, 10)
    # Meanwhile the process counted by itself, and said so.
    assert guard.state_status()["answers"][("limits", "local")] > 0
    with Redis(port=group.replica.port) as client:
        assert client.info("replication")["role"] == "master"


def test_f13_new_master_that_forgets_keys_is_not_used(make_group, guard_of, issuer, caplog):
    group = make_group("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
    guard, token = guard_of(group.sentinel), issuer.token()

    async def walk() -> int:
        await called(guard, token)
        group.master.kill()
        await called_until(guard, token, lambda: "the server of [state] is not used" in caplog.text)
        asked = exact(guard)
        for _ in range(5):
            await called(guard, token)
        return exact(guard) - asked

    assert run(walk(), guard) == 0
    assert "allkeys-lru" in caplog.text


@pytest.mark.parametrize(
    "rest",
    ["host/mine", "host:0/mine", "host:26379", "host:26379/", "a:1,/mine", "a:1/mine/x", "a:1/mine/0/1", ":1/mine"],
)
def test_url_that_names_no_sentinels_is_refused(config, rest):
    state = {"url": f"rediss+sentinel://{rest}", "processes": 1, "secret_file": "missing"}
    with pytest.raises(ValueError, match=r"state\.url: sentinels with their ports"):
        Guard.from_dict({**config, "state": state})
