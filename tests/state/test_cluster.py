"""A cluster that holds what processes share: real servers, a slot that moves, a failover, and `kill -9`; the same by TLS."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis import Redis
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError

from certificate_support import Authority
from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard.errors import LimitDenied
from servers_support import free_port
from shared_limits_support import EXECUTABLES, Server, run, state_of

#: Seconds for what servers do among each other.
PATIENCE = 60.0
PREFIX = "of-a-cluster"
SLOT = key_slot(PREFIX.encode())
RANGES = ((0, 5_460), (5_461, 10_922), (10_923, 16_383))


def until(holds: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


class SecureServer(Server):
    """Speaks TLS alone, with clients and with the other nodes, and with none that has no certificate of the authority."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        # The other build speaks no TLS.
        super().__init__("redis", directory)
        self.certificate, self.authority = str(authority.issue("localhost")), str(authority.file)

    def start(self, *options: str) -> None:
        place = ["--bind", "127.0.0.1", "--port", "0", "--tls-port", str(self.port)]
        files = ["--tls-cert-file", self.certificate, "--tls-key-file", self.certificate]
        trust = ["--tls-ca-cert-file", self.authority, "--tls-auth-clients", "yes"]
        # Nodes are named as their certificates are.
        name = ["--cluster-announce-hostname", "localhost", "--cluster-preferred-endpoint-type", "hostname"]
        rest = ["--tls-cluster", "yes", "--save", "", "--dir", str(self.directory)]
        self.process = subprocess.Popen(
            [self.executable, *place, *files, *trust, *name, *rest, *options], stdout=subprocess.DEVNULL
        )
        until(self._answers, "the server does not answer")

    def _answers(self) -> bool:
        try:
            return bool(ask(self, "PING"))
        except RedisConnectionError:
            return False


class Cluster(NamedTuple):
    #: Each has a third of the slots; after them the replica of the one that has the deployment's, or none.
    masters: list[Server]
    replica: Server | None

    def owner(self) -> Server:
        return next(server for server, (begin, end) in zip(self.masters, RANGES, strict=True) if begin <= SLOT <= end)


def client(server: Server, *, decode_responses: bool = True) -> Any:
    secure: dict[str, Any] = {}
    if isinstance(server, SecureServer):
        secure = {"ssl": True, "ssl_ca_certs": server.authority, "ssl_certfile": server.certificate}
    return Redis(port=server.port, decode_responses=decode_responses, **secure)


def ask(server: Server, *command: Any) -> Any:
    with client(server) as connected:
        return connected.execute_command(*command)


def state(server: Server) -> str:
    found = ask(server, "CLUSTER INFO")
    return str(found["cluster_state"])


def form(servers: Sequence[Server]) -> None:
    """Starts them, and has the first three share the slots."""
    for server in servers:
        bus = ("--cluster-port", str(free_port()))
        server.start("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", *bus)
    for server, (begin, end) in zip(servers, RANGES, strict=False):
        ask(server, "CLUSTER ADDSLOTSRANGE", begin, end)
    ports = {server.port: _bus(server) for server in servers}
    for server in servers[1:]:
        ask(servers[0], "CLUSTER MEET", "127.0.0.1", server.port, ports[server.port])
    until(lambda: all(state(server) == "ok" for server in servers), "the cluster does not come up")


@pytest.fixture(params=EXECUTABLES)
def cluster(request: Any, tmp_path: Path) -> Iterator[Cluster]:
    """Three masters and a replica."""
    servers = []
    for number in range(4):
        (tmp_path / f"node-{number}").mkdir()
        servers.append(Server(request.param, tmp_path / f"node-{number}"))
    try:
        form(servers)
        found, replica = Cluster(servers[:3], servers[3]), servers[3]
        owner_id = ask(found.owner(), "CLUSTER MYID")
        until(lambda: _replicates(replica, owner_id), "the replica does not know its master")
        with client(replica) as connected:
            until(lambda: connected.info("replication").get("master_link_status") == "up", "the replica has no master")
        yield found
    finally:
        for server in servers:
            server.kill()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secure_cluster(tmp_path: Path, authority: Authority) -> Iterator[Cluster]:
    """Three masters that speak TLS."""
    servers: list[Server] = []
    for number in range(3):
        (tmp_path / f"node-{number}").mkdir()
        servers.append(SecureServer(tmp_path / f"node-{number}", authority))
    try:
        form(servers)
        yield Cluster(servers, None)
    finally:
        for server in servers:
            server.kill()


def _bus(server: Server) -> int:
    with client(server) as connected:
        return int(connected.config_get("cluster-port")["cluster-port"])


def _replicates(replica: Server, owner_id: str) -> bool:
    try:
        ask(replica, "CLUSTER REPLICATE", owner_id)
    except Exception:
        return False
    return True


@pytest.fixture
def guard_of(config: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., Guard]]:
    guards: list[Guard] = []

    def make(cluster: Cluster, *rules: dict[str, Any], host: str = "127.0.0.1", **changes: Any) -> Guard:
        # One that is not there comes first: nodes fail too.
        places = [f"{host}:{port}" for port in (free_port(), *(server.port for server in cluster.masters))]
        url = f"{'rediss' if changes else 'redis'}+cluster://{','.join(places)}"
        state = state_of(tmp_path, url, processes=1, prefix=PREFIX, **changes)
        limits = {"rules": list(rules) or [{"per": "principal", "quota": "1000/h"}]}
        audit = {"path": str(tmp_path / f"audit-{len(guards)}")}
        guards.append(Guard.from_dict({**config, "state": state, "limits": limits, "audit": audit}))
        return guards[-1]

    yield make
    for guard in guards:
        guard.close()


