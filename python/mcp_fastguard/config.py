"""Reads ``fastguard.toml``. What its keys mean, and whether they are right, is decided in the core."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from mcp_fastguard._fastguard import config_json_schema
from mcp_fastguard.errors import GuardConfigError
from mcp_fastguard.renamed import with_new_names

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GuardConfig", "json_schema", "scopes_of_rules"]

logger = logging.getLogger("mcp_fastguard")

#: The end of an observation is announced this many days before.
WARNED_DAYS: Final = 7


@dataclass(frozen=True)
class GuardConfig:
    """The text of a configuration, and where it came from.

    Attributes:
        text: TOML, or JSON where ``is_json``.
        folder: relative paths of the configuration start here.
        file: its name, for messages; None where it came from no file.
        is_json: see ``text``.
    """

    text: str
    folder: Path
    file: str | None = None
    is_json: bool = False

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Reads a TOML file.

        Raises:
            GuardConfigError: it cannot be read, or is not UTF-8.
        """
        import tomllib  # noqa: PLC0415 - a tenth of the package's import, for those who read a file

        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            message = f"{path}: {error.strerror if isinstance(error, OSError) else 'not UTF-8'}"
            raise GuardConfigError(message) from error
        # The folder is fixed now: the process may change its own later.
        folder = path.resolve().parent
        try:
            renamed = with_new_names(tomllib.loads(text), str(path))
        except tomllib.TOMLDecodeError:
            # The core names the place, and all else that is wrong.
            renamed = None
        if renamed is not None:
            return cls(text=json.dumps(renamed, default=_as_text), folder=folder, file=str(path), is_json=True)
        return cls(text=text, folder=folder, file=str(path))

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], *, folder: str | Path = ".") -> Self:
        """Takes a dict of the file's shape.

        Raises:
            GuardConfigError: a value is not of JSON's types.
        """
        try:
            text = json.dumps(with_new_names(config, None) or config, allow_nan=False, default=_as_text)
        except (TypeError, ValueError) as error:
            message = f"the configuration holds a value that TOML could not: {error}"
            raise GuardConfigError(message) from error
        return cls(text=text, folder=Path(folder).resolve(), is_json=True)

    @cached_property
    def tables(self) -> dict[str, Any]:
        """What is written, as a dict of the file's shape, without defaults."""
        if self.is_json:
            parsed: dict[str, Any] = json.loads(self.text)
            return parsed
        import tomllib  # noqa: PLC0415 - see `from_file`

        return tomllib.loads(self.text)

    @property
    def resource_url(self) -> str:
        """The public URL of the MCP endpoint."""
        url: str = self.tables["resource"]["url"]
        return url

    @cached_property
    def public_paths(self) -> frozenset[str]:
        """Paths that pass unguarded."""
        return frozenset(self.tables["resource"].get("public", ()))

    def unrecorded(self) -> dict[str, Any]:
        """The same as a dict, without its log, and learning of no revocations: for looking at what processes share."""
        tables = {**self.tables, "audit": {"enabled": False}}
        tables.pop("revocations", None)
        return tables

    def by_itself(self) -> dict[str, Any]:
        """The same as a dict, without its log, and sharing nothing with other processes: for looking at rules where nothing
        should be recorded, charged or used up.
        """
        tables = {**self.tables, "audit": {"enabled": False}}
        for shared in ("state", "revocations"):
            tables.pop(shared, None)
        own = {"limits": ("mode", "degrade"), "dpop": ("replays",)}
        for table, keys in own.items():
            if table in tables:
                tables[table] = {name: value for name, value in tables[table].items() if name not in keys}
        return tables

    def warn_of_observation(self) -> None:
        """Says which rooms are only observed, and until when; nothing is said where all is enforced."""
        observe = self.tables.get("observe")
        if not observe:
            return
        until = observe["until"] if isinstance(observe["until"], date) else date.fromisoformat(observe["until"])
        rooms, left = ", ".join(observe["rooms"]), (until - datetime.now(UTC).date()).days
        if left <= 0:
            logger.warning("observe: the day %s has come: everything is enforced; remove [observe]", until)
        elif left <= WARNED_DAYS:
            logger.warning("observe: enforcement of %s begins in %d days, on %s", rooms, left, until)
        else:
            logger.warning("observe: refusals of %s are recorded and not enforced until %s", rooms, until)

    def again(self) -> GuardConfig:
        """The configuration as its file reads now; one from a dict as it was."""
        if self.file is None:
            return self
        fresh = GuardConfig.from_file(self.folder / Path(self.file).name)
        return GuardConfig(text=fresh.text, folder=self.folder, file=self.file, is_json=fresh.is_json)


def scopes_of_rules(tables: Mapping[str, Any]) -> set[str]:
    """The scopes that the rules of a configuration name.

    Args:
        tables: a dict of the file's shape, with its defaults or without.
    """
    rules = [
        rule for kind in ("tools", "prompts", "resources", "methods") for rule in (tables.get(kind) or {}).values()
    ]
    return {scope for rule in rules for key in ("scopes", "any_scopes") for scope in rule.get(key) or ()}


def _as_text(value: object) -> str:
    """TOML has dates, JSON has not.

    Raises:
        TypeError: it is no date.
    """
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    message = f"a value of type {type(value).__name__}"
    raise TypeError(message)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of ``fastguard.toml``, for editors."""
    schema: dict[str, Any] = json.loads(config_json_schema())
    return schema
