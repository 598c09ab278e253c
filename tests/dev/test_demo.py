"""How the demonstration starts and ends. Its walk is tests/test_demo.py."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from mcp_fastguard.dev import AuthorizationServer
from mcp_fastguard.dev.demo import Walk, played, run
from mcp_fastguard.dev.stage import guarded, issuing

ROOT = Path(__file__).parents[2]
RESOURCE = "http://127.0.0.1:8766/mcp"


def test_walk_that_differs_in_one_step_is_counted():
    walk = Walk()
    walk.row("-", "a", "200", "200")
    assert walk.differing == 0

    walk.row("-", "b", "tools/call 200, tools/call 401 token_expired", "200")

    assert walk.differing == 1
    assert walk.refusals() == {"token_expired"}
    assert walk.table().row_count == 2


def test_scene_that_breaks_off_is_a_step_that_differs():
    async def scene(walk, era):
        walk.row(era, "a", "200", "200")
        raise ExceptionGroup("several", [ExceptionGroup("inner", [OSError("gone")]), ValueError("odd")])

    walk = Walk()
    asyncio.run(played(walk, scene, "2026-07-28"))

    assert walk.differing == 1
    assert walk.rows[-1].seen == "OSError: gone; ValueError: odd"


def test_taken_address_is_said_and_nothing_started(capsys):
    with socket.create_server(("127.0.0.1", 8766)):
        assert run() == 1

    assert "127.0.0.1:8766 cannot be had" in capsys.readouterr().err


def test_server_off_loopback_is_not_started(tmp_path, monkeypatch):
    issuer = AuthorizationServer("http://127.0.0.1:8765", "http://0.0.0.0:8766/mcp")

    async def start():
        async with guarded(issuer, {}):
            pass

    with pytest.raises(ValueError, match="loopback only"):
        asyncio.run(start())


def test_outside_a_checkout_it_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "mcp_fastguard.dev.stage.__file__", str(tmp_path / "site-packages" / "mcp_fastguard" / "dev" / "x")
    )

    async def start():
        async with issuing():
            pass

    with pytest.raises(RuntimeError, match="needs a checkout"):
        asyncio.run(start())


@pytest.mark.skipif(sys.platform == "win32", reason="ended by a signal")
def test_served_demonstration_can_be_used_as_it_says_and_seals_its_log():
    command = [sys.executable, "-m", "mcp_fastguard.cli", "demo", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        said = ""
        for line in process.stdout:
            said += line
            if "Ctrl-C" in line:
                break
        token_url = re.search(r"(\S+/token) -d", said)[1]
        client_id, secret = re.search(r"-u (\S+):(\S+)", said).groups()
        form = {"grant_type": "client_credentials", "resource": RESOURCE, "scope": "warehouse:schema:read"}
        answer = httpx2.post(token_url, data=form, auth=(client_id, secret), trust_env=False)
        headers = {
            "authorization": f"Bearer {answer.json()['access_token']}",
            "accept": "application/json, text/event-stream",
        }
        message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}
        message["params"] |= {"capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        opened = httpx2.post(RESOURCE, json=message, headers=headers, trust_env=False)
        assert opened.status_code == 200
        assert httpx2.post(RESOURCE, json=message, trust_env=False).status_code == 401
        folder = re.search(r"fastguard audit show (\S+)", said)[1]
        headers["mcp-session-id"] = opened.headers["mcp-session-id"]

        # A stream that its client leaves open does not keep the servers from ending.
        with httpx2.stream("GET", RESOURCE, headers=headers, trust_env=False) as stream:
            assert stream.status_code == 200
            process.send_signal(signal.SIGTERM)

            assert process.wait(20) == 0
    lines = Path(folder, "000001.jsonl").read_text().splitlines()
    assert '"event_type":"log_sealed"' in lines[-1]
