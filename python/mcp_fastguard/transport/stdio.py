"""The caller of a server on standard input and output: whoever started it, as ``[stdio]`` names them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_fastguard.errors import GuardFault

if TYPE_CHECKING:
    from mcp_fastguard.guard import Guard

__all__ = ["StdioToken"]


class StdioToken:
    """Reads the token that stands for the caller (MCP: credentials come from the environment).

    A file is read again when it changes, so that a token can be renewed while the server runs.

    Raises:
        ValueError: the configuration has no ``[stdio]``.
    """

    def __init__(self, guard: Guard) -> None:
        stdio = json.loads(guard.gate.config_json()).get("stdio")
        if not stdio:
            message = 'transport="stdio" needs [stdio] in the configuration: token_file or token_variable'
            raise ValueError(message)
        self._variable: str | None = stdio.get("token_variable")
        file = stdio.get("token_file")
        self._file = Path(guard.config.folder, file) if file else None
        self._stamp: tuple[int, int] | None = None
        self._text = ""

    def read(self) -> str:
        """The token's text.

        Raises:
            GuardFault: the file cannot be read, or the variable is not set.
        """
        if self._file is None:
            text = os.environ.get(self._variable or "", "")
            if not text:
                raise GuardFault("stdio_token_missing", f"`{self._variable}` is not set")
            return text.strip()
        try:
            status = self._file.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._text = self._file.read_text(encoding="ascii").strip()
                self._stamp = stamp
        except (OSError, UnicodeDecodeError) as error:
            raise GuardFault("stdio_token_missing", "the token file cannot be read") from error
        return self._text
