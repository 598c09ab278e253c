"""What ``[[audit.ship]]`` says."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

from mcp_fastguard._fastguard import ship_settings

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_fastguard.config import GuardConfig

__all__ = ["ShipSettings"]


class ShipSettings(NamedTuple):
    """One ``[[audit.ship]]``; its keys, with paths that start at the folder of the file."""

    name: str
    sink: str
    format: str = "json"
    url: str | None = None
    allow_http_loopback: bool = False
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    bearer_file: Path | None = None
    path: Path | None = None
    bucket: str | None = None
    prefix: str = ""
    region: str | None = None
    object_lock: str = "compliance"
    #: In seconds.
    retention: float | None = None

    @classmethod
    def of(cls, config: GuardConfig) -> tuple[Path, list[Self]] | None:
        """The folder of the logs, and where they go; None where no log is kept.

        Raises:
            GuardConfigError: the configuration cannot be used.
        """
        found = ship_settings(config.text, folder=config.folder, file=config.file, is_json=config.is_json)
        if found is None:
            return None
        folder, ships = found
        places = []
        for names, place, files, path, (bucket, prefix, region), lock in ships:
            places.append(cls(*names, *place, *files, path, bucket, prefix, region, *lock))
        return folder, places
