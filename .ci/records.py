"""Writes docs/audit-records.md from the JSON Schema of the audit log's records.

`make docs` runs it; a test holds the page to it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
SCHEMA: Final = ROOT / "python" / "mcp_fastguard" / "audit.schema.json"
PAGE: Final = ROOT / "docs" / "audit-records.md"

INTRODUCTION: Final = """# Records of the audit log

Each line of an [audit log](rooms/audit.md) is a JSON object of one of these kinds, which `event_type` names. Members stand in the
order that is given here, and those without a value are left out. No member is ever renamed.

This page is made from the JSON Schema that is in the package: `fastguard audit schema` prints it (draft 2020-12).
"""


def type_of(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """The type of a value, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "argument" if name == "argument" else type_of(definitions[name], definitions)
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("format") == "date-time":
        return "time"
    if schema["type"] == "array":
        return f"list of {type_of(schema['items'], definitions)}s"
    return str(schema["type"])


def rows(schema: dict[str, Any], definitions: dict[str, Any], prefix: str = "") -> list[str]:
    """A line of a table for each member, and for those of members that are objects."""
    found = []
    for name, member in schema["properties"].items():
        always = "always" if name in schema["required"] else ""
        text = member["description"].replace("|", "&#124;")
        found.append(f"| `{prefix}{name}` | {type_of(member, definitions)} | {always} | {text} |")
        items = member.get("items", {})
        if "properties" in member:
            found += rows(member, definitions, f"{prefix}{name}.")
        elif "properties" in items:
            found += rows(items, definitions, f"{prefix}{name}[].")
    return found


def page() -> str:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    definitions = schema["$defs"]
    lines = [INTRODUCTION]
    for kind in schema["oneOf"]:
        name = kind["$ref"].rpartition("/")[2]
        record = definitions[name]
        lines += [
            f"## `{name}`",
            "",
            record["description"],
            "",
            "| member | type | | what it is |",
            "|---|---|---|---|",
        ]
        lines += [*rows(record, definitions), ""]
    lines += ["## An argument", "", definitions["argument"]["description"], "", "| member | type | | what it is |"]
    lines.append("|---|---|---|---|")
    for form in definitions["argument"]["anyOf"]:
        lines += rows(form, definitions) if "properties" in form else []
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
