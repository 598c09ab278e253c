"""The one script that checks and charges the windows of a call and its places among those that run, and what is said to it."""

from __future__ import annotations

import asyncio
import functools
import math
import struct
import time
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

SPAN = 64
KEPT = SPAN + 1
#: Quotas to this count in two bytes for each slot, others in four.
NARROW = 65_535
#: Seconds that a key outlives its last charge by. The server forgets keys by its wall clock, which may step by an hour.
LINGER = 7_200
#: Round trips of at most this many seconds anchor a process's view of the store's time; slower ones only where it has none.
_PROMPT = 0.025
#: Seconds after which a slow one does too, because clocks drift.
_STALE = 10.0
_MICRO = 1_000_000
#: Calls that are asked for at once: the server does nothing else for the time of one script.
AT_ONCE = 32
#: Seconds for which a batch of endings is known by its name, so that one that is told twice counts once.
NAMED_FOR = 3_600

# Several calls may be asked for at once: each has a question, and is decided after the one before it, as if it had come alone.
# What is wrong with the keys of one says nothing of the others.
#
# Time. The store's own clock (`TIME`) runs it, from the call before to this one. A step shows against the caller, which says
# how far the store's time must have come by its monotonic clock: where `TIME` has gone 100 ms further since the last call, or
# back, the caller's word is taken. Nothing ever makes time go back. A word counts only for the clock that it refers to (`born`).
#
# A window is a head (the newest slot), a sum, and 65 counters in a ring, all of one width: a slot's is cut out by its place in
# the whole value, whose first 12 bytes are written anew. While the head stays, so does the time at which the key is forgotten:
# whatever a slot counts counts for 65 slots from its beginning.
# The clock is written at most every 20 ms; what it says follows from the last time that it was.
#
# What runs is a sorted set for each key: the calls, by when they are forgotten unless their process says again that they run.
#
# A question is packed into one argument, because redis-py spends more on an argument than the server on all of them.
# Everything is checked before anything is written; a refused call writes only what is given back.
SCRIPT = """
local clock = redis.call('TIME')
local wall = clock[1] * 1000000 + clock[2]
local now, born = wall, wall
local passed = -1
local stored = redis.call('GET', KEYS[1])
if stored then
  if #stored ~= 24 then return redis.error_reply('LIMITS clock cannot be read') end
  local last
  last, now, born = struct.unpack('<ddd', stored)
  passed = wall - last
  local claim, claimed = struct.unpack('<dd', ARGV[1])
  if claim > 0 and claimed == born then
    local expected = now + passed
    if passed > 100000 and expected > claim + 100000 or passed < 0 or expected < claim - 1000000 then
      now = math.max(now, claim)
    else
      now = expected
    end
  elseif passed > 0 then
    now = now + passed
  end
end
local writes_clock = passed < 0 or passed > 20000

local function decide(question, key, call, count, places, lifetime, is_named)
  local named = is_named == 1 and KEYS[key + count + places + 1]
  local is_told = named and redis.call('EXISTS', named) == 1
  local windows, worst, wait = {}, 0, -1
  local dirty = false
  for i = 1, count do
    local quota, length, width, need, want, back_to, back = struct.unpack('<ddddddd', question, 41 + (i - 1) * 56)
    local format = width == 2 and '<I2' or '<I4'
    local slot = math.floor(now / length)
    local head, total, ring, stays = slot, 0, nil, false
    local value = redis.pcall('GET', KEYS[key + i])
    if value then
      if type(value) ~= 'string' or #value ~= 12 + 65 * width then return {-1} end
      head, total = struct.unpack('<dI4', value)
      ring = value
      local steps = slot - head
      stays = steps == 0
      if steps >= 65 then
        ring, total, head = nil, 0, slot
      elseif steps > 0 then
        local zero = string.rep('\0', width)
        for passed = head + 1, slot do
          local place = 12 + (passed % 65) * width
          local count = struct.unpack(format, ring, place + 1)
          if count > 0 then
            total = total - count
            ring = string.sub(ring, 1, place) .. zero .. string.sub(ring, place + width + 1)
          end
        end
        head = slot
      end
    end
    local changed = false
    if back > 0 and ring and back_to <= head and back_to > head - 65 then
      local place = 12 + (back_to % 65) * width
      local count = struct.unpack(format, ring, place + 1)
      back = math.min(back, count)
      ring = string.sub(ring, 1, place) .. struct.pack(format, count - back) .. string.sub(ring, place + width + 1)
      total, changed, dirty = total - back, true, true
    end
    if need > 0 and total + need > quota then
      local left, waits = total, 65 * length
      for passed = head - 64, head do
        if ring and need <= quota then
          left = left - struct.unpack(format, ring, (passed % 65) * width + 13)
          if left + need <= quota then
            waits = (passed + 65) * length - now
            break
          end
        end
      end
      if waits > wait then worst, wait = i, waits end
    end
    windows[i] = {head, total, ring, width, format, quota, need, want, length, changed, stays}
  end

  local running = {}
  for i = 1, places do
    local most, what = struct.unpack('<dd', question, 41 + count * 56 + (i - 1) * 16)
    running[i] = 0
    if what == TAKE or what == LOOK then
      local found = redis.pcall('ZCOUNT', KEYS[key + count + i], string.format('(%.0f', now), '+inf')
      if type(found) ~= 'number' then return {-1} end
      running[i] = found
      if what == TAKE and found >= most then worst, wait = count + i, 0 end
    end
  end

  local reply = {worst, now, born, wait}
  if (worst == 0 or dirty) and writes_clock then
    redis.call('SET', KEYS[1], struct.pack('<ddd', wall, now, born))
    writes_clock = false
  end
  for i = 1, count do
    local head, total, ring, width, format, quota, need, want, length, changed, stays = unpack(windows[i])
    local granted, value = 0, nil
    if worst == 0 and want > 0 then
      if need > 0 then
        granted = math.max(need, math.min(want, quota - total))
      elseif not is_told then
        granted = math.min(want, 4294967295 - total)
      end
    end
    if granted > 0 then
      total = total + granted
      ring = ring or string.rep('\0', 12 + 65 * width)
      local place = 12 + (head % 65) * width
      local count = struct.unpack(format, ring, place + 1) + granted
      value = struct.pack('<dI4', head, total) .. string.sub(ring, 13, place)
        .. struct.pack(format, count) .. string.sub(ring, place + width + 1)
    elseif changed then
      value = struct.pack('<dI4', head, total) .. string.sub(ring, 13)
    end
    if value and stays then
      redis.call('SET', KEYS[key + i], value, 'KEEPTTL')
    elseif value then
      redis.call('SET', KEYS[key + i], value, 'PX', math.ceil(65 * length / 1000) + LINGER)
    end
    reply[#reply + 1] = granted
    reply[#reply + 1] = math.max(quota - total, 0)
    reply[#reply + 1] = head
  end
  for i = 1, places do
    local _, what = struct.unpack('<dd', question, 41 + count * 56 + (i - 1) * 16)
    local key, call = KEYS[key + count + i], ARGV[call + i]
    if what == FREE then
      redis.pcall('ZREM', key, call)
    elseif what == HOLD or what == TAKE and worst == 0 then
      redis.pcall('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
      local added = redis.pcall('ZADD', key, string.format('%.0f', now + lifetime), call)
      if type(added) ~= 'number' then running[i] = -1 end
      redis.pcall('PEXPIRE', key, math.ceil(lifetime / 1000) + LINGER)
    end
    reply[#reply + 1] = running[i]
  end
  if named and not is_told then redis.call('SET', named, '', 'EX', NAMED) end
  return reply
end

local replies = {}
local key, argument = 1, 1
while ARGV[argument] do
  local question = ARGV[argument]
  local count, lifetime, is_named = struct.unpack('<ddd', question, 17)
  local places = (#question - 40 - count * 56) / 16
  replies[#replies + 1] = decide(question, key, argument, count, places, lifetime, is_named)
  key, argument = key + count + places + is_named, argument + 1 + places
end
return replies
"""
for _word, _number in {
    "LINGER": LINGER * 1_000,
    "NAMED": NAMED_FOR,
    "TAKE": 0,
    "HOLD": 1,
    "FREE": 2,
    "LOOK": 3,
}.items():
    SCRIPT = SCRIPT.replace(_word, str(_number))