def exact(guard: Guard) -> int:
    return int(guard.state_status()["answers"].get(("limits", "exact"), 0))


async def called(guard: Guard, token: str) -> int | None:
    return (await guard.authorize(ToolRequest.direct(tool="add", arguments={}, token=token))).remaining


def moved(cluster: Cluster) -> None:
    """Moves the deployment's slot to another master, with what is in it."""
    source = cluster.owner()
    target = next(server for server in cluster.masters if server is not source)
    source_id, target_id = ask(source, "CLUSTER MYID"), ask(target, "CLUSTER MYID")
    ask(target, "CLUSTER SETSLOT", SLOT, "IMPORTING", source_id)
    ask(source, "CLUSTER SETSLOT", SLOT, "MIGRATING", target_id)
    with client(source, decode_responses=False) as connected:
        for key in connected.execute_command("CLUSTER GETKEYSINSLOT", SLOT, 1_000):
            connected.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5_000)
    for server in (target, source, *cluster.masters):
        ask(server, "CLUSTER SETSLOT", SLOT, "NODE", target_id)


def test_node_that_has_the_slot_is_found_and_followed_where_it_moves(cluster, guard_of, issuer):
    rules = [
        {"name": "mine", "per": "principal", "quota": "20/h"},
        {"name": "at once", "per": "everyone", "concurrent": 1},
        {"name": "rows", "per": "principal", "meter": "rows", "quota": "50/h"},
    ]
    one, two = guard_of(cluster, *rules), guard_of(cluster, *rules)
    token = issuer.token()

    def call(guard: Guard) -> Any:
        return guard.call(ToolRequest.direct(tool="add", arguments={}, token=token))

    async def walk() -> tuple[int | None, int | None, str]:
        for _ in range(4):
            async with call(one) as running:
                running.note(rows=10)
        before = running.proof.remaining
        async with call(two):
            await asyncio.to_thread(moved, cluster)
            with pytest.raises(LimitDenied) as denied:
                await call(one).__aenter__()
            assert denied.value.code == "concurrency_spent"
        async with call(one) as running:
            running.note(rows=100)
        with pytest.raises(LimitDenied) as denied:
            await call(two).__aenter__()
        return before, running.proof.remaining, denied.value.spent.rule

    assert run(walk(), one, two) == (16, 14, "rows")
    assert set(one.state_status()["answers"]) | set(two.state_status()["answers"]) == {("limits", "exact")}


def test_replica_takes_over_with_what_it_was_handed_on(cluster, guard_of, issuer):
    guard, token = guard_of(cluster), issuer.token()

    async def walk() -> tuple[int | None, int | None]:
        for _ in range(10):
            before = await called(guard, token)
        with client(cluster.owner()) as connected:
            # Of what this connection has written, and so of all before it.
            connected.set(f"{{{PREFIX}}}:mark", "")
            assert connected.wait(1, 5_000) == 1
        asked = exact(guard)
        cluster.owner().kill()
        end = time.monotonic() + PATIENCE
        while exact(guard) == asked:
            after = await called(guard, token)
            assert time.monotonic() < end, guard.state_status()
            await asyncio.sleep(0.1)
        return before, after

    assert run(walk(), guard) == (990, 989)
    # Meanwhile the process counted by itself, and said so.
    assert guard.state_status()["answers"][("limits", "local")] > 0


def test_tls_of_every_node_is_checked_and_the_slot_followed(secure_cluster, guard_of, issuer, authority):
    files = {"ca_file": str(authority.file), "client_certificate": str(authority.issue("agent"))}
    guard, token = guard_of(secure_cluster, host="localhost", **files), issuer.token()

    async def walk() -> list[int | None]:
        left = [await called(guard, token) for _ in range(3)]
        before = secure_cluster.owner()
        await asyncio.to_thread(moved, secure_cluster)
        left += [await called(guard, token) for _ in range(3)]
        # The node that had the slot has it no more, and has passed on what it counted.
        assert await asyncio.to_thread(ask, before, "CLUSTER COUNTKEYSINSLOT", SLOT) == 0
        return left

    assert run(walk(), guard) == [999, 998, 997, 996, 995, 994]
    assert guard.state_status()["answers"] == {("limits", "exact"): 6}


@pytest.mark.parametrize("wrong", ["authority", "certificate", "name"])
def test_node_whose_tls_does_not_fit_is_not_asked(secure_cluster, guard_of, issuer, authority, wrong):
    other = Authority(authority.folder, "other")
    files = {
        "ca_file": str((other if wrong == "authority" else authority).file),
        "client_certificate": str((other if wrong == "certificate" else authority).issue("agent")),
    }
    # Their certificates are for the name alone.
    guard = guard_of(secure_cluster, host="127.0.0.1" if wrong == "name" else "localhost", **files)

    assert run(called(guard, issuer.token()), guard) == 999
    assert guard.state_status()["answers"] == {("limits", "local"): 1}


@pytest.mark.parametrize("rest", ["host", "host:0", "host:6379/0", "a:1,", "a:1,b", ":1"])
def test_url_that_names_no_nodes_is_refused(config, rest):
    state = {"url": f"rediss+cluster://{rest}", "processes": 1, "secret_file": "missing"}
    with pytest.raises(ValueError, match=r"state\.url: nodes of the cluster with their ports"):
        Guard.from_dict({**config, "state": state})
