"""Sends records as logs of OpenTelemetry: OTLP over HTTP, in JSON."""

from __future__ import annotations

import datetime as dt
import json
import re
import socket
import time
from typing import TYPE_CHECKING, Any, Final

import httpx2

from mcp_fastguard._fastguard import __version__
from mcp_fastguard.bearer import BearerFileError, bearer_in
from mcp_fastguard.keys.freshness import retry_after
from mcp_fastguard.shipping.formats import FORMATS
from mcp_fastguard.shipping.sink import ShipError, tls_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mcp_fastguard.shipping.item import Item
    from mcp_fastguard.shipping.settings import ShipSettings

__all__ = ["OtlpSink"]

#: Seconds for connecting, and for each read and write of one request.
TIMEOUT: Final = 10.0

#: An answer is read up to here; what a collector says of a batch is short.
MAX_ANSWER_BYTES: Final = 64 * 1024

_TRACE: Final = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}")

#: Number and text of severities, as the data model of logs has them.
_SEVERITY: Final = {"info": (9, "INFO"), "warning": (13, "WARN"), "error": (17, "ERROR")}

#: Members that become attributes under the same name, with `fastguard.` before it: what people look for first.
_ATTRIBUTES: Final = ("id", "decision", "kind", "tool_name", "method", "client_id", "result", "status", "code", "room")

#: Refusals that fewer records at once may pass (413, and 400 by collectors that bound their messages).
_TOO_MUCH: Final = frozenset({400, 413})


class OtlpSink:
    """A collector of OpenTelemetry, or whoever speaks as one."""

    pause = 1.0
    max_records = 512
    max_bytes = 1024 * 1024

    def __init__(self, settings: ShipSettings) -> None:
        assert settings.url is not None  # noqa: S101 - the core has looked
        self._settings = settings
        self._url = httpx2.URL(settings.url)
        self._format = FORMATS[settings.format]
        self._client: httpx2.Client | None = None

    def send(self, items: Sequence[Item]) -> int:
        """One request. A collector that refuses single records for good says how many."""
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        bearer = _bearer(self._settings.bearer_file)
        if bearer is not None:
            headers["authorization"] = f"Bearer {bearer}"
        content = json.dumps(self._message(items), ensure_ascii=False).encode()
        try:
            request = self._opened().build_request("POST", self._url, content=content, headers=headers)
            response = self._opened().send(request, stream=True)
            try:
                return self._answer(response)
            finally:
                response.close()
        except (httpx2.HTTPError, OSError) as error:
            # The next try begins with a connection and certificates of its own.
            self.close()
            raise ShipError(f"{self._url.host}: {type(error).__name__} {ascii(str(error))[:120]}") from error

    def close(self) -> None:
        """Closes the connection; the next batch opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _opened(self) -> httpx2.Client:
        if self._client is None:
            # Redirects are answers like others: what the configuration did not name is not told.
            self._client = httpx2.Client(
                verify=tls_for(self._settings), follow_redirects=False, trust_env=False, timeout=TIMEOUT
            )
        return self._client

    def _answer(self, response: httpx2.Response) -> int:
        status = response.status_code
        if status == httpx2.codes.OK:
            return _rejected(response)
        wait = retry_after(response.headers, dt.datetime.now(dt.UTC))
        reason = f"{self._url.host}: status {status}"
        raise ShipError(reason, retry_after=wait, is_too_much=status in _TOO_MUCH)

    def _message(self, items: Sequence[Item]) -> dict[str, Any]:
        resource = _attributes({"service.name": "mcp-fastguard", "host.name": socket.gethostname()})
        scope = {"name": "mcp_fastguard.audit", "version": __version__}
        logs = [self._log(item, str(time.time_ns())) for item in items]
        scoped = {"scope": scope, "logRecords": logs}
        return {"resourceLogs": [{"resource": {"attributes": resource}, "scopeLogs": [scoped]}]}

    def _log(self, item: Item, now: str) -> dict[str, Any]:
        number, text = _SEVERITY[item.weight]
        named = {f"fastguard.{name}": item.record.get(name) for name in _ATTRIBUTES}
        given = {"fastguard.log": item.log, "fastguard.seq": item.seq, "enduser.id": item.subject, **named}
        log: dict[str, Any] = {
            "timeUnixNano": str(item.milliseconds * 1_000_000),
            "observedTimeUnixNano": now,
            "severityNumber": number,
            "severityText": text,
            "eventName": f"fastguard.{item.event_type}",
            "body": {"stringValue": self._format(item)},
            "attributes": _attributes(given),
        }
        trace, span = item.record.get("trace_id"), item.record.get("parent_span_id")
        if isinstance(trace, str) and isinstance(span, str) and _TRACE.fullmatch(f"{trace}-{span}"):
            log |= {"traceId": trace, "spanId": span}
        return log


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Numbers of 64 bits are texts in OTLP's JSON."""
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": str(value)}}
        for key, value in values.items()
        if value is not None
    ]


def _rejected(response: httpx2.Response) -> int:
    """How many records the collector refused for good. An answer that cannot be read refuses none."""
    content = bytearray()
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            return 0
    try:
        partial = json.loads(bytes(content) or b"{}").get("partialSuccess") or {}
        return max(0, int(partial.get("rejectedLogRecords") or 0))
    except (ValueError, AttributeError, TypeError):
        return 0


def _bearer(file: Path | None) -> str | None:
    try:
        return bearer_in(file)
    except BearerFileError as error:
        raise ShipError(str(error)) from error
