"""Bearer tokens that lie in files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MAX_BEARER_BYTES", "BearerFileError", "bearer_in"]

#: Longest bearer token that is sent. A file that is longer is not one token.
MAX_BEARER_BYTES: Final = 16 * 1024

#: `b64token` of RFC 6750 section 2.1.
_BEARER: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


class BearerFileError(Exception):
    """The file has no token; the text says why, and nothing of what is in it."""


def bearer_in(file: Path | None) -> str | None:
    """The token in the file. It is renewed there, so it is read each time. None where there is no file.

    Raises:
        BearerFileError: the file cannot be read, or holds something else.
    """
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_BEARER_BYTES + 1).decode("ascii").strip()
    except OSError as error:
        raise BearerFileError(f"`bearer_file`: {error.strerror}") from error
    except UnicodeDecodeError:
        text = ""
    if len(text) > MAX_BEARER_BYTES or _BEARER.fullmatch(text) is None:
        raise BearerFileError("`bearer_file` does not hold one bearer token (RFC 6750 section 2.1)")
    return text
