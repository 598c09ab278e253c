"""Keys of the configuration that have a new name: for one minor release the old one is read, with a warning."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

from mcp_fastguard.errors import GuardConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["with_new_names"]

#: Old key -> new key of the same table, as dotted paths; ``*`` stands for any name. An entry goes with the minor release after
#: the one that brought it.
RENAMED: Final[dict[str, str]] = {}


def with_new_names(parsed: Mapping[str, Any], file: str | None) -> dict[str, Any] | None:
    """A copy with the new names, and a ``FutureWarning`` for each old one; None where there is no old name.

    Raises:
        GuardConfigError: a table has the old name and the new one.
    """
    found = _copied(parsed)
    has_old = False
    for old, new in RENAMED.items():
        *path, old_key = old.split(".")
        new_key = new.rpartition(".")[2]
        for table in _tables(found, path):
            if old_key not in table:
                continue
            if new_key in table:
                raise GuardConfigError(
                    f"{file or 'configuration'}: `{old}` is the old name of `{new}`: only one may stand"
                )
            table[new_key] = table.pop(old_key)
            has_old = True
            message = (
                f"{file or 'configuration'}: `{old}` is now `{new}`; the old name ends with the next minor release"
            )
            # A FutureWarning is shown to whoever runs the server, not only to whoever develops it.
            warnings.warn(message, FutureWarning, stacklevel=5)
    return found if has_old else None


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(member) for key, member in value.items()}
    return [_copied(member) for member in value] if isinstance(value, list) else value


def _tables(value: Any, path: list[str]) -> Iterator[dict[str, Any]]:
    """The tables at a path; each table of an array."""
    if isinstance(value, list):
        for member in value:
            yield from _tables(member, path)
    elif isinstance(value, dict):
        if not path:
            yield value
        elif path[0] == "*":
            for member in value.values():
                yield from _tables(member, path[1:])
        else:
            yield from _tables(value.get(path[0]), path[1:])
