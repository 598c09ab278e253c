"""The one script that checks and charges the windows of a call, and what is said to it."""

from __future__ import annotations

import math
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

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

# Time. The store's own clock (`TIME`) runs it, from the call before to this one. A step shows against the caller, which says
# how far the store's time must have come by its monotonic clock: where `TIME` has gone 100 ms further since the last call, or
# back, the caller's word is taken. Nothing ever makes time go back. A word counts only for the clock that it refers to (`born`).
#
# A window is a head (the newest slot), a sum, and 65 counters in a ring, all of one width: a slot's is cut out by its place.
# The clock is written at most every 20 ms; what it says follows from the last time that it was.
# The question is packed into one argument, because redis-py spends more on an argument than the server on all of them.
# Everything is checked before anything is written; a refused call writes only what is given back.
SCRIPT = """
local clock = redis.call('TIME')
local wall = clock[1] * 1000000 + clock[2]
local now, born = wall, wall
local question = ARGV[1]
local passed = -1
local stored = redis.call('GET', KEYS[1])
if stored then
  if #stored ~= 24 then return redis.error_reply('LIMITS clock cannot be read') end
  local last
  last, now, born = struct.unpack('<ddd', stored)
  passed = wall - last
  local claim, claimed = struct.unpack('<dd', question)
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

local windows, worst, wait = {}, 0, -1
local dirty = false
for i = 2, #KEYS do
  local quota, length, width, need, want, back_to, back = struct.unpack('<ddddddd', question, 17 + (i - 2) * 56)
  local format = width == 2 and '<I2' or '<I4'
  local slot = math.floor(now / length)
  local head, total, ring = slot, 0, nil
  local value = redis.call('GET', KEYS[i])
  if value then
    if #value ~= 12 + 65 * width then return redis.error_reply('LIMITS window cannot be read') end
    head, total = struct.unpack('<dI4', value)
    ring = string.sub(value, 13)
    local steps = slot - head
    if steps >= 65 then
      ring, total, head = nil, 0, slot
    elseif steps > 0 then
      local zero = string.rep('\\0', width)
      for passed = head + 1, slot do
        local place = (passed % 65) * width
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
    local place = (back_to % 65) * width
    local count = struct.unpack(format, ring, place + 1)
    back = math.min(back, count)
    ring = string.sub(ring, 1, place) .. struct.pack(format, count - back) .. string.sub(ring, place + width + 1)
    total, changed, dirty = total - back, true, true
  end
  if need > 0 and total + need > quota then
    local left, waits = total, 65 * length
    for passed = head - 64, head do
      if ring and need <= quota then
        left = left - struct.unpack(format, ring, (passed % 65) * width + 1)
        if left + need <= quota then
          waits = (passed + 65) * length - now
          break
        end
      end
    end
    if waits > wait then worst, wait = i - 1, waits end
  end
  windows[i - 1] = {head, total, ring, width, format, quota, need, want, length, changed}
end

local reply = {worst, now, born, wait}
if (worst == 0 or dirty) and (passed < 0 or passed > 20000) then
  redis.call('SET', KEYS[1], struct.pack('<ddd', wall, now, born))
end
for i = 1, #windows do
  local head, total, ring, width, format, quota, need, want, length, changed = unpack(windows[i])
  local granted, value = 0, nil
  if worst == 0 and need > 0 then
    granted = math.max(need, math.min(want, quota - total))
    total = total + granted
    ring = ring or string.rep('\\0', 65 * width)
    local place = (head % 65) * width
    local count = struct.unpack(format, ring, place + 1) + granted
    value = struct.pack('<dI4', head, total) .. string.sub(ring, 1, place)
      .. struct.pack(format, count) .. string.sub(ring, place + width + 1)
  elseif changed then
    value = struct.pack('<dI4', head, total) .. ring
  end
  if value then redis.call('SET', KEYS[i + 1], value, 'PX', math.ceil(65 * length / 1000) + LINGER) end
  reply[#reply + 1] = granted
  reply[#reply + 1] = math.max(quota - total, 0)
  reply[#reply + 1] = head
end
return reply
""".replace("LINGER", str(LINGER * 1_000))


class StoreUnavailable(Exception):
    """The store did not answer as it must: refused, late, read-only, full, or with something that no script of ours says."""


class LimitStore(Protocol):
    """What shared limits need of a store."""

    async def run(self, script: str, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> object:
        """Runs a script by its digest, and sends it whole where the store has lost it. Any exception counts as unavailable."""
        ...

    def key(self, purpose: str, digest: bytes) -> bytes:
        """The name of a key: the deployment's prefix, its one hash tag, the purpose and the digest."""
        ...


@dataclass(frozen=True, slots=True)
class Ask:
    """What one window is asked for.

    Args:
        key: 16 bytes.
        quota: how many, 0 to 4294967295.
        window: seconds.
        need: what must be granted, or the whole call is refused; 0 only gives back.
        want: what is granted when there is room.
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


@dataclass(frozen=True, slots=True)
class Given:
    """What one window granted, what it has left, and the slot that was charged."""

    granted: int
    remaining: int
    slot: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What the script said: everything given, or the window that waits longest and how many seconds."""

    given: tuple[Given, ...]
    refused: int | None
    retry_after: float


class WindowScript:
    """Runs the script, and knows how far the store's time has come by this process's monotonic clock."""

    def __init__(self, store: LimitStore) -> None:
        self._store = store
        self._clock = store.key("limits-clock", bytes(16))
        self._born = 0
        self._seen = 0
        self._seen_at = -math.inf

    async def ask(self, asks: Sequence[Ask]) -> Answer:
        """One round trip.

        Raises:
            StoreUnavailable: the answer is none that the script gives.
            Exception: whatever the store raises.
        """
        keys = [self._clock]
        sent = time.monotonic()
        # Rounded down: a caller may say too little of the time that has passed, never too much.
        claim = self._seen + int((sent - self._seen_at) * _MICRO) if self._born else 0
        numbers: list[float] = [claim, self._born]
        for ask in asks:
            width = 2 if ask.quota <= NARROW else 4
            micros = round(ask.window * _MICRO)
            keys.append(self._store.key(f"limits-{width}-{micros}", ask.key))
            numbers += (ask.quota, -(-micros // SPAN), width, ask.need, ask.want, ask.back_to, ask.back)
        question = struct.pack(f"<{len(numbers)}d", *numbers)
        return self._read(await self._store.run(SCRIPT, keys, [question]), asks, sent)

    def _read(self, reply: object, asks: Sequence[Ask], sent: float) -> Answer:
        if not isinstance(reply, list) or len(reply) != 4 + 3 * len(asks) or not all(type(n) is int for n in reply):
            raise StoreUnavailable("the store's answer cannot be read")
        refused, now, born, wait, *rest = reply
        given = tuple(Given(*rest[at : at + 3]) for at in range(0, len(rest), 3))
        fits = all(
            (ask.need <= part.granted <= max(ask.need, ask.want) if refused == 0 else part.granted == 0)
            and 0 <= part.remaining <= ask.quota
            for ask, part in zip(asks, given, strict=True)
        )
        if not fits or not 0 <= refused <= len(asks) or (refused and wait <= 0):
            raise StoreUnavailable("the store's answer contradicts the question")
        received = time.monotonic()
        if born != self._born or received - sent <= _PROMPT or received - self._seen_at > _STALE:
            self._born, self._seen, self._seen_at = born, now, received
        if refused:
            return Answer(given, refused - 1, wait / _MICRO)
        return Answer(given, None, 0.0)
