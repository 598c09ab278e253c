"""The store of guards, for tests and benches without a guard. Apart from shared_limits_support.py, for it brings redis-py."""

from __future__ import annotations

from mcp_fastguard.state.breaker import BUDGET
from mcp_fastguard.state.settings import StateSettings
from mcp_fastguard.state.store import RedisStore
from shared_limits_support import PlainStore


def settings_of(port: int, budget: float = BUDGET) -> StateSettings:
    url = f"redis://127.0.0.1:{port}/0"
    return StateSettings(url, None, None, None, None, None, "d", budget, 1, "exact", "local")


class OwnStore(RedisStore):
    """With a plain client beside it."""

    def __init__(self, port: int) -> None:
        super().__init__(settings_of(port))
        self.redis = PlainStore(port).redis

    async def close(self) -> None:
        await self.aclose()
        await self.redis.aclose()
