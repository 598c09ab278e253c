"""Entries in a stream of the server of ``[state]``, by which processes tell each other.

Each entry has a number and a MAC, so that nobody without the deployment's secret can add one, change one, or take one out
between two others unseen. A marker names the epoch: where it is missing, the server has lost what it knew.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mcp_fastguard.revocations.entry import Entry, EntryError
from mcp_fastguard.state.store import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_fastguard.state.settings import StateSettings

__all__ = ["EntryStream", "StreamError"]

#: Most entries of one epoch: `fastguard revocations init` begins another, with those that still count.
MOST_ENTRIES: Final = 100_000

#: Entries that are older are left behind by a new epoch: no token lives longer than 31 days.
KEPT: Final = 32 * 86_400.0

#: A round lasts so many seconds at most: so long the server holds its answer while nothing is new, and so long it is waited for.
HELD: Final = 1.0
ROUND: Final = 3.0

#: An entry that comes second to another is numbered anew so often.
ATTEMPTS: Final = 20

# Adds an entry where its number is the next one, in this epoch.
_ADD: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -2 end
if redis.call('XLEN', KEYS[2]) >= tonumber(ARGV[5]) then return -1 end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local number = 0
if last[1] then number = tonumber(last[1][2][2]) or 0 end
if number + 1 ~= tonumber(ARGV[2]) then return number + 1 end
redis.call('XADD', KEYS[2], '*', 'n', ARGV[2], 'e', ARGV[3], 'm', ARGV[4])
return 0
"""

