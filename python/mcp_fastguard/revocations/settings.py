"""What ``[revocations]`` says."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

from mcp_fastguard._fastguard import revocation_settings
from mcp_fastguard.state.settings import StateSettings

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_fastguard.config import GuardConfig

__all__ = ["RevocationSettings"]


class RevocationSettings(NamedTuple):
    """``[revocations]``, with the server that it may name."""

    #: The file that is watched.
    file: Path | None
    #: For how many seconds nothing may be heard.
    max_staleness: float
    #: The server by which processes tell each other; None where they do not.
    store: StateSettings | None
    #: The key of the entries' MAC in that server.
    key: bytes

    @classmethod
    def of(cls, config: GuardConfig) -> Self | None:
        """Of a configuration; None where it has no such table.

        Raises:
            GuardConfigError: the configuration cannot be used.
        """
        found = revocation_settings(config.text, folder=config.folder, file=config.file, is_json=config.is_json)
        if found is None:
            return None
        file, is_shared, max_staleness, key, state = found
        store = StateSettings.of(state) if is_shared and state is not None else None
        return cls(file, max_staleness, store, key or b"")
