"""The MCP SDK's and FastMCP's own tests of bearer tokens, with our verifier in the place of theirs.

Each test of theirs passes, or stands in :data:`DIFFERENT` with the reason and our refusal. One that stands there and passes fails here.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from support import skip_aloud

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
SOURCES = Path(os.environ.get("FASTGUARD_UPSTREAM", HERE.parents[1] / ".cache" / "upstream"))

MODULES = {
    "mcp": ["tests/interaction/auth/test_bearer.py", "tests/server/auth/middleware/test_bearer_auth.py"],
    "fastmcp": ["tests/server/auth/test_jwt_provider.py", "tests/server/auth/test_jwt_provider_bearer.py"],
}
#: The SDK's own conftest needs plugins that these modules do not use.
OPTIONS = {
    "mcp": ["-p", "outcomes", "-p", "in_sdk", "--noconftest"],
    "fastmcp": ["-p", "outcomes", "-p", "in_fastmcp"],
}

_BEARER = "tests/interaction/auth/test_bearer.py::"
_BACKEND = "tests/server/auth/middleware/test_bearer_auth.py::"
_RESOURCE = _BACKEND + "test_backend_accepts_only_tokens_issued_for_its_resource"
_JWT = "tests/server/auth/test_jwt_provider.py::"
_JWT_BEARER = "tests/server/auth/test_jwt_provider_bearer.py::TestBearerToken::"


class Difference(NamedTuple):
    """Tests of theirs whose token ours refuses and theirs accepts."""

    reason: str
    refusal: str
    tests: list[str]


DIFFERENT = {
    "mcp": [
        Difference(
            "a token for another resource is refused always, not only where an option asks for it (RFC 9068 section 4)",
            "audience_mismatch",
            [
                _BEARER + "test_a_token_for_another_resource_is_served_when_validate_token_resource_is_off[asyncio]",
                _RESOURCE + "[asyncio-None-https://other.example.com/mcp-True]",
            ],
        ),
        Difference(
            "an audience is compared letter for letter (RFC 7519 section 2, StringOrURI), not as a URL",
            "audience_mismatch",
            [
                _RESOURCE + "[asyncio-https://api.example.com/mcp-https://api.example.com/mcp/-True]",
                _RESOURCE + "[asyncio-https://api.example.com/mcp-https://API.EXAMPLE.COM:443/mcp-True]",
            ],
        ),
        Difference(
            "a token without an expiry is refused (RFC 9068 section 2.2: exp is required)",
            "claim_missing",
            [_BACKEND + "TestBearerAuthBackend::test_token_without_expiry[asyncio]"],
        ),
    ],
    "fastmcp": [
        Difference(
            "a token without an audience is refused (RFC 9068 section 2.2: aud is required)",
            "claim_missing",
            [
                _JWT + "TestJWTVerifierHeaders::test_non_critical_private_header_is_allowed[asyncio]",
                _JWT + "TestSymmetricKeyJWT::test_symmetric_token_with_different_algorithms[asyncio]",
                _JWT_BEARER + "test_no_issuer_validation_when_none[asyncio]",
                _JWT_BEARER + "test_string_issuer_validation[asyncio]",
                _JWT_BEARER + "test_url_issuer_still_works[asyncio]",
            ],
        ),
        Difference(
            "a token that names neither subject nor client is refused: limits and records need somebody",
            "principal_missing",
            [_JWT + "TestJWTAccessTokenSubject::test_subject_is_none_without_sub_claim[asyncio]"],
        ),
        Difference(
            "Ed448 is not supported: the library of cryptography has none",
            "no key of the set can verify",
            [_JWT + "TestEdDSAJWT::test_static_public_key[asyncio-Ed448]"],
        ),
    ],
}


@pytest.fixture(params=MODULES)
def outcomes(request, tmp_path):
    """Name of the package; each test's outcome, what it said, and our refusals in it."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        pytest.skip("the sources are prepared on Linux on x86-64 alone")
    package = request.param
    version = importlib.metadata.version(package)
    folder = SOURCES / f"{package}-{version}"
    if not (SOURCES / ".prepared").exists() or not folder.exists():
        skip_aloud(f"the tests of {package} {version}, which `make interop-tools` prepares")
    command = [sys.executable, "-m", "pytest", "-q", "-c", HERE / "upstream" / "pytest.ini", "--rootdir", folder]
    file = tmp_path / "outcomes.json"
    path = os.pathsep.join([str(HERE / "upstream"), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "FASTGUARD_OUTCOMES": str(file), "FASTMCP_TEST_MODE": "1"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run(
        [*command, *OPTIONS[package], *MODULES[package]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert file.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    return package, json.loads(file.read_text(encoding="utf-8"))


def test_tests_of_others_pass_with_our_verifier_or_have_their_reason(outcomes):
    package, found = outcomes
    different = {test: entry.refusal for entry in DIFFERENT[package] for test in entry.tests}
    for module in MODULES[package]:
        assert sum(test.startswith(module) for test in found) > 8
    failed = {test: reason for test, (outcome, reason, _) in found.items() if outcome != "passed"}
    assert {test: reason for test, reason in failed.items() if test not in different} == {}
    assert sorted(set(different) - set(failed)) == [], "these pass, or are no more"
    assert {test: found[test][2][-1:] for test in different} == {test: [code] for test, code in different.items()}