# Begins an epoch with these entries, in the place of the one that was read.
_BEGIN: Final = """
local now = redis.call('GET', KEYS[1])
if (now or '') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
for at = 3, #ARGV, 2 do
  redis.call('XADD', KEYS[2], '*', 'n', (at - 1) / 2, 'e', ARGV[at], 'm', ARGV[at + 1])
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


class StreamError(Exception):
    """The server does not hold what it must. The text says what to do."""


class _Epoch(NamedTuple):
    #: The marker as it stands there.
    text: bytes
    name: bytes


class EntryStream:
    """Reads and adds entries. Belongs to the event loop that first uses it.

    Args:
        settings: the server.
        key: of the MACs.
    """

    def __init__(self, settings: StateSettings, key: bytes) -> None:
        # Its types allow for texts, which it gives only where it is told to.
        self._redis: Any = connect(settings)
        self._key = key
        self._marker = f"{{{settings.prefix}}}:revocations-epoch".encode()
        self._stream = f"{{{settings.prefix}}}:revocations".encode()
        self._epoch: _Epoch | None = None
        self._last_id = b"0"
        self._number = 0

    async def follow(self, apply: Callable[[Entry], None], heard: Callable[[], None]) -> None:
        """Takes in all entries, and those to come; ``heard`` is called whenever all of them have been taken in. Never ends.

        Raises:
            StreamError: the server does not hold what it must.
            Exception: whatever the server or the way there did.
        """
        self._epoch = None
        while True:
            async with asyncio.timeout(ROUND):
                await self._round(apply)
            heard()

    async def add(self, entry: Entry) -> None:
        """Tells all processes.

        Raises:
            StreamError: the server does not hold what it must, or is full.
            Exception: whatever the server or the way there did.
        """
        epoch = await self._read_epoch()
        text, number = entry.text(), 1
        for _ in range(ATTEMPTS):
            tag = self._tag(epoch.name, number, text)
            given = [epoch.text, number, text, tag, MOST_ENTRIES]
            found = await self._redis.eval(_ADD, 2, self._marker, self._stream, *given)
            if found == 0:
                return
            if found == -1:
                raise StreamError("the stream of revocations is full: run `fastguard revocations init`")
            if not isinstance(found, int) or found < 0:
                raise StreamError("another epoch has begun meanwhile: say it again")
            number = found
        raise StreamError("too many tell something at once: say it again")

    async def begin(self) -> int:
        """Begins an epoch, with the entries of the last one that still count; gives how many.

        Raises:
            StreamError: another one has begun meanwhile, or the entries of the last one are not whole.
        """
        kept: list[Entry] = []
        before = await self._redis.get(self._marker)
        if before is not None:
            self._epoch = None
            await self._load(kept.append)
        oldest = time.time() - KEPT
        kept = [entry for entry in kept if entry.act != "revoke" or entry.at >= oldest]
        name = secrets.token_hex(16).encode()
        given: list[bytes] = [before or b"", self._marker_of(name)]
        for number, entry in enumerate(kept, 1):
            given += [entry.text(), self._tag(name, number, entry.text())]
        if await self._redis.eval(_BEGIN, 2, self._marker, self._stream, *given) != 1:
            raise StreamError("another epoch has begun meanwhile")
        return len(kept)

    async def aclose(self) -> None:
        """Closes the connections, also where whoever waits for it is cancelled meanwhile."""
        closing = asyncio.create_task(self._redis.aclose())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            # redis-py would leave open what it has not begun to close.
            await closing
            raise

    # --- reading ----------------------------------------------------------------------------------

    async def _round(self, apply: Callable[[Entry], None]) -> None:
        if self._epoch is None:
            await self._load(apply)
            return
        found = await self._redis.xread({self._stream: self._last_id}, count=1_000, block=round(HELD * 1_000))
        if (await self._read_epoch()).text != self._epoch.text:
            # Another epoch has begun; what it holds is read from the first entry on.
            await self._load(apply)
            return
        for _, entries in _streams(found):
            self._take(entries, apply)

    async def _load(self, apply: Callable[[Entry], None]) -> None:
        epoch = await self._read_epoch()
        self._epoch, self._last_id, self._number = epoch, b"0", 0
        try:
            while found := await self._redis.xrange(self._stream, min=b"(" + self._last_id, count=1_000):
                self._take(found, apply)
        except BaseException:
            self._epoch = None
            raise

    def _take(self, entries: list[tuple[bytes, dict[bytes, bytes]]], apply: Callable[[Entry], None]) -> None:
        epoch = self._epoch
        if epoch is None:
            raise StreamError("no epoch is known")
        for entry_id, found in entries:
            number, text, tag = self._number + 1, found.get(b"e", b""), found.get(b"m", b"")
            if found.get(b"n") != str(number).encode() or not hmac.compare_digest(
                tag, self._tag(epoch.name, number, text)
            ):
                self._epoch = None
                raise StreamError(
                    "an entry of the stream of revocations was taken out, changed, or added without the secret"
                )
            try:
                entry = Entry.of(text, is_proved=True)
            except EntryError as error:
                self._epoch = None
                raise StreamError(f"an entry of another version: {error}") from error
            apply(entry)
            self._number, self._last_id = number, entry_id

    async def _read_epoch(self) -> _Epoch:
        text = await self._redis.get(self._marker)
        if text is None:
            raise StreamError(
                "the server has no marker of revocations: it is new, or has lost what it knew; run `fastguard revocations init`"
            )
        name = text.partition(b".")[0]
        if not hmac.compare_digest(text, self._marker_of(name)):
            raise StreamError("the marker of revocations was made without the secret")
        return _Epoch(text, name)

    def _marker_of(self, name: bytes) -> bytes:
        return name + b"." + hmac.digest(self._key, b"epoch\0" + name, "sha256").hex().encode()

    def _tag(self, epoch: bytes, number: int, text: bytes) -> bytes:
        message = json.dumps(["entry", epoch.decode(), number]).encode() + b"\0" + text
        return hmac.digest(self._key, message, "sha256").hex().encode()


def _streams(found: Any) -> list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]:
    """What XREAD gives: a list in version 2 of the protocol, a dict in version 3, nothing where nothing is new."""
    if not found:
        return []
    if isinstance(found, dict):
        return [
            (name, entries[0] if entries and isinstance(entries[0], list) else entries)
            for name, entries in found.items()
        ]
    return list(found)
