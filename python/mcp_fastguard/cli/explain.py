"""Why a call is decided as it is, and which line of the configuration decides it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import tomllib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mcp_fastguard._fastguard import ToolRequest, config_warnings
from mcp_fastguard.config import GuardConfig
from mcp_fastguard.errors import Denied, GuardError
from mcp_fastguard.guard import Guard

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Verdict", "decode", "explain_call", "explain_token", "read"]

ROOMS: Final = ("request", "token", "binding", "limits", "policy")

#: The key of the configuration that decides a refusal, where it is not named by the rule.
KEYS: Final = {
    "path_unknown": "resource.url",
    "algorithm_refused": "issuers.algorithms",
    "type_refused": "issuers.types",
    "issuer_unknown": "issuers.issuer",
    "key_unknown": "issuers.jwks_uri",
    "key_ambiguous": "issuers.jwks_uri",
    "keys_unavailable": "issuers.jwks_uri",
    "audience_mismatch": "issuers.audiences",
    "claim_missing": "issuers.require",
    "claim_refused": "issuers.require",
    "token_expired": "tokens.leeway",
    "token_not_yet_valid": "tokens.leeway",
    "token_from_future": "tokens.leeway",
    "lifetime_too_long": "issuers.max_lifetime",
    "quota_spent": "limits.rules",
    "windows_full": "limits.max_keys",
    "target_unknown": "tools",
}


class Verdict(NamedTuple):
    """What each room says, and what decided."""

    rooms: list[tuple[str, str, str]]
    is_allowed: bool
    decided_by: str


class Read(NamedTuple):
    """A configuration that can be used."""

    config: GuardConfig
    warnings: list[tuple[str, str]]


def read(path: Path) -> Read:
    """Reads and checks a configuration.

    Raises:
        GuardConfigError: it cannot be used.
    """
    config = GuardConfig.from_file(path)
    return Read(config, config_warnings(config.text, config.file))


def decode(token: str) -> tuple[Any, Any]:
    """Header and claims, unverified.

    Raises:
        ValueError: the text is no JWS.
    """
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - RFC 7515 section 7.1
        message = f"not a JWS in compact form: {len(parts)} parts, not 3"
        raise ValueError(message)

    def part(text: str) -> Any:
        return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))

    try:
        return part(parts[0]), part(parts[1])
    except ValueError as error:
        message = "header or claims are not JSON in base64url"
        raise ValueError(message) from error


def explain_call(path: Path, tool: str, arguments: dict[str, Any], token: str | None, session: str | None) -> Verdict:
    """Decides a call of a tool, recording and charging nothing that stays."""
    return _decide(path, ToolRequest.direct(tool=tool, arguments=arguments, token=token, session=session), ROOMS)


def explain_token(path: Path, token: str) -> Verdict:
    """Decides a harmless message, so that only the token counts."""
    return _decide(path, ToolRequest.message(method="ping", token=token), ROOMS[:3])


def _decide(path: Path, request: ToolRequest, rooms: tuple[str, ...]) -> Verdict:
    found = read(path).config
    # The same configuration without its log: explaining leaves no record, and the windows are this process's own.
    table = tomllib.loads(found.text)
    table["audit"] = {"enabled": False}
    with Guard.from_dict(table, folder=found.folder) as guard:
        try:
            allowed = asyncio.run(guard.authorize(request))
        except Denied as denied:
            return _refused(denied, rooms, found)
        except GuardError as error:
            return Verdict([("-", "fault", str(error))], is_allowed=False, decided_by="")
    words = {
        "token": f"{allowed.issuer} says {allowed.subject or allowed.client_id}",
        "limits": f"{allowed.limit}: {allowed.remaining} left" if allowed.limit else "no rule counts it",
        "policy": f"{allowed.rule}, tier {allowed.tier}",
    }
    passed = [(room, "passes", words.get(room, "")) for room in rooms]
    return Verdict(passed, is_allowed=True, decided_by=_line(found, allowed.rule) if "policy" in rooms else "")


def _refused(denied: Denied, rooms: tuple[str, ...], config: GuardConfig) -> Verdict:
    room = type(denied).__name__.removesuffix("Denied").lower().replace("limit", "limits")
    lines = []
    for name in rooms:
        if name == room:
            lines.append((name, "refuses", f"{denied.code}: {denied.detail}"))
            break
        lines.append((name, "passes", ""))
    else:
        lines.append((room, "refuses", f"{denied.code}: {denied.detail}"))
    named = re.search(r'`((?:tools|prompts|resources|methods)\."[^`]*)`', denied.detail)
    key = named.group(1) if named else KEYS.get(denied.code, "")
    return Verdict(lines, is_allowed=False, decided_by=_line(config, key) if key else "")


def _line(config: GuardConfig, key: str) -> str:
    """``file:line: key``: the line of the rule's table, or of the key."""
    table, _, rest = key.partition(".")
    name = rest.strip('"')
    heads = {f'[{table}."{name}"]', f"[{table}.{name}]"}
    fallback = None
    for number, line in enumerate(config.text.splitlines(), 1):
        text = line.split("#", 1)[0].strip()
        if text in heads or (name and text.split("=", 1)[0].strip() == name):
            return f"{config.file}:{number}: {key}"
        if fallback is None and text.strip("[]") == table:
            fallback = number
    return f"{config.file}:{fallback}: {key}" if fallback else f"{key} (default)"