class StoreUnavailable(Exception):
    """The store did not answer as it must: refused, late, read-only, full, or with something that no script of ours says."""


class KeyUnreadable(StoreUnavailable):
    """What the store holds under a key of this question is none of ours."""


class LimitStore(Protocol):
    """What shared limits need of a store."""

    def run(self, script: str, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> Awaitable[object]:
        """Runs a script by its digest, and sends it whole where the store has lost it. Any exception counts as unavailable."""
        ...

    def key(self, purpose: str, digest: bytes) -> bytes:
        """The name of a key: the deployment's prefix, its one hash tag, the purpose and the digest."""
        ...


class Ask(NamedTuple):
    """What one window is asked for.

    Args:
        key: 16 bytes.
        quota: how many, 0 to 4294967295.
        window: seconds.
        need: what must be granted, or the whole call is refused; 0 where nothing must.
        want: what is granted when there is room. 0 where the window is only asked for room; where `need` is 0, it is charged
            whether there is room or not.
        back_to: the slot that something is given back to.
        back: how much.
    """

    key: bytes
    quota: int
    window: float
    need: int
    want: int
    back_to: int = 0
    back: int = 0
    #: Whether it may count more than the quota.
    is_metered: bool = False

    @property
    def most(self) -> int:
        """What it may be granted."""
        return 0 if self.want == 0 else max(self.need, self.want)

    @property
    def least(self) -> int:
        """What it is granted unless the call is refused."""
        return min(self.need, self.want)


class Act(IntEnum):
    """What becomes of a place among the calls that run."""

    #: It is taken, if there is room; else the whole call is refused.
    TAKE = 0
    #: It is held for longer, and entered where it was lost.
    HOLD = 1
    #: It is free.
    FREE = 2
    #: Nothing: how many are taken is what is asked.
    LOOK = 3


class Spot(NamedTuple):
    """One place among the calls that run.

    Args:
        key: 16 bytes that name what is counted.
        call: 16 bytes that no other call has.
        act: what becomes of it.
        most: how many there are.
    """

    key: bytes
    call: bytes
    act: Act
    most: int = 0


class Given(NamedTuple):
    """What one window granted, what it has left, and the slot that was charged."""

    granted: int
    remaining: int
    slot: int


class Answer(NamedTuple):
    """What the script said: everything given, or the window that waits longest and how many seconds.

    Places come after the windows. Where both refuse, it is a place, and no time helps there.
    """

    given: tuple[Given, ...]
    refused: int | None
    retry_after: float
    #: How many calls run, of places that were looked at or taken.
    running: tuple[int, ...] = ()


class _Question(NamedTuple):
    """What one call is asked for, and who waits for the answer."""

    keys: list[bytes]
    args: list[bytes]
    reply: asyncio.Future[object]


class WindowScript:
    """Runs the script, and knows how far the store's time has come by this process's monotonic clock.

    While the store is asked, the calls of one turn of the event loop are asked for together: one round trip for all of them.
    """

    def __init__(self, store: LimitStore) -> None:
        self._store = store
        self._clock = store.key("limits-clock", bytes(16))
        self._born = 0
        self._seen = 0
        self._seen_at = -math.inf
        self._waiting: list[_Question] = []
        #: How many round trips are under way.
        self._flying = 0

    async def ask(
        self, asks: Sequence[Ask], spots: Sequence[Spot] = (), *, lifetime: float = 0.0, name: bytes | None = None
    ) -> Answer:
        """One round trip.

        Args:
            asks: of windows, no two with the same key.
            spots: of places.
            lifetime: for how many seconds a place is held.
            name: 16 bytes by which the question is known: what it charges without a need is charged once.

        Raises:
            StoreUnavailable: the answer is none that the script gives.
            Exception: whatever the store raises.
        """
        keys = []
        sent = time.monotonic()
        # Rounded down: a caller may say too little of the time that has passed, never too much.
        claim = self._seen + int((sent - self._seen_at) * _MICRO) if self._born else 0
        numbers: list[float] = [claim, self._born, len(asks), round(lifetime * _MICRO), name is not None]
        for ask in asks:
            width = 2 if ask.quota <= NARROW and not ask.is_metered else 4
            micros = round(ask.window * _MICRO)
            keys.append(self._store.key(f"limits-{width}-{micros}", ask.key))
            numbers += (ask.quota, -(-micros // SPAN), width, ask.need, ask.want, ask.back_to, ask.back)
        for spot in spots:
            keys.append(self._store.key("limits-running", spot.key))
            numbers += (spot.most, spot.act)
        if name is not None:
            keys.append(self._store.key("limits-told", name))
        question = struct.pack(f"<{len(numbers)}d", *numbers)
        args = [question, *(spot.call for spot in spots)]
        reply = await (self._replied(keys, args) if self._flying else self._alone(keys, args))
        return self._read(reply, asks, spots, sent)

    async def _alone(self, keys: list[bytes], args: list[bytes]) -> object:
        """Asks at once, while nobody else does: a turn of the event loop less."""
        self._flying += 1
        try:
            replies = await self._store.run(SCRIPT, [self._clock, *keys], args)
        finally:
            self._flying -= 1
        if not isinstance(replies, list) or len(replies) != 1:
            raise StoreUnavailable("the store's answer cannot be read")
        return cast("object", replies[0])

    def _replied(self, keys: list[bytes], args: list[bytes]) -> asyncio.Future[object]:
        loop = asyncio.get_running_loop()
        question = _Question(keys, args, loop.create_future())
        self._waiting.append(question)
        if len(self._waiting) == 1:
            loop.call_soon(self._send)
        return question.reply

    def _send(self) -> None:
        """Asks for all that wait, so many at once."""
        waiting, self._waiting = self._waiting, []
        for begin in range(0, len(waiting), AT_ONCE):
            batch = [question for question in waiting[begin : begin + AT_ONCE] if not question.reply.done()]
            if not batch:
                continue
            keys = [self._clock, *(key for question in batch for key in question.keys)]
            args = [argument for question in batch for argument in question.args]
            try:
                flying = asyncio.ensure_future(self._store.run(SCRIPT, keys, args))
            except Exception as error:  # noqa: BLE001 - a store may refuse at once; each call has its own answer
                for question in batch:
                    question.reply.set_exception(error)
                continue
            self._flying += 1
            flying.add_done_callback(functools.partial(self._landed, batch))
            for question in batch:
                question.reply.add_done_callback(functools.partial(_gone, batch, flying))

    def _landed(self, batch: Sequence[_Question], flying: asyncio.Future[object]) -> None:
        self._flying -= 1
        error = StoreUnavailable("the store was not asked") if flying.cancelled() else flying.exception()
        replies = None if error else flying.result()
        if error is None and not (isinstance(replies, list) and len(replies) == len(batch)):
            error = StoreUnavailable("the store's answer cannot be read")
        for place, question in enumerate(batch):
            if question.reply.done():
                # Its caller has left.
                continue
            if error is not None:
                question.reply.set_exception(error)
            else:
                question.reply.set_result(cast("list[object]", replies)[place])

    def _read(self, reply: object, asks: Sequence[Ask], spots: Sequence[Spot], sent: float) -> Answer:
        if reply == [-1]:
            raise KeyUnreadable("a key of the store cannot be read")
        begin = 4 + 3 * len(asks)
        if not isinstance(reply, list) or len(reply) != begin + len(spots) or set(map(type, reply)) != {int}:
            raise StoreUnavailable("the store's answer cannot be read")
        refused, now, born, wait = reply[:4]
        given = tuple(map(Given, reply[4:begin:3], reply[5:begin:3], reply[6:begin:3]))
        for ask, part in zip(asks, given, strict=True):
            least, most = (ask.least, ask.most) if refused == 0 else (0, 0)
            if not (least <= part.granted <= most and 0 <= part.remaining <= ask.quota):
                raise StoreUnavailable("the store's answer contradicts the question")
        is_window = 0 < refused <= len(asks)
        if not 0 <= refused <= len(asks) + len(spots) or (is_window and wait <= 0):
            raise StoreUnavailable("the store's answer contradicts the question")
        running = tuple(reply[begin:])
        if -1 in running:
            raise KeyUnreadable("a place could not be entered")
        received = time.monotonic()
        if born != self._born or received - sent <= _PROMPT or received - self._seen_at > _STALE:
            self._born, self._seen, self._seen_at = born, now, received
        if refused:
            return Answer(given, refused - 1, wait / _MICRO if is_window else 0.0, running)
        return Answer(given, None, 0.0, running)


def _gone(batch: Sequence[_Question], flying: asyncio.Future[object], reply: asyncio.Future[object]) -> None:
    """A caller has left. Where all have, nobody waits for the store, and it has not failed."""
    if reply.cancelled() and all(question.reply.done() for question in batch):
        flying.cancel()
