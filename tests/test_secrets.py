"""No secret that was issued reaches any place that anybody reads: the log on disk, logging, spans, metrics, what is shipped, and answers.

F32 of the requirements. Everything that a run issues is looked for in everything that it wrote.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
from pathlib import Path

import httpx2
import pytest
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from certificate_support import Authority
from mcp_fastguard import Denied, Guard, ToolRequest
from mcp_fastguard.observe import JSONFormatter, log_decisions
from mcp_fastguard.observe.prometheus import GuardCollector
from mcp_fastguard.observe.telemetry import GuardTelemetry
from mcp_fastguard.shipping import Shipper, ShipSettings
from proof_support import Holder
from shipping_support import Collector, SyslogServer, drain, server_tls
from support import RESOURCE
from transport_support import headers, message, served

FORMATS = ("json", "ocsf", "cef")


class Secrets:
    """Everything that must not be found, each with what it is."""

    def __init__(self) -> None:
        self.issued: dict[str, str] = {}

    def add(self, what: str, text: str) -> str:
        self.issued[text] = what
        return text

    def token(self, what: str, text: str) -> str:
        """A token; and each part of it that says something, the header aside, which all tokens of a key share."""
        self.add(what, text)
        for number, part in enumerate(text.split(".")[1:], 1):
            self.add(f"part {number} of {what}", part)
        return text

    def value(self, what: str) -> str:
        return self.add(what, f"hidden-{os.urandom(8).hex()}")

    def found_in(self, sinks: dict[str, str]) -> list[tuple[str, str]]:
        """Which secret stands where: as it is, in base64, or escaped for a URL."""
        return [
            (what, sink)
            for sink, written in sinks.items()
            for text, what in self.issued.items()
            if text in written or base64.b64encode(text.encode()).decode().rstrip("=") in written
        ]


def build(guard, secrets):
    mcp = MCPServer("test", middleware=[guard.mcp_middleware()])
    answer, reason = secrets.value("the result of a tool"), secrets.value("the text of a tool's error")

    @mcp.tool()
    def run_query(sql: str, password: str = "") -> str:
        return answer

    @mcp.tool()
    def add(a: int, b: int) -> int:
        raise ValueError(reason)

    guard.summarise("run_query", lambda _: raise_(ValueError(secrets.value("the text of a summary's error"))))
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    return answer, reason, guard.asgi(mcp.streamable_http_app(transport_security=security))


def raise_(error):
    raise error


async def serve(guard, issuer, secrets):
    """Calls that pass and calls that every room refuses, over HTTP; what was answered, but for what tools themselves said."""
    answer, reason, app = build(guard, secrets)
    holder, stranger = Holder(), Holder()
    bound = secrets.token("a bound token", issuer.token(cnf=holder.confirmation))
    answers = []

    async def ask(http, what, token, params, *, proof=None, path="", **more):
        method = "tools/call"
        given = {**headers(None, method, params["name"]), **more}
        if token is not None:
            given["authorization"] = f"{'DPoP' if proof else 'Bearer'} {secrets.token(what, token)}"
        if proof is not None:
            given["dpop"] = secrets.token(f"the proof of {what}", proof)
        response = await http.post(RESOURCE + path, json=message(method, params), headers=given)
        text = response.text.replace(answer, "").replace(reason, "")
        answers.append(f"{response.status_code} {dict(response.headers)} {text}")
        nonces.extend(response.headers.get_list("dpop-nonce"))
        return response.status_code

    nonces: list[str] = []
    hidden = {name: secrets.value(f"the argument {name}") for name in ("password", "other")}
    query = {"name": "run_query", "arguments": {"sql": "select marker", **hidden}}
    smuggled = issuer.token(sub="smuggler")
    inside = {
        "name": "run_query",
        "arguments": {"sql": f"select '{secrets.token('a token in a logged argument', smuggled)}'"},
    }
    claims = {"favourite": secrets.value("a claim that is not listed"), "email": secrets.value("the claim email")}
    async with served(app) as transport, httpx2.AsyncClient(transport=transport) as http:
        statuses = [
            await ask(http, "a token", issuer.token(**claims), query),
            await ask(http, "a token with a token", issuer.token(), inside),
            await ask(http, "a token whose tool fails", issuer.token(), {"name": "add", "arguments": {"a": 1, "b": 2}}),
            await ask(http, "a bound token without a nonce", bound, query, proof=holder.proof(bound)),
            await ask(http, "a bound token that is proved", bound, query, proof=holder.proof(bound, nonce=nonces[-1])),
            await ask(http, "a bound token with another's proof", bound, query, proof=stranger.proof(bound)),
            await ask(http, "a bound token as bearer", bound, query),
            await ask(http, "a token without the scope", issuer.token(scope=""), query),
            await ask(http, "an expired token", issuer.token(exp=1), query),
            await ask(http, "a token of another key", type(issuer)().token(), query),
            await ask(http, "an opaque token", f"opaque-{os.urandom(16).hex()}", query),
            await ask(http, "a token with a break in it", issuer.token()[:-9], query),
            await ask(http, "no token", None, query),
            await ask(
                http,
                "a token in the URL",
                None,
                query,
                path=f"?access_token={secrets.token('in the URL', issuer.token())}",
            ),
            await ask(http, "a token and a session", issuer.token(), query, **{"mcp-session-id": "session-1"}),
        ]
    return statuses, answers


def directly(guard, issuer, secrets):
    for what, token in (
        ("a direct token", issuer.token()),
        ("a direct token that is refused", issuer.token(aud="other")),
    ):
        try:
            guard.check(
                ToolRequest.direct(
                    tool="run_query",
                    arguments={"sql": "select marker", "password": secrets.value(f"an argument beside {what}")},
                    token=secrets.token(what, token),
                )
            )
        except Denied as denied:
            logging.getLogger("app").warning("refused: %s", denied)


@pytest.fixture
def run(config, issuer, tmp_path, caplog):
    """Everything that a run wrote, by place, and what it issued."""
    caplog.set_level(logging.DEBUG)
    secrets = Secrets()
    nonce = tmp_path / "nonce"
    nonce.write_text(secrets.value("the secret of nonces") * 3)
    tables = {**config, "dpop": {"nonce": "required", "nonce_secret_file": str(nonce)}}
    exporter, reader, registry = InMemorySpanExporter(), InMemoryMetricReader(), CollectorRegistry()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    # The end of the app's lifespan closes a guard, so that the other one decides before.
    with Guard.from_dict(tables) as guard:
        directly(guard, issuer, secrets)
    with Guard.from_dict(tables) as guard:
        guard.on_decision(log_decisions())
        registry.register(GuardCollector(guard))
        GuardTelemetry(guard, tracer_provider=tracing, meter_provider=MeterProvider([reader]))
        statuses, answers = asyncio.run(serve(guard, issuer, secrets))
    base = Path(config["audit"]["path"])
    # The keys of the log are secrets too, and have files of their own.
    keys = {base / name: secrets.add(name, (base / name).read_text().strip()) for name in ("key", "checkpoint.key")}
    shipped = ship(base, tmp_path, secrets)
    files = [file for file in base.rglob("*") if file.is_file() and file not in keys]
    formatter = JSONFormatter()
    # What the SDK's own logger says of a tool's error, and the test's clients of their URLs, is theirs.
    logged = [record for record in caplog.records if record.name.startswith(("mcp_fastguard", "app"))]
    sinks = {
        "the log on disk and the cursors": "\n".join(file.read_bytes().decode(errors="replace") for file in files),
        "logging": "\n".join(
            text for record in logged for text in (caplog.handler.format(record), formatter.format(record))
        ),
        "attributes of logging": "\n".join(repr(vars(record)) for record in logged),
        "spans": "\n".join(span.to_json() for span in exporter.get_finished_spans()),
        "metrics of OpenTelemetry": reader.get_metrics_data().to_json(),
        "metrics of Prometheus": generate_latest(registry).decode(),
        "answers": "\n".join(answers),
        **shipped,
    }
    return secrets, sinks, statuses


def ship(base, tmp_path, secrets):
    """All that is shipped, in every format, to a collector, to syslog and into files."""
    authority = Authority(tmp_path)
    bearer = tmp_path / "bearer"
    bearer.write_text(secrets.value("the token of the collector"))
    with Collector().running() as collector, SyslogServer(server_tls(authority.issue("localhost"))).running() as syslog:
        url = f"http://127.0.0.1:{collector.port}/v1/logs"
        for form in FORMATS:
            for settings in (
                ShipSettings(f"otlp-{form}", "otlp", form, url, allow_http_loopback=True, bearer_file=bearer),
                ShipSettings(
                    f"syslog-{form}", "syslog", form, f"tls://localhost:{syslog.port}", ca_file=authority.file
                ),
                ShipSettings(f"file-{form}", "file", form, path=tmp_path / "out" / form),
            ):
                drain(Shipper(base, settings))
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    return {
        "shipped by OTLP": "\n".join(body.decode() for _, body in collector.requests),
        "shipped by syslog": "\n".join(message.decode() for message in syslog.messages),
        "shipped into files": "\n".join(file.read_text() for file in files),
    }


def test_no_secret_that_was_issued_is_written_anywhere(run):
    secrets, sinks, statuses = run

    assert len(secrets.issued) > 50
    assert set(statuses) >= {200, 401, 403}
    assert secrets.found_in(sinks) == []


def test_every_place_was_looked_at_with_something_in_it(run):
    """What may be written is where it should be: the search above has searched something."""
    _, sinks, _ = run

    for sink in ("the log on disk and the cursors", "shipped by OTLP", "shipped by syslog", "shipped into files"):
        assert "select marker" in sinks[sink], sink
        assert "token_expired" in sinks[sink], sink
    for sink in (
        "logging",
        "attributes of logging",
        "spans",
        "metrics of OpenTelemetry",
        "metrics of Prometheus",
        "answers",
    ):
        assert "scope_insufficient" in sinks[sink] or "insufficient_scope" in sinks[sink], sink


def test_search_finds_a_secret_where_there_is_one(run):
    secrets, sinks, _ = run
    text, what = next(iter(secrets.issued.items()))

    for written in (text, base64.b64encode(text.encode()).decode()):
        assert secrets.found_in({**sinks, "a place": f"before {written} after"}) == [(what, "a place")]


def test_records_name_what_they_do_not_show(run):
    """The argument is named and hashed; its value is not there."""
    _, sinks, _ = run
    log = sinks["the log on disk and the cursors"]
    records = [json.loads(text) for text in log.splitlines() if text.startswith('{"seq"')]
    named = [record["input_params"]["password"] for record in records if "password" in record.get("input_params", {})]

    assert named
    assert all(set(value) == {"hash", "type", "length"} for value in named)
