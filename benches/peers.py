"""Rate limiters of others, each asked as its users ask it, against one window of ours."""

from __future__ import annotations

import time


def moving_window(bench, ours):
    from limits import RateLimitItemPerMinute, storage, strategies

    limiter = strategies.MovingWindowRateLimiter(storage.MemoryStorage())
    item = RateLimitItemPerMinute(1_000_000)
    name = "SlidingWindow.admit, faster than limits' moving window"
    bench.pair(name, "", ours, lambda: limiter.hit(item, "alice"), 20_000, 500)


def throttled(bench, ours):
    from throttled import RateLimiterType, Throttled, rate_limiter, store

    limiter = Throttled(
        key="alice",
        using=RateLimiterType.SLIDING_WINDOW.value,
        quota=rate_limiter.per_min(100_000_000),
        store=store.MemoryStore(),
    )
    bench.pair("SlidingWindow.admit, faster than throttled-py", "", ours, limiter.limit, 20_000, 2000)


def leaky_bucket(bench, ours):
    from pyrate_limiter import Duration, InMemoryBucket, Limiter, Rate

    # Its bucket keeps every item of the window: with a long one the comparison would measure its memory.
    limiter = Limiter(InMemoryBucket([Rate(1_000_000, Duration.SECOND)]))
    bench.pair(
        "SlidingWindow.admit, faster than pyrate-limiter", "", ours, lambda: limiter.try_acquire("alice"), 20_000, 500
    )


def rust_peer(bench, ours):
    """ContextForge's limiter, in Rust as ours is: its engine alone, without the plugin round it."""
    try:
        from cpex_rate_limiter.rate_limiter_rust import RateLimiterEngine
    except ImportError:
        print("SKIPPED: cpex-rate-limiter is not installed (requirements/peers.txt)")
        return
    engine = RateLimiterEngine({"by_user": "1000000/h", "algorithm": "sliding_window", "backend": "memory"})
    now = int(time.time())

    def theirs():
        engine.check("alice", None, "run_query", now, False, None)

    bench.pair("SlidingWindow.admit, faster than cpex-rate-limiter's engine", "", ours, theirs, 20_000, 500)
