"""The caller of a server on standard input and output: whoever started it, as ``[stdio]`` names them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mcp_fastguard._fastguard import ToolRequest
from mcp_fastguard.errors import GuardFault

if TYPE_CHECKING:
    from mcp_fastguard._fastguard import Attested
    from mcp_fastguard.guard import Guard

__all__ = ["StdioCaller"]

#: A command that prints a token may take this long, in seconds: it may ask a person to log in again.
COMMAND_WAIT: Final = 30.0

#: A command's output beyond this is no token, in bytes.
MAX_OUTPUT: Final = 64 * 1024

#: A printed token is replaced when this much of its life has passed, so that no call meets an expired one.
RENEWED_AT: Final = 0.8

#: A printed token that does not say how long it lives is used for this long, in seconds.
UNSTATED_LIFE: Final = 60.0


class StdioCaller:
    """Names the caller (MCP: credentials come from the environment).

    A file is read again when it changes, and a command is run again before its token expires, so that a token can be renewed
    while the server runs. Nothing of what HTTP knows is used.

    Raises:
        ValueError: the configuration has no ``[stdio]``.
    """

    def __init__(self, guard: Guard) -> None:
        stdio = json.loads(guard.gate.config_json()).get("stdio")
        if not stdio:
            message = 'transport="stdio" needs [stdio] in the configuration: a token_file, token_command or principal'
            raise ValueError(message)
        self._guard = guard
        self._variable: str | None = stdio.get("token_variable")
        self._command: list[str] = stdio.get("token_command") or []
        self._principal: str | None = stdio.get("principal")
        self._scopes: list[str] = stdio.get("scopes") or []
        file = stdio.get("token_file")
        self._file = Path(guard.config.folder, file) if file else None
        self._stamp: tuple[int, int] | None = None
        self._text = ""
        self._renewed_at = 0.0
        self._lock = asyncio.Lock()

    async def request(
        self, method: str, params: dict[str, Any] | None, request_id: str | int | None
    ) -> tuple[ToolRequest, Attested | None]:
        """A message with the caller's token, or with what stands for one.

        Raises:
            GuardFault: the file cannot be read, the variable is not set, or the command failed.
        """
        attested = None
        token = None
        if self._principal is not None:
            attested = self._guard.gate.attest_local(self._principal, self._scopes)
        elif self._command:
            token = await self._printed()
        else:
            token = self._read()
        return ToolRequest.message(method=method, params=params, id=request_id, token=token), attested

    def _read(self) -> str:
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

    async def _printed(self) -> str:
        async with self._lock:
            if time.monotonic() >= self._renewed_at:
                self._text = await self._run()
                self._renewed_at = time.monotonic() + _life(self._text) * RENEWED_AT
            return self._text

    async def _run(self) -> str:
        """Runs the command. Its words go to no shell; what it prints goes to no log."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                # The server's own standard input and output carry MCP.
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                cwd=self._guard.config.folder,
            )
        except OSError as error:
            raise GuardFault("stdio_token_missing", f"`{self._command[0]}` cannot be run: {error.strerror}") from error
        try:
            async with asyncio.timeout(COMMAND_WAIT):
                printed, _ = await process.communicate()
        except TimeoutError as error:
            raise GuardFault(
                "stdio_token_missing", f"`{self._command[0]}` gave no token in {COMMAND_WAIT:g} s"
            ) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise GuardFault("stdio_token_missing", f"`{self._command[0]}` failed with {process.returncode}")
        text = printed.strip()
        if not text or len(text) > MAX_OUTPUT or not text.isascii():
            raise GuardFault("stdio_token_missing", f"`{self._command[0]}` printed no token")
        return text.decode("ascii")


def _life(token: str) -> float:
    """Seconds until a token expires, by its own word: it only paces the command. The gate judges the token."""
    try:
        payload = token.split(".")[1]
        expires_at = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        return max(0.0, min(float(expires_at) - time.time(), 86_400.0))
    except (IndexError, KeyError, TypeError, ValueError):
        return UNSTATED_LIFE
