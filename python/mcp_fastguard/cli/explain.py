"""Why a call is decided as it is, and which line of the configuration decides it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from mcp_fastguard._fastguard import ToolRequest, config_warnings
from mcp_fastguard.cli.standing import Standing, standings
from mcp_fastguard.cli.unlogged import unlogged
from mcp_fastguard.config import GuardConfig
from mcp_fastguard.errors import Denied, GuardError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mcp_fastguard._fastguard import AllowedCall
    from mcp_fastguard.guard import Guard

__all__ = ["Verdict", "decode", "explain_call", "explain_record", "explain_token", "is_record_id", "read"]

ROOMS: Final = ("request", "token", "binding", "limits", "policy")


_RECORD_ID: Final = re.compile(r"\d{8}T\d{6}-\d+-[0-9a-f]+-\d+")


class Verdict(NamedTuple):
    """What each room says, and what decided."""

    rooms: list[tuple[str, str, str]]
    is_allowed: bool
    decided_by: str
    #: Every rule of the limits that counts the call, where the call got to them.
    limits: Sequence[Standing] = ()


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
    """Decides a call of a tool, recording and charging nothing that stays. The limits are those that processes share, where the
    server that holds them answers; else those of a process that has just begun.
    """
    request = ToolRequest.direct(tool=tool, arguments=arguments, token=token, session=session)
    found = read(path).config
    with unlogged(found) as guard:
        limits = asyncio.run(standings(found, guard, request))
        verdict = _decide(found, guard, request, ROOMS)
    spent = next((limit for limit in limits if limit.decides and not limit.has_room), None)
    if spent is not None and verdict.is_allowed:
        # Other processes have spent it: the guard at hand has windows of its own.
        at = ROOMS.index("limits")
        rooms = [*verdict.rooms[:at], ("limits", "refuses", f"{spent.rule}: {spent.left}, room {spent.room}")]
        verdict = Verdict(rooms, is_allowed=False, decided_by=_line(found, "limits.rules"))
    return verdict._replace(limits=limits)


def explain_token(path: Path, token: str) -> Verdict:
    """Decides a harmless message, so that only the token counts."""
    found = read(path).config
    with unlogged(found) as guard:
        return _decide(found, guard, ToolRequest.message(method="ping", token=token), ROOMS[:3])


def is_record_id(text: str) -> bool:
    """Whether a text is the id of a record: start of the log, process, a random part, and a number."""
    return _RECORD_ID.fullmatch(text) is not None


def explain_record(path: Path | None, record: dict[str, Any]) -> Verdict:
    """Why a recorded call was decided as it was.

    Args:
        path: the configuration, whose line is named if it is still the one in force then.
        record: a decision of the audit log.
    """
    checks = record.get("checks") or {}
    words = {"passed": "passes", "refused": "refuses", "not_reached": "not asked"}
    why = f"{record.get('code')}: {record.get('detail')}"
    rooms = [(room, words.get(said, said), why if said == "refused" else "") for room, said in checks.items()]
    key = str(record.get("config_key") or record.get("rule") or "")
    decided_by = key
    if path is not None and key:
        config = read(path).config
        decided_by = _line(config, key)
    if not record.get("enforced", True):
        decided_by += " (observed only: the call ran)"
    return Verdict(rooms, is_allowed=record.get("result") == "allowed", decided_by=decided_by)


def _decide(found: GuardConfig, guard: Guard, request: ToolRequest, rooms: tuple[str, ...]) -> Verdict:
    try:
        allowed = asyncio.run(_authorized(guard, request))
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


async def _authorized(guard: Guard, request: ToolRequest) -> AllowedCall:
    """By a call that ends at once: rules that count calls until then ask for it."""
    call = guard.call(request)
    try:
        # Only a server's layer lets pass what is observed.
        return cast("AllowedCall", await call.authorize())
    finally:
        call.close()


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
    key = denied.config_key
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
