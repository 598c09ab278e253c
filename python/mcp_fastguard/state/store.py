"""The server that processes share, by redis-py: Redis 7 and later, or Valkey."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from mcp_fastguard.state.lane import Lane, Question
from mcp_fastguard.state.window_script import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from redis.asyncio import Connection

    from mcp_fastguard.state.settings import StateSettings

__all__ = ["RedisStore", "connect"]

logger = logging.getLogger("mcp_fastguard")

#: Connections of one event loop at most: the one over which it asks, and those that still wait for late answers, or for a server.
MOST_CONNECTIONS: Final = 32

#: The oldest server whose scripts may write after they have asked for the time.
OLDEST: Final = (7, 0)

#: A server that must not be used is looked at again after so many seconds.
LOOK_AGAIN: Final = 10.0

#: So often a question follows its keys to another node of a cluster.
MOVES: Final = 3

#: Longest password that is read. A file that is longer is not one password.
MAX_PASSWORD_BYTES: Final = 4 * 1024


class _Credentials(CredentialProvider):
    """Reads the password anew for each connection, because it is renewed in its file."""

    def __init__(self, user: str | None, file: Path | None) -> None:
        self._user = user
        self._file = file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = ""
        if self._file is not None:
            with self._file.open("rb") as opened:
                password = opened.read(MAX_PASSWORD_BYTES + 1).decode().strip()
            if not password or len(password) > MAX_PASSWORD_BYTES:
                raise StoreUnavailable("`state.password_file` does not hold one password")
        return (self._user, password) if self._user is not None else (password,)


class RedisStore:
    """A ``LimitStore``. Belongs to the event loop that first uses it.

    It asks over one connection, without waiting for the answers to what was asked before. It keeps no budget for a question: put
    a ``BreakingStore`` in front. A connection whose answer is late gets no more of them.
    """

    def __init__(self, settings: StateSettings) -> None:
        self._redis = connect(settings)
        self._pool: Any = self._redis.connection_pool
        # One hash tag, so that a cluster keeps all of a deployment's keys in one place.
        self._prefix = f"{{{settings.prefix}}}:"
        self._patience = settings.budget
        #: What comes first on the wire where a script is asked for: the name under which the server knows it.
        self._begins: dict[str, bytes] = {}
        self._lane: Lane | None = None
        #: Also those that take no more questions, and wait for answers.
        self._lanes: set[Lane] = set()
        self._unfit: str | None = None
        self._look_at = 0.0

    def run(self, script: str, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> asyncio.Future[object]:
        """Runs a script by its digest, and sends it whole where the server has lost it.

        What it gives may be cancelled, or given an exception, by whoever waits for it. It answers with:

        Raises:
            StoreUnavailable: the server is too old, forgets keys when its memory is full, or does not answer in time.
            redis.exceptions.RedisError: whatever the server or the way there did.
        """
        begin = self._begins.get(script)
        if begin is None:
            # Nothing rests on it.
            digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
            begin = self._begins[script] = _packed(b"EVALSHA", digest.encode())
        rest = _packed(b"%d" % len(keys), *keys, *map(_encoded, args))
        parts = len(keys) + len(args) + 3

        def whole() -> bytes:
            return b"*%d\r\n%b%b" % (parts, _packed(b"EVAL", script.encode()), rest)

        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._ask(Question(answer, b"*%d\r\n%b%b" % (parts, begin, rest), whole))
        return answer

    def _ask(self, question: Question) -> None:
        if self._lane is None or self._lane.is_over:
            self._lanes = {lane for lane in self._lanes if lane.is_talking}
            self._lane = Lane(self._connected, self._disconnected, self._followed, patience=self._patience)
            self._lanes.add(self._lane)
        self._lane.ask(question)

    def _followed(self, question: Question, error: Exception) -> None:
        """Asks the node that has the keys now."""
        question.moves += 1
        if question.moves < MOVES:
            self._ask(question)
        else:
            question.answer.set_exception(error)

    async def _connected(self) -> Connection:
        """A connection whose server may be used."""
        if self._unfit is not None and time.monotonic() < self._look_at:
            raise StoreUnavailable(self._unfit)
        connection = cast("Connection", await self._pool.get_connection())
        try:
            await self._look(connection)
        except BaseException:
            await self._disconnected(connection)
            raise
        # From here the lane says how long is waited. By redis-py each sending would be a task of its own.
        connection.socket_timeout = None
        return connection

    async def _look(self, connection: Connection) -> None:
        """Whether the server may be used at all. One that forgets keys when its memory is full would forget what it counted."""
        await connection.send_command("INFO", "server", "memory", check_health=False)
        self._unfit = _unfit(_figures(await connection.read_response()))
        if self._unfit is not None:
            self._look_at = time.monotonic() + LOOK_AGAIN
            logger.error("the server of [state] is not used: %s", self._unfit)
            raise StoreUnavailable(self._unfit)

    async def _disconnected(self, connection: Connection) -> None:
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)

    def key(self, purpose: str, digest: bytes) -> bytes:
        """The name of a key."""
        return f"{self._prefix}{purpose}:{digest.hex()}".encode()

    async def aclose(self) -> None:
        """Closes the connections. Who still waits for an answer gets none."""
        lanes, self._lanes, self._lane = self._lanes, set(), None
        closed = StoreUnavailable("the connection to the store was closed")
        talking = [task for lane in lanes if (task := lane.give_up(closed)) is not None]
        await asyncio.gather(*talking, return_exceptions=True)
        for client in _clients(self._redis):
            await client.aclose()

    def abandon(self) -> None:
        """Closes the sockets behind the back of the event loop, which has ended, or is that of the parent process.

        redis-py and asyncio can close only on a loop that runs. Nothing is sent, so a connection that the parent still uses is
        none the worse. uvloop closes its sockets itself when it ends.
        """
        for pool in (client.connection_pool for client in _clients(self._redis)):
            for connection in (*pool._available_connections, *pool._in_use_connections):  # noqa: SLF001 - there is no other way
                writer = connection._writer  # noqa: SLF001
                found = None if writer is None else getattr(writer.get_extra_info("socket"), "_sock", None)
                if isinstance(found, socket.socket):
                    found.close()


def _packed(*parts: bytes) -> bytes:
    """As the protocol has the parts of a command."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


