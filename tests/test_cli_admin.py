"""`fastguard revoke --server`: the command line as a client of a served administrators' endpoint."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading

import pytest

from admin_support import Inner, administrator
from certificate_support import Authority
from proof_support import Holder
from revocation_support import ask, code
from servers_support import free_port, running
from support import ISSUER, records

#: Where nobody listens; whoever is refused before has asked nobody.
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def guard(make_guard):
    return make_guard(admin={"issuer": ISSUER})


@pytest.fixture
def served(guard):
    """The endpoint's URL on a real server."""
    with running("uvicorn", guard.asgi(Inner())) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def token_file(tmp_path, issuer):
    return written(tmp_path, administrator(issuer))


def written(tmp_path, text):
    file = tmp_path / "token"
    file.write_text(text + "\n")
    return file


def fastguard(*arguments, given=None, folder=None):
    command = [sys.executable, "-m", "mcp_fastguard.cli", *map(str, arguments)]
    environment = {"COLUMNS": "200", "PATH": "", "HTTP_PROXY": NOBODY, "HTTPS_PROXY": NOBODY, "ALL_PROXY": NOBODY}
    return subprocess.run(command, capture_output=True, text=True, input=given, timeout=60, env=environment, cwd=folder)


def failed(*arguments, **options):
    """What a command says that fails."""
    done = fastguard(*arguments, **options)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@contextlib.contextmanager
