"""What tests of servers share: an app in its lifespan, the official client in both eras."""

from __future__ import annotations

import asyncio
import contextlib

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from support import RESOURCE

BASE = "https://mcp.example.com"
ERAS = {"modern": "2026-07-28", "legacy": "legacy"}


@contextlib.asynccontextmanager
async def served(app):
    """Runs the app's lifespan, and gives a transport to it."""
    started, stop, stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def receive():
        if not started.is_set():
            return {"type": "lifespan.startup"}
        await stop.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message):
        assert not message["type"].endswith("failed"), message
        (started if "startup" in message["type"] else stopped).set()

    task = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send))
    await started.wait()
    try:
        yield httpx2.ASGITransport(app, client=("192.0.2.7", 1234))
    finally:
        stop.set()
        await task


@contextlib.asynccontextmanager
async def client(transport, token, mode, url=RESOURCE):
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with (
        httpx2.AsyncClient(transport=transport, headers=headers, base_url=BASE) as http,
        Client(streamable_http_client(url, http_client=http), mode=ERAS[mode]) as found,
    ):
        yield found


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def message(method, params=None, **extra):
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**(params or {}), "_meta": meta}, **extra}


def headers(token, method=None, name=None, version="2026-07-28"):
    found = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    if token:
        found["authorization"] = f"Bearer {token}"
    if version:
        found["mcp-protocol-version"] = version
    if method:
        found["mcp-method"] = method
    if name:
        found["mcp-name"] = name
    return found