def _encoded(argument: bytes | str | int) -> bytes:
    return argument if isinstance(argument, bytes) else str(argument).encode()


def _figures(info: Any) -> dict[str, str]:
    """Of what INFO gives."""
    return dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)


def _unfit(figures: dict[str, str]) -> str | None:
    version = figures.get("redis_version", "")
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if parts < OLDEST:
        return f"it is version {version or 'unknown'}, and 7.0 is needed"
    policy = figures.get("maxmemory_policy")
    if figures.get("maxmemory", "0") != "0" and policy != "noeviction":
        return f"its maxmemory-policy is {policy}, under which it forgets what was counted: set noeviction"
    return None


def connect(settings: StateSettings) -> Redis:
    """A client of the server. Nothing is sent before its first use, and nothing is tried twice."""
    options: dict[str, Any] = {
        "max_connections": MOST_CONNECTIONS,
        # Who waits for a connection does so within the time that connecting may take.
        "timeout": None,
        "retry": Retry(NoBackoff(), 0),
        # redis-py would read its own version from disk for each connection, on the event loop, and tell it to the server.
        "driver_info": None,
        # A round trip more for each connection, for a command that neither Redis nor Valkey knows.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if settings.user is not None or settings.password_file is not None:
        options["credential_provider"] = _Credentials(settings.user, settings.password_file)
    if settings.url.startswith("rediss"):
        files = {
            "ssl_ca_certs": settings.ca_file,
            "ssl_certfile": settings.client_certificate,
            "ssl_keyfile": settings.client_key,
        }
        options |= {name: str(file) for name, file in files.items() if file is not None}
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    if "+sentinel://" in settings.url:
        return _by_sentinels(settings.url, options)
    if "+cluster://" in settings.url:
        return _by_slot(settings, options)
    return Redis.from_pool(BlockingConnectionPool.from_url(settings.url, **options))


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Asks where the master is, for each new connection. Those beyond the most connections wait."""


def _by_sentinels(url: str, options: dict[str, Any]) -> Redis:
    """A client of the master that sentinels name. They are asked without user and password, and by TLS where the master is."""
    scheme, _, rest = url.partition("://")
    places, name, *database = rest.split("/")
    sentinels = _places(places)
    is_secure = scheme == "rediss+sentinel"
    own = {
        key: value
        for key, value in options.items()
        if key.startswith("ssl_") or key in {"driver_info", "maint_notifications_config"}
    }
    own |= {"ssl": True} if is_secure else {}
    manager: Any = cast("Any", Sentinel)(sentinels, sentinel_kwargs={**own, "retry": Retry(NoBackoff(), 0)})
    options |= {"ssl": True} if is_secure else {}
    options |= {"db": int(database[0])} if database else {}
    return cast("Redis", manager.master_for(name, connection_pool_class=_SentinelPool, **options))


class _Slot:
    """Knows which node of a cluster has a slot, where a pool of connections would ask sentinels for a master.

    All keys of a deployment have one hash tag, and so one slot and one node: a client that follows the slot is enough.
    """

    def __init__(self, slot: int, nodes: Sequence[Redis]) -> None:
        self._slot = slot
        self._nodes = deque(nodes)

    @property
    def sentinels(self) -> list[Redis]:
        """The nodes that are asked."""
        return list(self._nodes)

    async def discover_master(self, _name: str) -> tuple[str, int]:
        """The node that has the slot now."""
        for _ in range(len(self._nodes)):
            node = self._nodes[0]
            # The others first, the next time: the budget of a call may be over before this one has answered.
            self._nodes.rotate(-1)
            try:
                found = _owner(await cast("Any", node).execute_command("CLUSTER SLOTS"), self._slot)
            except (RedisError, OSError):
                continue
            if found is not None:
                self._nodes.rotate(1)
                host, port = found
                # A node that does not know its own name is where it was asked.
                return host or str(node.connection_pool.connection_kwargs["host"]), port
        raise RedisConnectionError("no node of the cluster says who has the slot")


def _owner(slots: Any, slot: int) -> tuple[str, int] | None:
    """Of what CLUSTER SLOTS gives: first and last slot, then the master and its replicas, each with host and port first."""
    for begin, end, (host, port, *_), *_ in slots:
        if begin <= slot <= end:
            return (host or b"").decode(), int(port)
    return None


def _by_slot(settings: StateSettings, options: dict[str, Any]) -> Redis:
    """A client of the node that has the deployment's slot. The nodes that are named are asked as it is."""
    scheme, _, places = settings.url.partition("://")
    secure = {"ssl": True} if scheme == "rediss+cluster" else {}
    own = {name: value for name, value in options.items() if name not in {"max_connections", "timeout"}} | secure
    nodes = [Redis(host=host, port=port, single_connection_client=False, **own) for host, port in _places(places)]
    slot = _Slot(key_slot(settings.prefix.encode()), nodes)
    return Redis.from_pool(cast("Any", _SentinelPool)("", slot, **options, **secure))


def _places(text: str) -> list[tuple[str, int]]:
    """``host:port,host:port``."""
    return [(host.strip("[]"), int(port)) for host, _, port in (place.rpartition(":") for place in text.split(","))]


def _clients(client: Redis) -> list[Redis]:
    """The client, and those that ask where its server is."""
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    return [client] if manager is None else [client, *manager.sentinels]
