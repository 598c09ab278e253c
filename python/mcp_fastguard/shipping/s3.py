"""Writes records as objects of an S3 bucket, locked until their time is over. Needs the extra ``s3``."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from mcp_fastguard.shipping.formats import FORMATS
from mcp_fastguard.shipping.sink import ShipError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_fastguard.shipping.item import Item
    from mcp_fastguard.shipping.settings import ShipSettings

__all__ = ["S3Sink"]

#: Seconds for connecting, and for each read.
CONNECT_TIMEOUT: Final = 5
READ_TIMEOUT: Final = 20


class S3Sink:
    """A bucket: ``PREFIX LOG/000000000000-000000000511.jsonl``, by the first and last record; checkpoints are beside.

    S3 keeps what it has once it has answered. A batch that is sent again has the same first number, and is a version of the same
    object or an object beside it.
    """

    #: Objects are paid for by the piece.
    pause = 30.0
    max_records = 50_000
    max_bytes = 8 * 1024 * 1024

    def __init__(self, settings: ShipSettings) -> None:
        self._settings = settings
        self._format = FORMATS[settings.format]
        self._suffix = "cef" if settings.format == "cef" else "jsonl"
        config = Config(
            # The shipper tries again, and says so.
            retries={"total_max_attempts": 1},
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            proxies={},
            s3={"addressing_style": "path"} if settings.url else {},
        )
        options: dict[str, Any] = {"config": config, "region_name": settings.region, "endpoint_url": settings.url}
        if settings.ca_file is not None:
            options["verify"] = str(settings.ca_file)
        try:
            self._client = boto3.client("s3", **options)
        except (BotoCoreError, ValueError) as error:
            raise ShipError(f"{settings.bucket}: {type(error).__name__} {error!s}") from error

    def send(self, items: Sequence[Item]) -> int:
        """An object for each log of the batch, and one for each checkpoint."""
        for log, of_log in itertools.groupby(items, key=lambda item: item.log):
            found = list(of_log)
            for item in found:
                if item.seq is None:
                    self._put(f"{log}/checkpoint-{item.record['records']:012}.{self._suffix}", [item])
            records = [item for item in found if item.seq is not None]
            if records:
                first, last = records[0].seq, records[-1].seq
                self._put(f"{log}/{first:012}-{last:012}.{self._suffix}", records)
        return 0

    def close(self) -> None:
        """Closes connections."""
        self._client.close()

    def _put(self, name: str, items: Sequence[Item]) -> None:
        settings = self._settings
        lock: dict[str, Any] = {}
        if settings.object_lock != "off":
            until = datetime.now(UTC) + timedelta(seconds=settings.retention or 0)
            lock = {"ObjectLockMode": settings.object_lock.upper(), "ObjectLockRetainUntilDate": until}
        try:
            self._client.put_object(
                Bucket=settings.bucket,
                Key=f"{settings.prefix}{name}",
                Body="".join(f"{self._format(item)}\n" for item in items).encode(),
                ContentType="text/plain; charset=utf-8" if self._suffix == "cef" else "application/x-ndjson",
                # S3 compares it with what arrived; objects with a lock must have one.
                ChecksumAlgorithm="SHA256",
                **lock,
            )
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            raise ShipError(f"{settings.bucket}: {str(code)!a}") from error
        except BotoCoreError as error:
            raise ShipError(f"{settings.bucket}: {type(error).__name__}") from error
