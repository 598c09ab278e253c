"""A client of the administrators' endpoint: what ``revoke``, ``block`` and ``unblock`` do with ``--server``."""

from __future__ import annotations

import json
import re
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import httpx2
import typer

from mcp_fastguard.cli.said import console, fail
from mcp_fastguard.keys import FetchError
from mcp_fastguard.keys.client import checked_url

if TYPE_CHECKING:
    from mcp_fastguard.revocations import Entry

__all__ = ["CaFileOption", "Endpoint", "ServerOption", "TokenFileOption", "ask"]

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server", help="A guarded server's URL: its administrators' endpoint is asked, and no file or store."
    ),
]
TokenFileOption = Annotated[
    str | None, typer.Option("--token-file", help="The administrator's token for --server; - for standard input.")
]
CaFileOption = Annotated[
    Path | None, typer.Option("--ca-file", help="Authorities of the certificate of --server. Default: the system's.")
]

#: Where the endpoint is, if `[admin]` names no other path; meant where a URL has none.
PATH: Final = "/fastguard/admin"

#: How long the server may take, in seconds: it may wait 2 s itself until others are told.
PATIENCE: Final = 10.0

#: No answer of the endpoint is longer.
MAX_ANSWER_BYTES: Final = 64 * 1024

#: RFC 6750 section 2.1; the bound is the core's for tokens.
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{1,16384}={0,2}")

_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Endpoint(NamedTuple):
    """Which server is asked, and with what."""

    server: str
    token_file: str | None
    ca_file: Path | None


def ask(endpoint: Endpoint, entry: Entry) -> None:
    """Has the server do what the entry says, and tells how far it went.

    Raises:
        typer.Exit: it could not be asked, or it refused.
    """
    url, token = _url(endpoint.server), _token(endpoint.token_file)
    params = {**entry.named(), **({} if entry.reason is None else {"reason": entry.reason})}
    message = {"jsonrpc": "2.0", "id": 1, "method": f"fastguard/{entry.act}", "params": params}
    status, content = _posted(url, token, json.dumps(message).encode(), _tls(endpoint.ca_file))
    answer = _object(content)
    if status != httpx2.codes.OK or "result" not in answer:
        raise fail(_refusal(url, status, answer))
    result = answer["result"]
    if not isinstance(result, dict) or result.get("done") is not True:
        raise fail(f"{url} answered what no guard does")
    reach = (
        "it reaches all processes" if result.get("reaches") == "deployment" else "in the process that answered alone"
    )
    effect = "" if result.get("had_effect", True) else "; there was no such block in that process"
    console.print(f"done by {url}: {reach}{effect}", markup=False, highlight=False, soft_wrap=True)


def _url(text: str) -> httpx2.URL:
    try:
        url = checked_url(text, allow_http_loopback=True)
    except FetchError as error:
        raise fail(f"--server: {error}; the token is sent by https alone, or on loopback") from error
    if url.query or url.fragment:
        raise fail("--server: a URL with a query or a fragment is refused")
    return url.copy_with(path=PATH) if url.path == "/" else url


def _token(source: str | None) -> str:
    if source is None:
        raise fail("--server needs --token-file: a file, or - for standard input")
    try:
        found = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise fail(f"--token-file: {source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise fail("--token-file: there is no token in it") from error
    token = found.strip()
    if _TOKEN.fullmatch(token) is None:
        # Nothing of it is shown: it could be another secret.
        raise fail("--token-file: there is no token in it, or more than one")
    return token


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return httpx2.create_ssl_context(trust_env=False)
    # This protocol checks the certificate and the name by default, and knows no authority yet.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=ca_file)
    except ssl.SSLError as error:
        raise fail(f"--ca-file: {ca_file}: there is no certificate in it") from error
    except OSError as error:
        raise fail(f"--ca-file: {ca_file}: {error.strerror}") from error
    return context


def _posted(url: httpx2.URL, token: str, body: bytes, tls: ssl.SSLContext) -> tuple[int, bytes]:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json", "accept-encoding": "identity"}
    # No proxy of the environment and no redirect: the token goes to this server or nowhere.
    client = httpx2.Client(verify=tls, trust_env=False, follow_redirects=False, timeout=PATIENCE)
    try:
        with client, client.stream("POST", url, content=body, headers=headers) as response:
            content = b""
            for chunk in response.iter_raw():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    break
            return response.status_code, content
    except httpx2.HTTPError as error:
        raise fail(f"{url} could not be asked: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """The reason that the system gives, under what clients wrap round it."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {found.verify_message}"
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        found = found.__cause__ or found.__context__
    return type(error).__name__


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(url: httpx2.URL, status: int, answer: dict[str, Any]) -> str:
    error = answer.get("error")
    data = error.get("data") if isinstance(error, dict) else None
    code = data.get("code") if isinstance(data, dict) else None
    if not isinstance(code, str) or _CODE.fullmatch(code) is None:
        return f"{url} answered {status}, and not as a guard does: is [admin] on, and this its URL?"
    hint = _HINTS.get(code)
    return f"{url} refused with `{code}`, {status}" + (f": {hint}" if hint else "")


#: What an operator can do, where the code alone does not say it.
_HINTS: Final = {
    "audience_mismatch": "the token must be made for the endpoint: `aud` is its URL",
    "bound_as_bearer": "the token is bound to a key; this command sends it alone",
    "path_unknown": "no [admin] in the server's configuration, or another path",
    "revocation_untold": "it holds in the process that answered, and no other could be told: say it again",
    "scope_insufficient": "the token lacks the scope of [admin]",
    "token_expired": "get a new token",
}
