"""Writes docs/reference.md from the docstrings and signatures of the public modules.

`make docs` runs it; a test holds the page to it.

What the compiled module defines is read from its stubs. Nothing is imported, so that the page is the same wherever it is made.
"""

from __future__ import annotations

import ast
import html
import re
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = ROOT / "python" / "mcp_fastguard"
PAGE: Final = ROOT / "docs" / "reference.md"

#: The public modules, in the order of the page.
MODULES: Final = (
    "mcp_fastguard",
    "mcp_fastguard.errors",
    "mcp_fastguard.token",
    "mcp_fastguard.binding",
    "mcp_fastguard.limits",
    "mcp_fastguard.client",
    "mcp_fastguard.testing",
    "mcp_fastguard.observe",
    "mcp_fastguard.observe.prometheus",
    "mcp_fastguard.observe.telemetry",
)

INTRODUCTION: Final = """# Reference

Every public name, made from the code by `make docs`. What a name promises stands here; why it is so stands in the explanations.
Names that are not on this page are not public, and may change in any release.

"""

_SECTION: Final = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")


class Found(NamedTuple):
    """A definition, and the module in which it stands."""

    node: ast.stmt
    source: Path


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def file_of(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    for file in (path / "__init__.pyi", path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return file
    raise FileNotFoundError(module)


def exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(name, ast.Name) and name.id == "__all__" for name in node.targets
        ):
            return list(ast.literal_eval(node.value))
    return []


def find(module: str, name: str) -> Found | None:
    """The definition that a module's public name leads to, through imports."""
    file = file_of(module)
    tree = tree_of(file)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mcp_fastguard"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return find(node.module, alias.name)
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return Found(node, file)
    return None


def signature(function: ast.FunctionDef | ast.AsyncFunctionDef, name: str, *, drops_self: bool) -> str:
    arguments = function.args
    if drops_self:
        arguments = ast.arguments(
            **{field: list(value) if isinstance(value, list) else value for field, value in ast.iter_fields(arguments)}
        )
        (arguments.posonlyargs or arguments.args).pop(0)
    returns = (
        f" -> {ast.unparse(function.returns)}" if function.returns is not None and name[0] != name[0].upper() else ""
    )
    prefix = "await " if isinstance(function, ast.AsyncFunctionDef) else ""
    return f"{prefix}{name}({ast.unparse(arguments)}){returns}"


def prose(docstring: str) -> list[str]:
    """Markdown of a docstring: sections become lists, and the code of reStructuredText becomes Markdown's."""
    text = re.sub(r":\w+:`~?\.?([^`]+)`", lambda match: f"`{match[1].removeprefix('mcp_fastguard.')}`", docstring)
    text = text.replace("``", "`")
    lines: list[str] = []
    in_section = False
    for line in text.splitlines():
        section = _SECTION.match(line)
        if section:
            in_section = True
            lines += [f"*{section[1]}*", ""]
        elif in_section and (entry := re.match(r"^ {4}(\*{0,2}\w[\w, *]*): +(.*)$", line)):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif in_section and line.startswith("        "):
            lines.append(f"  {line.strip()}")
        elif in_section and line.strip():
            if not line.startswith(" "):
                in_section = False
            lines.append(line.strip())
        elif line.startswith(">>> "):
            lines += ["```python", line.removeprefix(">>> ").partition("  # doctest")[0], "```"]
        elif line.endswith("::"):
            lines.append(line[:-1])
        else:
            lines.append(line)
    return "\n".join(lines).replace("```\n```python\n", "").splitlines()


def entries(docstring: str) -> dict[str, str]:
    """What the sections of a docstring say of each name."""
    found: dict[str, str] = {}
    name = ""
    for line in docstring.splitlines():
        if entry := re.match(r"^ {4}(\w+): +(.*)$", line):
            name = entry[1]
            found[name] = entry[2]
        elif name and line.startswith("        "):
            found[name] += f" {line.strip()}"
        else:
            name = ""
    return found


def decorators(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return {ast.unparse(decorator) for decorator in node.decorator_list}


def of_class(node: ast.ClassDef) -> list[str]:
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
    maker = next((item for item in methods if item.name in {"__init__", "__new__"}), None)
    bases = [ast.unparse(base) for base in node.bases]
    head = (
        signature(maker, node.name, drops_self=True)
        if maker is not None and "Never" not in ast.unparse(maker.args)
        else node.name
    )
    lines = [
        f"### `{node.name}`",
        "",
        "```python",
        f"class {head}" if not bases else f"class {head}  # {', '.join(bases)}",
        "```",
        "",
    ]
    said = ast.get_docstring(node) or ""
    known = entries(said)
    # Attributes stand in the table below.
    lines += prose(re.sub(r"\nAttributes:\n(?: {4}.*\n?|\n)*", "\n", f"{said}\n"))
    made = ast.get_docstring(maker) if maker is not None else None
    if made:
        lines += ["", *prose(made)]
    attributes = [
        (item.target.id, ast.unparse(item.annotation), known.get(item.target.id, ""))
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not item.target.id.startswith("_")
    ]
    properties = [item for item in methods if "property" in decorators(item) and not item.name.startswith("_")]
    attributes += [
        (
            item.name,
            ast.unparse(item.returns) if item.returns else "",
            " ".join((ast.get_docstring(item) or known.get(item.name, "")).split()),
        )
        for item in properties
    ]
    if attributes:
        lines += ["", "| attribute | type | what it is |", "|---|---|---|"]
        for name, kind, text in attributes:
            # A bar would end the cell, in code too.
            kind_cell = html.escape(kind).replace("|", "&#124;")
            text_cell = " ".join(prose(text)).replace("|", "&#124;")
            lines.append(f"| `{name}` | <code>{kind_cell}</code> | {text_cell} |")
    for item in methods:
        if item in properties or item is maker or item.name.startswith("_") or not ast.get_docstring(item):
            continue
        is_static = bool(decorators(item) & {"staticmethod"})
        lines += [
            "",
            f"#### `{node.name}.{item.name}`",
            "",
            "```python",
            signature(item, item.name, drops_self=not is_static),
            "```",
            "",
        ]
        lines += prose(ast.get_docstring(item) or "")
    return lines


def merged(node: ast.ClassDef, module: str) -> ast.ClassDef:
    """A class with the members of its base in the compiled module, which is no public name of its own."""
    body = [item for part in node.body for item in (part.body if _is_for_types(part) else [part])]
    for base in [base for base in node.bases if isinstance(base, ast.Name)]:
        found = find(module, base.id)
        if (
            found is None
            or found.source != file_of("mcp_fastguard._fastguard")
            or not isinstance(found.node, ast.ClassDef)
        ):
            continue
        own = {_name_of(item) for item in body}
        body += [item for item in found.node.body if _name_of(item) not in own and not _is_docstring(item)]
        node.bases.remove(base)
        attributes = (ast.get_docstring(found.node) or "").partition("\nAttributes:\n")[1:]
        if attributes[0] and _is_docstring(body[0]):
            body[0] = ast.Expr(ast.Constant(f"{ast.get_docstring(node)}\n{''.join(attributes)}"))
    node.body = body
    return node


def _is_for_types(item: ast.stmt) -> bool:
    return isinstance(item, ast.If) and ast.unparse(item.test) == "TYPE_CHECKING"


def _is_docstring(item: ast.stmt) -> bool:
    return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)


def _name_of(item: ast.stmt) -> str | None:
    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
        return item.target.id
    return item.name if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) else None


def of_name(module: str, name: str) -> list[str]:
    found = find(module, name)
    if found is None:
        return []
    node = found.node
    if isinstance(node, ast.ClassDef):
        source = found.source.relative_to(PACKAGE.parent).with_suffix("")
        return of_class(merged(node, ".".join(source.parts).removesuffix(".__init__")))
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    lines = [f"### `{name}`", "", "```python", signature(node, name, drops_self=False), "```", ""]
    return lines + prose(ast.get_docstring(node) or "")


def page() -> str:
    lines = [INTRODUCTION]
    seen: set[str] = set()
    for module in MODULES:
        tree = tree_of(file_of(module))
        lines += [f"## {module}", "", *prose(ast.get_docstring(tree) or ""), ""]
        for name in exported(tree):
            part = of_name(module, name)
            if part and name in seen:
                lines += [f"`{name}`: see above.", ""]
            elif part:
                lines += [*part, ""]
            seen.add(name)
    text = "\n".join(line.rstrip() for line in lines)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
