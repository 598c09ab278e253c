"""Pages of the documentation as a reader follows them: their files are written, and their commands are run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from servers_support import free_port, serving

DOCS = Path(__file__).parents[1] / "docs"


def commands_of(page):
    return re.findall(r"^\$ (.*)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)


def _write_files(page, folder, issuer, port):
    """The issuer's keys stand in the configuration, so that nothing is fetched."""
    text = (DOCS / page).read_text(encoding="utf-8")
    files = dict(re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', text, re.DOTALL))
    assert sorted(files) == ["fastguard.toml", "server.py"]
    algorithms = 'algorithms = ["ES256"]'
    assert algorithms in files["fastguard.toml"]
    keys = f"{algorithms}\njwks = '{json.dumps(issuer.jwks)}'"
    files["fastguard.toml"] = files["fastguard.toml"].replace(algorithms, keys)
    for name, content in files.items():
        here = content.replace("port=8000", f"port={port}").replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        (folder / name).write_text(here, encoding="utf-8")


@contextlib.contextmanager
def page_served(page, command, folder, issuer):
    """Runs a page's command beside its files; gives the server's origin."""
    port = free_port()
    _write_files(page, folder, issuer, port)
    words = command.split()
    words = words[1:] if words[0] == "python" else ["-m", *words, "--port", str(port)]
    quiet = {"FASTMCP_CHECK_FOR_UPDATES": "off", "FASTMCP_SHOW_SERVER_BANNER": "false"}
    with serving(
        [sys.executable, *words],
        port,
        cwd=folder,
        env={**os.environ, **quiet},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ):
        yield f"http://127.0.0.1:{port}"
