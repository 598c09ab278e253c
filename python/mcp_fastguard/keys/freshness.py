"""What a response says of time: how long it holds (RFC 9111), and when to ask again (RFC 9110 section 10.2.3)."""

from __future__ import annotations

import datetime as dt
import email.utils
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["fresh_for", "retry_after"]

#: Numbers with more digits count as this one (RFC 9111 section 1.2.2: a number too large counts as 2 ** 31).
_MOST: Final = 2.0**31


def fresh_for(headers: Mapping[str, str]) -> float | None:
    """For how many seconds a response may be used without asking again; None: it does not say.

    RFC 9111 section 4.2: ``max-age`` less ``Age``. What cannot be read counts as 0, and so do ``no-store`` and ``no-cache``.
    ``s-maxage`` is for caches that serve many, and ``Expires`` for those that know no ``max-age``: neither is read.
    """
    ages = []
    for directive in headers.get("cache-control", "").split(","):
        name, _, argument = directive.partition("=")
        match name.strip().lower():
            case "no-store" | "no-cache":
                ages.append(0.0)
            case "max-age":
                ages.append(_seconds(argument.strip().strip('"')) or 0.0)
    if not ages:
        return None
    # Section 4.2.1: of several values, the most restrictive.
    return max(0.0, min(ages) - (_seconds(headers.get("age", "").strip()) or 0.0))


def retry_after(headers: Mapping[str, str], now: dt.datetime) -> float | None:
    """In how many seconds the server wants to be asked again; None: it does not say, or what it says cannot be read.

    Args:
        headers: of a response that is an error.
        now: when it came, by the wall clock, in UTC.
    """
    text = headers.get("retry-after", "").strip()
    seconds = _seconds(text)
    if seconds is not None:
        return seconds
    try:
        then = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    # A date without a zone is one that claims no place (`-0000`), which is UTC as well.
    return max(0.0, (then.replace(tzinfo=then.tzinfo or dt.UTC) - now).total_seconds())


def _seconds(text: str) -> float | None:
    if not (text.isascii() and text.isdigit()):
        return None
    return _MOST if len(text) > len("2147483648") else min(float(text), _MOST)
