"""A person logs in by a real browser: the official client registers itself, and its calls are guarded."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.oauth2 import AuthorizationCodeResult
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata
from playwright.async_api import async_playwright

from mcp_fastguard.dev.workbench import opened
from support import chromium
from test_init import SERVERS, TOOLS

CALLBACK = "http://127.0.0.1:49152/callback"


class Memory:
    """Where the client keeps what it gets."""

    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info


class Person:
    """Sits before the browser, looks at the page, and decides."""

    def __init__(self, browser, decision, *, unticked=()):
        self.browser = browser
        self.decision = decision
        self.unticked = unticked
        self.seen = ""
        self.came_back = ""

    async def follow(self, url):
        page = await self.browser.new_page()

        async def back(route):
            self.came_back = route.request.url
            await route.fulfill(status=200, body="back at the client")

        await page.route(f"{CALLBACK}**", back)
        await page.goto(url)
        self.seen = await page.inner_text("body")
        for scope in self.unticked:
            await page.locator(f'input[name="scope"][value="{scope}"]').uncheck()
        await page.locator(f'button[value="{self.decision}"]').click()
        await page.wait_for_url(f"{CALLBACK}**")
        await page.close()

    async def returned(self):
        found = parse_qs(urlsplit(self.came_back).query)
        if "error" in found:
            raise PermissionError(found["error"][0])
        return AuthorizationCodeResult(code=found["code"][0], state=found["state"][0], iss=found["iss"][0])


def logged_in(folder, port, monkeypatch, *, decision, unticked=(), use):
    executable = chromium()
    name = f"server_of_port_{port}"
    (folder / f"{name}.py").write_text(SERVERS["fastmcp"] + TOOLS.replace("odd name\\n[tools.evil]", "odd"))
    monkeypatch.syspath_prepend(str(folder))

    async def walk():
        async with (
            opened(f"{name}:mcp", port=port, private=folder / ".fastguard" / "dev.json") as bench,
            async_playwright() as playwright,
        ):
            browser = await playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
            person = Person(browser, decision, unticked=unticked)
            metadata = OAuthClientMetadata(
                client_name="Notes <b>app</b>",
                redirect_uris=[CALLBACK],
                grant_types=["authorization_code", "refresh_token"],
            )
            auth = OAuthClientProvider(
                server_url=bench.url,
                client_metadata=metadata,
                storage=Memory(),
                redirect_handler=person.follow,
                callback_handler=person.returned,
            )
            try:
                async with (
                    httpx2.AsyncClient(auth=auth, trust_env=False, timeout=30) as http,
                    Client(streamable_http_client(bench.url, http_client=http)) as client,
                ):
                    return await use(client), person
            finally:
                await browser.close()

    return asyncio.run(asyncio.wait_for(walk(), 90))


def test_person_logs_in_and_the_client_calls_what_was_allowed(tmp_path, free_ports, monkeypatch):
    async def use(client):
        tools = sorted(tool.name for tool in (await client.list_tools()).tools)
        return tools, (await client.call_tool("list_orders", {})).is_error

    found, person = logged_in(
        tmp_path, free_ports, monkeypatch, decision="allow", unticked=["order:write", "odd:write"], use=use
    )

    assert found == (["list_orders"], False)
    # The page shows who asks, as text, and what for.
    assert "Notes <b>app</b>" in person.seen
    assert "order:read" in person.seen


def test_person_says_no_and_the_client_gets_nothing(tmp_path, free_ports, monkeypatch):
    async def use(_):
        pytest.fail("it was connected")

    with pytest.raises(BaseException) as refused:
        logged_in(tmp_path, free_ports, monkeypatch, decision="deny", use=use)
    assert "access_denied" in str(flattened(refused.value))


def flattened(error):
    """The errors in a group of them."""
    if isinstance(error, BaseExceptionGroup):
        return [inner for part in error.exceptions for inner in flattened(part)]
    return [error]
