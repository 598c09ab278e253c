"""Events of the Open Cybersecurity Schema Framework.

Refusals of a token and of its binding are of the class Authentication (3002), other decisions and endings of the class API
Activity (6003), and what is of the log itself, or an operator's act, of the class Base Event (0). The record's line stands in
``raw_data``, as it is in the log.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from mcp_fastguard._fastguard import __version__

if TYPE_CHECKING:
    from mcp_fastguard.shipping.item import Item

__all__ = ["OCSF_VERSION", "ocsf"]

#: The version of the schema that the events are checked against.
OCSF_VERSION: Final = "1.8.0"

_AUTHENTICATION: Final = 3002
_API_ACTIVITY: Final = 6003

_READ: Final = 2
_OTHER: Final = 99
_LOGON: Final = 1
_OAUTH: Final = 6

_SUCCESS: Final = 1
_FAILURE: Final = 2

#: Informational, medium, high.
_SEVERITY: Final = {"info": 1, "warning": 3, "error": 4}

#: Methods that only read.
_READS: Final = ("prompts/get", "resources/read")


def ocsf(item: Item) -> str:
    """The event of a record, as one line of JSON."""
    event = _event(item)
    return json.dumps({name: value for name, value in event.items() if value is not None}, ensure_ascii=False)


def _event(item: Item) -> dict[str, Any]:
    if item.event_type not in {"decision", "ending"}:
        return {**_base(item, 0, 0, _OTHER), "activity_name": item.event_type}
    if item.record.get("room") in {"token", "binding"}:
        return _authentication(item)
    return _api_activity(item)


def _base(item: Item, class_uid: int, category_uid: int, activity_id: int) -> dict[str, Any]:
    record = item.record
    metadata = {
        "version": OCSF_VERSION,
        "product": {"name": "mcp-fastguard", "vendor_name": "mcp-fastguard", "version": __version__},
        "log_name": item.log,
        "sequence": item.seq,
        "uid": record.get("id"),
        "correlation_uid": record.get("decision") or record.get("id"),
        "event_code": item.event_type,
        "log_provider": "mcp-fastguard",
        "original_time": item.timestamp,
    }
    return {
        "class_uid": class_uid,
        "category_uid": category_uid,
        "activity_id": activity_id,
        "type_uid": class_uid * 100 + activity_id,
        "time": item.milliseconds,
        "severity_id": _SEVERITY[item.weight],
        "metadata": _given(metadata),
        "message": f"{item.event_type} {item.outcome}",
        "raw_data": item.line,
    }


def _authentication(item: Item) -> dict[str, Any]:
    return {
        **_base(item, _AUTHENTICATION, 3, _LOGON),
        "user": _user(item),
        "service": {"name": "mcp-fastguard"},
        "src_endpoint": _source(item),
        "auth_protocol_id": _OAUTH,
        "session": _session(item),
        **_status(item),
    }


def _api_activity(item: Item) -> dict[str, Any]:
    record = item.record
    method = str(record.get("method") or "unknown")
    activity = _READ if method.endswith("/list") or method in _READS else _OTHER
    request_id = record.get("request_id")
    api = {
        "operation": method,
        "service": {"name": item.target} if item.target else None,
        "request": {"uid": str(request_id)} if request_id is not None else None,
    }
    authorization = {
        "decision": item.outcome,
        "policy": _given({"name": record.get("rule"), "uid": record.get("policy")}) or None,
    }
    actor = {
        "user": _user(item),
        "session": _session(item),
        "app_uid": record.get("client_id"),
        "authorizations": [_given(authorization)] if item.event_type == "decision" else None,
    }
    duration = record.get("duration_ms")
    return {
        **_base(item, _API_ACTIVITY, 6, activity),
        "activity_name": method if activity == _OTHER else None,
        "actor": _given(actor),
        "api": _given(api),
        "src_endpoint": _source(item),
        "resources": [{"name": item.target, "type": str(record.get("kind"))}] if item.target else None,
        "duration": None if duration is None else round(duration),
        **_status(item),
    }


def _status(item: Item) -> dict[str, Any]:
    record = item.record
    return {
        "status_id": _SUCCESS if item.outcome in {"allowed", "ok", "input_required"} else _FAILURE,
        "status": item.outcome,
        "status_code": record.get("code"),
        "status_detail": record.get("detail") or record.get("error"),
    }


#: What stands before a pseudonym (`[audit] pseudonyms`).
PSEUDONYM: Final = "pseudonym:"


def _user(item: Item) -> dict[str, Any]:
    record = item.record
    identity = record.get("authenticated_identity") or {}
    if not identity:
        # A user must be named; nobody's token was verified.
        return {"name": "unknown"}
    organisation = record.get("organisation_id")
    user = {
        "uid": identity.get("subject"),
        "name": identity.get("subject") or record.get("client_id") or "unknown",
        "domain": identity.get("issuer"),
        "org": {"uid": organisation} if organisation else None,
    }
    return _given(user)


def _session(item: Item) -> dict[str, Any] | None:
    session = item.record.get("session")
    return None if session is None else {"uid": session}


def _source(item: Item) -> dict[str, Any]:
    peer = item.record.get("peer")
    # An endpoint must be named; a direct call and one over standard input have no address.
    if not peer:
        return {"name": "unknown"}
    return {"name" if peer.startswith(PSEUDONYM) else "ip": peer}


def _given(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
