"""Fills the corpora of the fuzz targets from the test vectors, the RFCs' examples and the project's own files.

Usage: ``python rust/fuzz/seed.py [FOLDER OF THE VECTORS]``; by default ``$FASTGUARD_VECTORS`` or ``../shared/vectors`` beside the
checkout. Without the vectors only the project's own files are taken, and that is said.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent


def strings(value: Any) -> Iterator[str]:
    """Every string of a JSON document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from strings(member)
    elif isinstance(value, list):
        for element in value:
            yield from strings(element)


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON document."""
    if isinstance(value, dict):
        yield value
        for member in value.values():
            yield from objects(member)
    elif isinstance(value, list):
        for element in value:
            yield from objects(element)


def of_vectors(vectors: Path) -> Iterator[tuple[str, bytes]]:
    """Seeds: the target's name and the bytes."""
    for file in sorted((vectors / "jsontestsuite" / "test_parsing").glob("*.json")):
        yield "json", file.read_bytes()
    for file in sorted(
        [*vectors.glob("wycheproof/json_*.json"), *vectors.glob("rfc/*.json"), *vectors.glob("cookbook/*/*.json")]
    ):
        document = json.loads(file.read_text())
        for text in strings(document):
            if text.count(".") == 2 and len(text) < 4096:
                yield "compact", text.encode()
                yield "token", text.encode()
        for found in objects(document):
            if "kty" in found:
                yield "key_set", json.dumps(found).encode()
            if "keys" in found:
                yield "key_set", json.dumps(found).encode()


def of_project() -> Iterator[tuple[str, bytes]]:
    """The same from what stands in this checkout."""
    for file in sorted(CHECKOUT.glob("examples/**/fastguard.toml")):
        yield "config", file.read_bytes()
    for page in sorted((CHECKOUT / "docs").rglob("*.md")):
        for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL):
            yield "config", block.encode()
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "look", "arguments": {"a": [1, 2.5, None, "é"]}},
    }
    methods = [
        "tools/list",
        "prompts/get",
        "resources/read",
        "resources/subscribe",
        "completion/complete",
        "notifications/cancelled",
        "ping",
    ]
    for message in [
        call,
        *({**call, "method": method} for method in methods),
        {"jsonrpc": "2.0", "id": 2, "result": {}},
    ]:
        yield "body", json.dumps(message).encode()
        yield "json", json.dumps(message).encode()
    for lines in [
        "authorization:Bearer a.b.c\nmcp-method:tools/call\nmcp-name:look\nmcp-protocol-version:2026-07-28",
        'Authorization:DPoP a.b.c\nDPoP:a.b.c\nx-forwarded-for:198.51.100.7, 192.0.2.1\nforwarded:for="[2001:db8::1]"',
        'x-forwarded-client-cert:By=a;Hash=b;Cert="-----BEGIN%20CERTIFICATE-----";Subject="";URI=spiffe://a/b',
    ]:
        yield "headers", lines.encode()
        for line in lines.splitlines():
            yield "certificate", line.partition(":")[2].encode()
    components = (
        '"@method" "@target-uri" "content-digest" "authorization" "@query-param";name="a" "x-own";sf "x-own";bs'
    )
    for covered in [components, '"x-own";key="a"', '"x-own";tr "@status";req', ""]:
        parameters = f'({covered});created=1618884473;keyid="k";nonce="n";alg="ed25519";expires=1618884540;tag="t"'
        for value in ["a=1, b=(1 2);c, d=:AAAA:", "sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:"]:
            yield "signature", f"sig={parameters}\nsig=:AAAA:\n{value}\na=1&b=%20".encode()
    for url in ["https://mcp.example.com:443/%7Ea/../b?c#d", "http://[::1]:8080/", "HTTPS://EXAMPLE.com"]:
        yield "certificate", url.encode()


def main() -> None:
    beside = os.environ.get("FASTGUARD_VECTORS") or CHECKOUT.parent / "shared" / "vectors"
    vectors = Path(sys.argv[1] if len(sys.argv) > 1 else beside)
    seeds = list(of_project())
    if vectors.is_dir():
        seeds += of_vectors(vectors)
    else:
        print(f"SKIPPED: no vectors at {vectors}; seeded from the project's own files alone")
    for target, content in seeds:
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)
    print(f"{len(seeds)} seeds")


if __name__ == "__main__":
    main()
