"""A real Keycloak, from Maven Central, against the recipe that `fastguard init --idp keycloak` writes.

Takes a minute, a Java of 17 or later and 170 MB, so it is no part of `make test`. `$KEYCLOAK_HOME` names a distribution that is
unpacked already; else Maven fetches it by name into `.cache/keycloak`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import httpx2
import pytest

from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard.errors import Denied
from servers_support import free_port
from support import skip_aloud

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

VERSION = "26.7.3"
SHA256 = "27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f"
CACHE = Path(__file__).parents[2] / ".cache" / "keycloak"
RESOURCE = "http://127.0.0.1:8000/mcp"


def distribution():
    """Where Keycloak is unpacked."""
    if given := os.environ.get("KEYCLOAK_HOME"):
        return Path(given)
    folder = CACHE / f"keycloak-{VERSION}"
    if folder.is_dir():
        return folder
    if shutil.which("mvn") is None or shutil.which("java") is None:
        skip_aloud("Maven and Java, for Keycloak")
    CACHE.mkdir(parents=True, exist_ok=True)
    plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
    artifact = f"-Dartifact=org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
    fetched = subprocess.run(
        ["mvn", "-q", "-B", plugin, artifact, f"-DoutputDirectory={CACHE}"], capture_output=True, text=True, timeout=400
    )
    if fetched.returncode != 0:
        skip_aloud("Keycloak, which Maven could not fetch")
    archive = CACHE / f"keycloak-quarkus-dist-{VERSION}.zip"
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256
    with zipfile.ZipFile(archive) as content:
        content.extractall(CACHE)
    (folder / "bin" / "kc.sh").chmod(0o700)
    return folder


class Keycloak:
    """A server in development mode, with a realm, a client and a user."""

    def __init__(self, folder, home):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        # The distribution is shared; what this server writes is its own.
        shutil.copytree(folder, home)
        environment = {**os.environ, "KC_BOOTSTRAP_ADMIN_USERNAME": "admin", "KC_BOOTSTRAP_ADMIN_PASSWORD": "admin"}
        command = [home / "bin" / "kc.sh", "start-dev", "--http-host=127.0.0.1", f"--http-port={port}"]
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.http = httpx2.Client(base_url=self.url, timeout=30)
        until = time.monotonic() + 240
        while True:
            try:
                if self.http.get("/realms/master").is_success:
                    break
            except httpx2.HTTPError:
                pass
            assert time.monotonic() < until, "Keycloak did not start"
            time.sleep(1)

    def stop(self):
        self.http.close()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def admin(self, method, path, body=None):
        form = {"grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": "admin"}
        token = self.http.post("/realms/master/protocol/openid-connect/token", data=form).json()["access_token"]
        headers = {"authorization": f"Bearer {token}"}
        answer = self.http.request(method, f"/admin/realms{path}", json=body, headers=headers)
        assert answer.is_success, f"{path}: {answer.text}"
        return answer

    def prepare(self):
        self.admin("POST", "", {"realm": "main", "enabled": True, "sslRequired": "NONE"})
        audience = {
            "name": "aud",
            "protocol": "openid-connect",
            "protocolMapper": "oidc-audience-mapper",
            "config": {"included.custom.audience": RESOURCE, "access.token.claim": "true"},
        }
        scope = {
            "name": "sums:read",
            "protocol": "openid-connect",
            "attributes": {"include.in.token.scope": "true"},
            "protocolMappers": [audience],
        }
        made = self.admin("POST", "/main/client-scopes", scope).headers["location"].rsplit("/", 1)[1]
        client = {
            "clientId": "agent",
            "secret": "agent-secret",
            "serviceAccountsEnabled": True,
            "directAccessGrantsEnabled": True,
        }
        known = self.admin("POST", "/main/clients", client).headers["location"].rsplit("/", 1)[1]
        self.admin("PUT", f"/main/clients/{known}/optional-client-scopes/{made}")
        user = {
            "username": "alice",
            "enabled": True,
            "email": "alice@example.com",
            "emailVerified": True,
            "firstName": "A",
            "lastName": "B",
            "credentials": [{"type": "password", "value": "secret", "temporary": False}],
        }
        self.admin("POST", "/main/users", user)

    def tokens(self, **form):
        form = {"client_id": "agent", "client_secret": "agent-secret", **form}
        answer = self.http.post("/realms/main/protocol/openid-connect/token", data=form)
        assert answer.is_success, answer.text
        return answer.json()

    def rotate(self):
        realm = self.admin("GET", "/main").json()["id"]
        provider = {
            "name": "newer",
            "providerId": "rsa-generated",
            "providerType": "org.keycloak.keys.KeyProvider",
            "parentId": realm,
            "config": {"priority": ["200"], "enabled": ["true"], "active": ["true"], "algorithm": ["RS256"]},
        }
        self.admin("POST", "/main/components", provider)


@pytest.fixture(scope="module")
def keycloak(tmp_path_factory):
    found = Keycloak(distribution(), tmp_path_factory.mktemp("keycloak") / "home")
    try:
        found.prepare()
        yield found
    finally:
        found.stop()


@pytest.fixture
def guard(keycloak, tmp_path):
    """As the recipe writes it, but for the place, where there is no TLS, and a rule for the tool."""
    written = subprocess.run(
        [sys.executable, "-m", "mcp_fastguard.cli", "init", "--idp", "keycloak", "--url", "https://id.example.com", "--realm", "main",
         "--resource-url", RESOURCE, "--output", "-"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    text = written.replace("https://id.example.com", keycloak.url)
    text = text.replace("[[issuers]]\n", "[[issuers]]\nallow_http_loopback = true\n", 1)
    file = tmp_path / "fastguard.toml"
    file.write_text(f'{text}\n[tools.add]\nscopes = ["sums:read"]\n')
    with Guard.from_file(file) as found:
        yield found


def decided(guard, token):
    request = ToolRequest.direct(tool="add", arguments={}, token=token)
    try:
        return asyncio.run(guard.authorize(request))
    except Denied as denied:
        return denied.code


def test_tokens_of_a_service_and_of_a_person_pass(keycloak, guard):
    service = keycloak.tokens(grant_type="client_credentials", scope="sums:read")["access_token"]
    person = keycloak.tokens(grant_type="password", username="alice", password="secret", scope="sums:read")

    allowed = decided(guard, service)
    assert (allowed.issuer, allowed.client_id) == (f"{keycloak.url}/realms/main", "agent")
    assert "sums:read" in decided(guard, person["access_token"]).scopes


def test_what_is_not_for_this_server_is_refused(keycloak, guard):
    tokens = keycloak.tokens(grant_type="password", username="alice", password="secret", scope="openid sums:read")
    without = keycloak.tokens(grant_type="client_credentials")["access_token"]

    # An ID token says for whom it is, and that it is one.
    assert decided(guard, tokens["id_token"]) in {"claim_refused", "audience_mismatch"}
    assert decided(guard, tokens["refresh_token"]) in {"algorithm_refused", "claim_refused", "token_malformed"}
    # The scope brings the audience; without it the token is for nobody here.
    assert decided(guard, without) in {"audience_mismatch", "claim_missing"}


def test_keys_are_rotated_without_a_failed_call(keycloak, guard):
    before = keycloak.tokens(grant_type="client_credentials", scope="sums:read")["access_token"]
    assert decided(guard, before).client_id == "agent"

    keycloak.rotate()
    after = keycloak.tokens(grant_type="client_credentials", scope="sums:read")["access_token"]

    assert after.split(".")[0] != before.split(".")[0]
    assert decided(guard, after).client_id == "agent"
    # The older key is still published.
    assert decided(guard, before).client_id == "agent"