def answering(answer):
    """A server that answers one request so, and is no guard."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def once():
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                while b"\r\n\r\n" not in connection.recv(65_536):
                    pass
                with contextlib.suppress(OSError):
                    connection.sendall(answer)

        thread = threading.Thread(target=once, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(20)


def answer(content, status="200 OK", *headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", content]).encode()


def test_commands_ask_the_endpoint_of_a_server_and_need_no_configuration(guard, served, token_file, issuer, tmp_path):
    alice, bob = ask(issuer), ask(issuer, sub="bob")
    to = ("--server", f"{served}/fastguard/admin", "--token-file", token_file)

    done = fastguard("revoke", "--subject", "alice", "--reason", "laptop lost", *to, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"done by {served}/fastguard/admin: in the process that answered alone" in done.stdout
    assert (code(guard, alice), code(guard, bob)) == ("token_revoked", "allowed")

    assert fastguard("block", "--tool", "add", "--until", "2099-01-01", *to).returncode == 0
    assert code(guard, bob) == "blocked"
    assert fastguard("unblock", "--tool", "add", *to).returncode == 0
    assert code(guard, bob) == "allowed"
    assert "there was no such block" in fastguard("unblock", "--tool", "add", *to).stdout
    assert {act["admin_subject"] for act in records(guard, "revoked", "blocked", "unblocked")} == {"root"}


def test_url_without_a_path_means_the_default_one_and_the_token_comes_by_standard_input(guard, served, issuer):
    token = administrator(issuer)
    to = ("--server", served, "--token-file", "-")

    assert fastguard("block", "--tool", "add", *to, given=token).returncode == 0
    assert code(guard, ask(issuer)) == "blocked"


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"aud": "https://mcp.example.com/mcp"}, "refused with `audience_mismatch`, 401: the token must be made for"),
        ({"scope": "other"}, "refused with `scope_insufficient`, 403: the token lacks the scope"),
        ({"iat": 1_000_000_000, "exp": 1_000_000_600}, "refused with `token_expired`, 401: get a new token"),
    ],
)
def test_refusal_of_the_server_is_told_by_its_code(guard, served, issuer, claims, said):
    token = administrator(issuer, **claims)

    told = failed("block", "--tool", "add", "--server", served, "--token-file", "-", given=token)

    assert said in told
    assert token not in told
    assert code(guard, ask(issuer)) == "allowed"


def test_server_without_the_endpoint_says_so(make_guard, token_file):
    with running("uvicorn", make_guard().asgi(Inner())) as port:
        told = failed("revoke", "--subject", "x", "--server", f"http://127.0.0.1:{port}", "--token-file", token_file)
    assert "refused with `path_unknown`, 404: no [admin] in the server's configuration" in told


@pytest.mark.parametrize(
    "url",
    [
        "http://mcp.example.com/fastguard/admin",
        "http://192.0.2.1",
        "ftp://127.0.0.1",
        "mcp.example.com",
        "https://",
        "https://user:secret@127.0.0.1",
        "http://127.0.0.1/fastguard/admin?token=secret",
        "http://127.0.0.1/#secret",
        "http://[::1",
    ],
)
def test_server_to_which_no_token_may_go_is_asked_nothing(token_file, url):
    told = failed("revoke", "--subject", "x", "--server", url, "--token-file", token_file)
    assert "--server: " in told
    assert "could not be asked" not in told
    assert "secret" not in told


@pytest.mark.parametrize("text", ["", "aaa aaa", "aaa\naaa", "Bearer aaa", "aaaö", "a" * 20_000])
def test_file_that_holds_no_token_is_told_without_its_content(tmp_path, text):
    told = failed("revoke", "--subject", "x", "--server", NOBODY, "--token-file", written(tmp_path, text))
    assert "--token-file: there is no token in it" in told
    assert "aaa" not in told


def test_token_that_cannot_be_had_is_told(tmp_path):
    told = failed("revoke", "--subject", "x", "--server", NOBODY, "--token-file", tmp_path / "none")
    assert "No such file" in told
    assert "--server needs --token-file" in failed("revoke", "--subject", "x", "--server", NOBODY)
    assert "for --server" in failed("revoke", "--subject", "x", "--token-file", tmp_path / "none")


def test_entry_that_names_nothing_is_told_before_anybody_is_asked(token_file):
    assert "names nothing" in failed("revoke", "--server", NOBODY, "--token-file", token_file)


def test_server_that_is_not_there_is_told(token_file):
    url = f"http://127.0.0.1:{free_port()}"
    told = failed("revoke", "--subject", "x", "--server", url, "--token-file", token_file)
    assert f"{url}/fastguard/admin could not be asked: Connection refused" in told


@pytest.mark.parametrize(
    "found",
    [
        answer("<html>", "404 Not Found"),
        answer('{"jsonrpc": "2.0", "id": 1, "result": {"done": false}}'),
        answer('{"jsonrpc": "2.0", "id": 1, "result": []}'),
        answer('{"error": {"data": {"code": "\\u001b[31mvermilion"}}}', "403 Forbidden"),
        answer('{"error": {"data": "code"}}', "403 Forbidden"),
        answer("[" * 60_000),
        answer('"' + "x" * 100_000 + '"'),
        answer("", "302 Found", f"Location: {NOBODY}"),
    ],
)
def test_answer_that_is_no_guards_is_told_and_not_shown(token_file, found):
    with answering(found) as url:
        told = failed("revoke", "--subject", "x", "--server", url, "--token-file", token_file)
    assert "not as a guard does" in told or "what no guard does" in told
    assert "\x1b" not in told
    assert "vermilion" not in told


def test_token_that_is_bound_to_a_key_is_refused_and_the_reason_told(served, issuer, tmp_path):
    token = administrator(issuer, cnf=Holder().confirmation)
    told = failed("revoke", "--subject", "x", "--server", served, "--token-file", written(tmp_path, token))
    assert "the token is bound to a key; this command sends it alone" in told


def test_certificate_of_the_server_must_be_of_the_authority(guard, tmp_path, token_file):
    authority = Authority(tmp_path)
    other = Authority(tmp_path, "other")
    certificate = authority.issue("localhost")
    options = {"ssl_certfile": str(certificate), "ssl_keyfile": str(certificate)}
    with running("uvicorn", guard.asgi(Inner()), **options) as port:
        ask_it = ("block", "--tool", "add", "--server", f"https://localhost:{port}", "--token-file", token_file)
        assert "certificate is not trusted" in failed(*ask_it)
        assert "certificate is not trusted" in failed(*ask_it, "--ca-file", other.file)
        assert "there is no certificate in it" in failed(*ask_it, "--ca-file", token_file)
        assert records(guard, "blocked") == []

        assert fastguard(*ask_it, "--ca-file", authority.file).returncode == 0
    assert len(records(guard, "blocked")) == 1
