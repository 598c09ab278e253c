"""What the guard raises.

Three kinds, never mixed: :class:`Denied` (a room refused the call), :class:`GuardFault` (no room could decide; the call does
not run) and, for mistakes of the programmer, ``ValueError`` and ``TypeError`` where an object is built.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "ApprovalDenied",
    "BindingDenied",
    "Denied",
    "GuardConfigError",
    "GuardError",
    "GuardFault",
    "LimitDenied",
    "PolicyDenied",
    "RequestDenied",
    "SpentQuota",
    "TokenDenied",
]


class GuardError(Exception):
    """Base of all that a guard raises during a call.

    Attributes:
        method: as of ``AllowedCall``, like those below; filled in for listeners (``Guard.on_decision``), and None where it is not
            known. What a caller without a verified token asked for is never told.
        target: the name of the tool or prompt, the URI of the resource.
        subject: ``sub`` of the verified token.
        client_id: the OAuth client.
        issuer: ``iss``.
        record: the number of the decision's record; of a refusal by the gate also where nobody listens.
        record_id: the record's id, which is unique among all logs, and which ``fastguard explain`` and ``fastguard audit prove``
            take: for tickets and for the caller's own log. It is not sent to clients by itself. None where the decision has no
            record of its own: refusals before a token was verified may only be counted.
    """

    method: str | None = None
    target: str | None = None
    subject: str | None = None
    client_id: str | None = None
    issuer: str | None = None
    record: int | None = None
    record_id: str | None = None

    @property
    def tool(self) -> str | None:
        """The tool, if the call was one of a tool."""
        return self.target if self.method == "tools/call" else None


class SpentQuota(NamedTuple):
    """The window that must wait longest.

    Attributes:
        rule: the name of its rule.
        quota: how many are admitted in any window of the length.
        window: its length, in seconds.
        remaining: what is left; less than the call costs.
        unit: what is counted: ``"calls"``, ``"rows"`` or ``"bytes"``.
    """

    rule: str
    quota: int
    window: float
    remaining: int
    unit: str = "calls"


class Denied(GuardError):
    """A room refused the call. Compare ``code``, never the text.

    Attributes:
        code: stable, listed with cause and cure in ``docs/codes.md``.
        detail: for logs and records; the client never sees it.
        status: the HTTP status that the client sees.
        challenge: the ``WWW-Authenticate`` value (RFC 6750 section 3, RFC 9449 section 7.1, RFC 9728 section 5.1), or None.
        retry_after: seconds after which a retry can succeed, or None.
        config_key: the key of ``fastguard.toml`` that decides this, or None.
        nonce: what the client must put into its next proof (``DPoP-Nonce``, RFC 9449 section 9), or None.
        spent: the quota that is spent, or None.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - positional, as pickle gives them back
        self,
        code: str,
        detail: str,
        status: int = 403,
        challenge: str | None = None,
        retry_after: float | None = None,
        config_key: str | None = None,
        nonce: str | None = None,
        spent: tuple[str, int, float, int, str] | None = None,
        record_id: str | None = None,
    ) -> None:
        # All go to args, so the exception survives pickling to a worker.
        super().__init__(code, detail, status, challenge, retry_after, config_key, nonce, spent, record_id)
        self.code = code
        self.detail = detail
        self.status = status
        self.challenge = challenge
        self.retry_after = retry_after
        self.config_key = config_key
        self.nonce = nonce
        self.spent = None if spent is None else SpentQuota(*spent)
        if record_id is not None:
            self.record_id = record_id
            # The log's name, a hyphen, and the number.
            self.record = int(record_id.rpartition("-")[2])

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class RequestDenied(Denied):
    """Room ``request``: the wire is not in order (400, 404, 405, 413, 415)."""


class TokenDenied(Denied):
    """Room ``token``: no valid token (401), or its keys are not available (503)."""


class BindingDenied(Denied):
    """Room ``binding``: the token is not used by its holder (401), or no room is left to remember its proof (429)."""


class LimitDenied(Denied):
    """Room ``limits``: a quota is spent (429), or the cost cannot be read (400).

    ``retry_after`` is true; None where no time helps.
    """


class PolicyDenied(Denied):
    """Room ``policy``: valid, and too weak (403), or not bound to a key where a rule demands it (401)."""


class ApprovalDenied(Denied):
    """Room ``approval``: nobody has approved (403)."""


class GuardFault(GuardError):
    """The call could not be decided. It does not run, and the client learns only that.

    Attributes:
        code: stable, listed in ``docs/codes.md``. ``needs_authorize``: ``check`` cannot wait, ``authorize`` can.
        detail: for logs and records.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class GuardConfigError(ValueError):
    """``fastguard.toml`` cannot be used. The text names file, line, key and the nearest right one; all errors at once."""
