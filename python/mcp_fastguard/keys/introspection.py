"""Asks an issuer about its opaque tokens (RFC 7662): once for all calls that bring the same one at a time.

It runs on the key thread, so that calls on several event loops share one answer, and an endpoint that hangs holds none of them.
No reason that is logged shows anything of a token, of a secret, or of what the endpoint chose to write.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import logging
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote_plus

import httpx2

from mcp_fastguard._fastguard import MAX_INTROSPECTION_BYTES
from mcp_fastguard.keys.client import checked_url, client_for
from mcp_fastguard.keys.fetch import discover
from mcp_fastguard.keys.freshness import retry_after
from mcp_fastguard.keys.source import FetchError, KeySource

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from mcp_fastguard._fastguard import Attested, Gate
    from mcp_fastguard.keys.service import KeyService, Watch

__all__ = ["DEADLINE", "IntrospectionError", "IntrospectionSource", "Introspector", "ask"]

logger = logging.getLogger("mcp_fastguard")

#: The whole lookup ends after so many seconds, discovery and connecting included: a total, not per read.
DEADLINE: Final = 5.0

#: A discovered endpoint is used for so many seconds, as long as a key set at most.
DISCOVERED_FOR: Final = 600.0

#: Failures are told at most once in so many seconds: whoever makes up tokens must not fill the log.
TOLD_EVERY: Final = 10.0

#: Longest secret that is read. A file that is longer is not one secret.
MAX_SECRET_BYTES: Final = 4 * 1024


class IntrospectionError(Exception):
    """An issuer gave no answer that can be used.

    ``is_endpoint``: it cannot be reached, or refuses us: that is not about this token. ``wish``: in how many seconds the
    endpoint wants to be asked again; None: it did not say.
    """

    def __init__(self, reason: str, *, is_endpoint: bool, wish: float | None = None) -> None:
        super().__init__(reason)
        self.is_endpoint = is_endpoint
        self.wish = wish


class IntrospectionSource(NamedTuple):
    """Where an issuer is asked, and as whom. The core makes these, from ``[[issuers]]``.

    Args:
        place: the issuer, and how its hosts are reached.
        endpoint: where; None: found in the issuer's metadata.
        client_id: the client that this server is there.
        secret_file: holds its secret; read for each lookup. None: it is known by the certificate of ``place``.
    """

    place: KeySource
    endpoint: str | None
    client_id: str
    secret_file: Path | None


class Introspector:
    """Answers what calls with opaque tokens wait for. For one guard; may be used from any thread and loop.

    Args:
        service: whose thread the lookups run on.
        watch: of the same guard; lookups end with it.
        gate: reads the answers.
        asks: gets one answer; left out: over the network.
    """

    def __init__(
        self,
        service: KeyService,
        watch: Watch,
        gate: Gate,
        *,
        asks: Callable[[IntrospectionSource, str, str], Awaitable[bytes]] | None = None,
    ) -> None:
        found = gate.introspection_source()
        self._source = None if found is None else IntrospectionSource(KeySource(*found[0]), *found[1:])
        self._service = service
        self._watch = watch
        self._gate = gate
        self._ask = asks or ask
        #: Only the key thread uses these. A task belongs to one loop, and a fork brings another.
        self._lookups: dict[tuple[int, str], asyncio.Task[Attested]] = {}
        self._endpoint = ""
        self._endpoint_until = 0.0
        self._told_at = float("-inf")

    async def attested(self, text: str) -> Attested:
        """What the issuer says of a token, or why there is no answer. Never raises for what the network does."""
        worker = self._service.enter(self._watch)
        if worker is None or self._source is None:
            return self._gate.introspection_failed(text, is_endpoint=False)
        future = asyncio.wrap_future(worker.submit(self._joined(self._source, text)))
        try:
            # Not awaited itself, for a thread that ends would cancel it; and not for ever, for one that has ended answers nobody.
            await asyncio.wait((future,), timeout=DEADLINE + 1)
            if future.done() and not future.cancelled() and future.exception() is None:
                return future.result()
        finally:
            future.cancel()
        logger.error("introspection was broken off")
        return self._gate.introspection_failed(text, is_endpoint=False)

    async def _joined(self, source: IntrospectionSource, text: str) -> Attested:
        """Joins the lookup under way, or begins one. A waiter that is cancelled takes nothing from the others."""
        key = (id(asyncio.get_running_loop()), text)
        task = self._lookups.get(key)
        if task is None:
            task = self._lookups[key] = asyncio.ensure_future(self._looked_up(source, text))
            task.add_done_callback(lambda _: self._lookups.pop(key, None))
        return await asyncio.shield(task)

    async def _looked_up(self, source: IntrospectionSource, text: str) -> Attested:
        try:
            async with asyncio.timeout(DEADLINE):
                endpoint = source.endpoint or await self._discovered(source)
                answer = await self._ask(source, endpoint, text)
        except TimeoutError:
            return self._failed(text, IntrospectionError(f"no answer within {DEADLINE:g} s", is_endpoint=True))
        except IntrospectionError as error:
            return self._failed(text, error)
        except BaseException:
            # The thread ends, or a mistake of ours: the core must not hold the lookup for one that is under way.
            self._gate.introspection_failed(text, is_endpoint=False)
            raise
        return self._gate.introspected(text, answer)

    def _failed(self, text: str, error: IntrospectionError) -> Attested:
        now = time.monotonic()
        if now - self._told_at >= TOLD_EVERY:
            self._told_at = now
            logger.warning("introspection failed: %s", error)
        return self._gate.introspection_failed(text, is_endpoint=error.is_endpoint, wish=error.wish)

    async def _discovered(self, source: IntrospectionSource) -> str:
        if time.monotonic() >= self._endpoint_until:
            try:
                self._endpoint = await discover(source.place, "introspection_endpoint", deadline=DEADLINE)
                self._endpoint_until = time.monotonic() + DISCOVERED_FOR
            except FetchError as error:
                if not self._endpoint:
                    raise IntrospectionError(str(error), is_endpoint=True, wish=error.retry_after) from error
                # Metadata that are away for a while do not move the endpoint.
                self._endpoint_until = time.monotonic() + TOLD_EVERY
        return self._endpoint


async def ask(source: IntrospectionSource, endpoint: str, text: str) -> bytes:
    """Asks once; gives the answer as it came (RFC 7662 section 2.1).

    Raises:
        IntrospectionError: there is none that may be read.
    """
    form = {"token": text, "token_type_hint": "access_token"}
    # Compressed bodies are neither asked for nor read, and neither are signed ones (RFC 9701).
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    if source.secret_file is None:
        # RFC 8705 section 2: the certificate proves who the client is, and this names it.
        form["client_id"] = source.client_id
    else:
        headers["authorization"] = _basic(source.client_id, _secret(source.secret_file))
    try:
        url = checked_url(endpoint, allow_http_loopback=source.place.allow_http_loopback)
        async with client_for(source.place, DEADLINE) as client:
            return await _posted(client, url, form, headers)
    except FetchError as error:
        # A URL or an address that may not be asked, or a file: the reason is ours.
        raise IntrospectionError(str(error), is_endpoint=True) from error
    except (httpx2.HTTPError, OSError) as error:
        # Its text may quote the endpoint, and an endpoint may quote the token.
        raise IntrospectionError(type(error).__name__, is_endpoint=True) from None


async def _posted(client: httpx2.AsyncClient, url: httpx2.URL, form: dict[str, Any], headers: dict[str, str]) -> bytes:
    async with client.stream("POST", url, data=form, headers=headers) as response:
        _check_head(response)
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > MAX_INTROSPECTION_BYTES:
                raise IntrospectionError(f"more than {MAX_INTROSPECTION_BYTES} bytes", is_endpoint=False)
        return bytes(content)


def _check_head(response: httpx2.Response) -> None:
    status = response.status_code
    if status != httpx2.codes.OK:
        # Redirects end here too: what the configuration did not name does not learn the token.
        wish = retry_after(response.headers, dt.datetime.now(dt.UTC))
        # These say that the endpoint takes nothing from us at all. Another status may be this token's own, such as the 403 of a
        # firewall: whoever finds a text that provokes it must not have the others refused.
        is_endpoint = status in {401, 429, 503}
        raise IntrospectionError(f"status {status}", is_endpoint=is_endpoint, wish=wish)
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise IntrospectionError("the answer is compressed", is_endpoint=False)
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise IntrospectionError("the answer is not declared as application/json", is_endpoint=False)


def _secret(file: Path) -> str:
    """The secret in the file. It is renewed there, so it is read each time; no reason shows anything of it."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_SECRET_BYTES + 1).decode().strip()
    except OSError as error:
        reason = f"`introspection_client_secret_file`: {error.strerror}"
        raise IntrospectionError(reason, is_endpoint=True) from error
    except UnicodeDecodeError:
        text = ""
    if not text or len(text) > MAX_SECRET_BYTES or not text.isprintable():
        raise IntrospectionError("`introspection_client_secret_file` does not hold one secret", is_endpoint=True)
    return text


def _basic(client_id: str, secret: str) -> str:
    """RFC 6749 section 2.3.1: both are form-encoded before they are joined."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"
