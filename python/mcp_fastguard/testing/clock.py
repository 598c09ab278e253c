"""Time that stands still until a test moves it."""

from __future__ import annotations

import time

__all__ = ["FakeClock"]


class FakeClock:
    """Seconds since the epoch, for tests of limits and expiry.

    Args:
        start: where it stands at first, in seconds since the epoch; default: the system's present second, because SDKs compare
            a token's ``exp`` with the system's clock too.

    Raises:
        ValueError: ``start`` is negative.
    """

    def __init__(self, start: float | None = None) -> None:
        if start is not None and start < 0:
            message = f"a clock starts at the epoch or later, not at {start!r}"
            raise ValueError(message)
        self._now = float(int(time.time())) if start is None else float(start)

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def advance(self, seconds: float) -> float:
        """Moves on, and gives the new time.

        Raises:
            ValueError: ``seconds`` is negative: windows count on time that never goes back.
        """
        # Written so that NaN is refused too.
        if not seconds >= 0:
            message = f"time does not go back: {seconds!r}"
            raise ValueError(message)
        self._now += seconds
        return self._now

    def __repr__(self) -> str:
        return f"FakeClock({self._now!r})"
