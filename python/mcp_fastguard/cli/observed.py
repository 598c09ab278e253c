"""What would have been refused while rooms were only observed, and the configuration that would allow it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Table

from mcp_fastguard.cli.explain import is_record_id
from mcp_fastguard.cli.toml import printable, toml_key, toml_text

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Group", "groups", "table_of_groups", "toml_for"]

_TABLES = {"tool": "tools", "prompt": "prompts", "resource": "resources", "method": "methods"}


class Group(NamedTuple):
    """Refusals that have one cause."""

    code: str
    kind: str
    target: str
    client: str
    missing: tuple[str, ...]
    calls: int
    subjects: int
    config_key: str
    scopes: tuple[str, ...]
    #: The id of the last of them; empty where the records have none.
    record: str


def groups(records: Iterable[dict[str, Any]]) -> list[Group]:
    """The refusals that were not enforced, by code, target, client and missing scope; the most frequent first."""
    counts: Counter[tuple[str, str, str, str, tuple[str, ...]]] = Counter()
    subjects: dict[tuple[str, ...] | tuple[Any, ...], set[str]] = {}
    keys: dict[tuple[Any, ...], str] = {}
    held: dict[tuple[Any, ...], set[str]] = {}
    last: dict[tuple[Any, ...], str] = {}
    for record in records:
        if record.get("result") != "denied" or record.get("enforced", True):
            continue
        group = (
            str(record.get("code", "")),
            str(record.get("kind", "")),
            str(record.get("tool_name") or record.get("target") or record.get("method") or "-"),
            str(record.get("client_id") or "-"),
            tuple(sorted(record.get("missing_scopes") or ())),
        )
        counts[group] += 1
        identity = record.get("authenticated_identity") or {}
        subjects.setdefault(group, set()).add(str(identity.get("subject") or record.get("peer") or "-"))
        keys[group] = str(record.get("config_key") or "")
        last[group] = str(record.get("id") or "")
        scopes = set(record.get("scopes") or ())
        held[group] = held[group] & scopes if group in held else scopes
    return [
        Group(*group, count, len(subjects[group]), keys[group], tuple(sorted(held[group])), last[group])
        for group, count in counts.most_common()
    ]


def table_of_groups(found: list[Group]) -> Table:
    """One line a group."""
    table = Table("calls", "callers", "target", "client", "refused with", "missing scope", "decided by")
    for column in table.columns:
        # A name that is cut off cannot be looked up.
        column.overflow = "fold"
    for group in found:
        table.add_row(
            str(group.calls),
            str(group.subjects),
            f"{group.kind} {group.target}",
            group.client,
            group.code,
            " ".join(group.missing) or "-",
            group.config_key or "-",
        )
    return table


def toml_for(found: list[Group], *, options: str = "") -> str:
    """The lines that would allow these calls, as far as the configuration can; the rest is said in comments.

    Args:
        found: what was refused.
        options: what `fastguard explain` needs besides a record's id to find it.
    """
    lines: list[str] = []
    unnamed: dict[tuple[str, str], list[Group]] = {}
    for group in found:
        if group.code == "target_unknown" and group.kind in _TABLES:
            unnamed.setdefault((group.kind, group.target), []).append(group)
    for (kind, target), of_target in sorted(unnamed.items()):
        shared = set.intersection(*(set(group.scopes) for group in of_target))
        lines.append(f"# {sum(group.calls for group in of_target)} calls: no rule names it.")
        lines.append(f"[{_TABLES[kind]}.{toml_key(target)}]")
        if shared:
            lines.append(f"scopes = [{toml_text(min(shared))}]  # every caller had: {', '.join(sorted(shared))}")
        else:
            lines.append("open = true  # no scope is common to its callers: better, name one and grant it")
        lines.append("")
    for group in found:
        comments = _comments(group)
        if comments and is_record_id(group.record):
            comments.append(f"  fastguard explain {group.record}{options}")
        if comments:
            # What clients name must not end a comment and begin a table.
            lines += [f"# {printable(comment)}" for comment in comments] + [""]
    return "\n".join(lines).rstrip()


def _comments(group: Group) -> list[str]:
    """What a person must decide: grant, or loosen."""
    who = f"{group.calls} calls of {group.target} by client {group.client}"
    match group.code:
        case "target_unknown":
            return [] if group.kind in _TABLES else [f"{who}: {group.code}"]
        case "scope_insufficient":
            either = ", ".join(map(toml_text, (*group.missing, *group.scopes)))
            return [
                f"{who} lack `{' '.join(group.missing)}`: grant it there, or loosen {group.config_key}:",
                f"  any_scopes = [{either}]",
            ]
        case "quota_spent":
            rule = f'{{ per = "tool", tool = {toml_text(group.target)}, quota = "…" }}'
            return [f"{who} were over a quota: raise it in [limits] rules, or name the tool:", f"  {rule}"]
        case "tier_blocked" | "approval_required":
            return [f'{who}: its tier refuses them. If they should run: [{group.config_key}] tier = "log"']
        case _:
            return [f"{who}: {group.code}; see {group.config_key or 'docs/codes.md'}"]
