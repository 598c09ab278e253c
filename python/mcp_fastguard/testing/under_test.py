"""A guard with all rules of its configuration, and keys, clock and log of a test."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mcp_fastguard._fastguard import config_warnings
from mcp_fastguard.config import GuardConfig
from mcp_fastguard.guard import Guard
from mcp_fastguard.testing.clock import FakeClock
from mcp_fastguard.testing.issuer import ALGORITHM, Caller, Issuer, TokenShape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mcp_fastguard.verifier import TokenVerifierProtocol

__all__ = ["GuardUnderTest", "as_caller", "guard", "make_token"]

logger = logging.getLogger("mcp_fastguard")

#: Stands in where a configuration names no issuer.
ISSUER: Final = "https://issuer.test"

#: Where an issuer's keys come from; tests have their own.
_KEY_SOURCES: Final = frozenset({"jwks", "jwks_file", "jwks_uri"})

#: Signs for all guards that were built without an issuer of their own: one key is made per process, not one per test.
_shared_issuer: Final = Issuer()


class GuardUnderTest(Guard):
    """A :class:`mcp_fastguard.Guard` that trusts a test's issuer, reads a test's clock, and writes its log to a temporary folder.

    All else is the configuration's: scopes, tiers, limits, and of each issuer its name, audiences, types, claims and lifetimes.

    Args:
        config: what is to be tested.
        issuer: signs the tokens; default: one that all guards of the process share.
        clock: default: a new one. Its time stands still until it is advanced.
        folder: where the audit log goes; default: a temporary folder, which is removed with the guard.

    Raises:
        GuardConfigError: the configuration cannot be used.
        ImportError: ``joserfc`` is not installed (extra ``testing``).
        ValueError: a ``verifier`` was given.
    """

    def __init__(
        self,
        config: GuardConfig,
        *,
        issuer: Issuer | None = None,
        clock: FakeClock | None = None,
        folder: str | Path | None = None,
        verifier: TokenVerifierProtocol | None = None,
    ) -> None:
        if verifier is not None:
            message = "a guard under test proves identities by the test's issuer, not by a verifier"
            raise ValueError(message)
        self.issuer = issuer or _shared_issuer
        self.clock = clock or FakeClock()
        if folder is None:
            folder = tempfile.mkdtemp(prefix="fastguard-test-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        super().__init__(_with_test_keys(config, self.issuer, Path(folder)))
        # The rooms are the real ones; they are only told the time.
        self.gate.tell_time_by(self.clock.now)
        written = json.loads(self.gate.config_json())
        shapes = (TokenShape.of_config(issuer, written["resource"]["url"]) for issuer in written["issuers"])
        self._has_stdio = bool(written["stdio"])
        self._shapes = {shape.issuer: shape for shape in shapes}
        _built[:] = [*_open(), weakref.ref(self)]

    @property
    def is_closed(self) -> bool:
        """Whether calls are refused because the guard was closed."""
        return self._outside.is_closed

    def token_of(self, caller: Caller) -> str:
        """A signed token of a caller, in the shape that the configuration wants.

        Raises:
            ValueError: the configuration has no such issuer.
        """
        name = caller.issuer or next(iter(self._shapes))
        shape = self._shapes.get(name)
        if shape is None:
            message = (
                f"the configuration has no issuer `{name}`, but {', '.join(f'`{known}`' for known in self._shapes)}"
            )
            raise ValueError(message)
        return self.issuer.sign(shape.claims(caller, self.clock.now()), type=shape.type)

    def records(self) -> list[dict[str, Any]]:
        """The records of decisions and endings so far, oldest first, as the audit log holds them.

        Raises:
            GuardFault: the log cannot be written.
        """
        if self.audit_folder is None:
            return []
        self.flush()
        files = sorted(self.audit_folder.glob("*.jsonl"))
        found = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
        return [record for record in found if record["event_type"] in {"decision", "ending"}]

    def stand_in_token(self) -> str | None:
        """The token of the caller that :func:`as_caller` has named in this context."""
        present = _present.get()
        token = None if present is None else present.token(self)
        if token is None and not self._has_stdio:
            # What a client makes of the refusal seldom says what is missing.
            logger.warning("no caller is named here: connect and use in-memory clients inside `with as_caller(...)`")
        return token


class _Present:
    """The caller of a context. Each guard gives it one token, as an authorization server would."""

    def __init__(self, caller: Caller, token: str | None, guard: GuardUnderTest | None) -> None:
        self._caller = caller
        self._token = token
        self._guard = guard
        self._tokens: weakref.WeakKeyDictionary[GuardUnderTest, str] = weakref.WeakKeyDictionary()

    def token(self, guard: GuardUnderTest) -> str | None:
        if self._guard is not None and self._guard is not guard:
            return None
        if self._token is not None:
            return self._token
        found = self._tokens.get(guard)
        if found is None:
            found = self._tokens[guard] = guard.token_of(self._caller)
        return found


#: Read by guards under test alone: no other guard asks who the caller is but its ASGI layer.
_present: ContextVar[_Present | None] = ContextVar("fastguard_testing_present", default=None)

#: The guards of this process, the newest last.
_built: Final[list[weakref.ref[GuardUnderTest]]] = []


def guard(
    config: str | Path | Mapping[str, Any] | GuardConfig,
    *,
    issuer: Issuer | None = None,
    clock: FakeClock | None = None,
    folder: str | Path | None = None,
) -> GuardUnderTest:
    """Builds a guard for tests from the configuration that is to be tested.

    Args:
        config: the path of a ``fastguard.toml``, or a dict of its shape. ``issuers`` may be left out of a dict.
        issuer: see :class:`GuardUnderTest`, the others too.
        clock: as above.
        folder: as above.

    Raises:
        GuardConfigError: the configuration cannot be used; the text names file, line, key and the nearest right key.
        ImportError: ``joserfc`` is not installed (extra ``testing``).
    """
    if isinstance(config, str | Path):
        config = GuardConfig.from_file(config)
    elif isinstance(config, Mapping):
        config = GuardConfig.from_dict(config)
    return GuardUnderTest(config, issuer=issuer, clock=clock, folder=folder)


def make_token(  # noqa: PLR0913 - a token says as much
    scopes: Sequence[str] = (),
    *,
    subject: str | None = "alice",
    client_id: str | None = "test-client",
    expires_in: float | None = None,
    issuer: str | None = None,
    guard: GuardUnderTest | None = None,
    **claims: Any,
) -> str:
    """A token that a guard under test accepts, unless an argument says otherwise.

    Args:
        scopes: what it may.
        subject: ``sub``, or None.
        client_id: the OAuth client, or None.
        expires_in: seconds from the guard's clock until ``exp``, default 300; negative for a token that has expired.
        issuer: which of the configuration's issuers; default: the first.
        guard: for whom; default: the guard under test that was built last and is not closed.
        claims: further claims; None leaves one out that would be there.

    Raises:
        LookupError: no guard under test is open.
        ValueError: the configuration has no such issuer.
    """
    caller = Caller(
        scopes=scopes,
        subject=subject,
        client_id=client_id,
        expires_in=expires_in,
        issuer=issuer,
        claims=claims,
    )
    return (guard or _newest()).token_of(caller)


@contextlib.contextmanager
def as_caller(  # noqa: PLR0913 - as above
    guard: GuardUnderTest | None = None,
    *,
    scopes: Sequence[str] = (),
    subject: str | None = "alice",
    client_id: str | None = "test-client",
    expires_in: float | None = None,
    issuer: str | None = None,
    token: str | None = None,
    **claims: Any,
) -> Iterator[Caller]:
    """Names the caller of messages that come without HTTP: those of in-memory clients that are used inside the block.

    Every message is decided by all rooms, with a token of this caller. Only guards under test honour it, and only for messages
    that no HTTP request carried: behind HTTP the proof of the ASGI layer is needed, as ever. A client must be connected inside a
    block, because its first message is guarded too; blocks inside that one name other callers.

    Args:
        guard: the only guard that is to honour it; default: every guard under test.
        scopes: see :func:`make_token`, the others too.
        subject: as above.
        client_id: as above.
        expires_in: as above.
        issuer: as above.
        token: the token's text itself, instead of one made of the other arguments.
        claims: as above.

    Raises:
        TypeError: ``guard`` was not built by this module.
    """
    if guard is not None and not isinstance(guard, GuardUnderTest):
        message = "as_caller needs a guard that mcp_fastguard.testing.guard has built"
        raise TypeError(message)
    caller = Caller(
        scopes=scopes,
        subject=subject,
        client_id=client_id,
        expires_in=expires_in,
        issuer=issuer,
        claims=claims,
    )
    before = _present.set(_Present(caller, token, guard))
    try:
        yield caller
    finally:
        _present.reset(before)


def _open() -> list[weakref.ref[GuardUnderTest]]:
    """The guards that are neither gone nor closed."""
    return [reference for reference in _built if (found := reference()) is not None and not found.is_closed]


def _newest() -> GuardUnderTest:
    found = [guard for reference in _open() if (guard := reference()) is not None]
    if not found:
        message = "a token is made for a guard: build one first by mcp_fastguard.testing.guard"
        raise LookupError(message)
    return found[-1]


def _with_test_keys(config: GuardConfig, issuer: Issuer, folder: Path) -> GuardConfig:
    """The same rules, with the keys of a test and the log in its folder."""
    if not config.is_json:
        # Raises for the text as it was written, so that the error names its file and line.
        config_warnings(config.text, config.file)
    parsed = config.tables
    issuers = parsed.get("issuers") or [{"issuer": ISSUER}]
    tested = {
        **parsed,
        "issuers": [
            {
                **{key: value for key, value in found.items() if key not in _KEY_SOURCES},
                "jwks": issuer.jwks,
                "algorithms": [ALGORITHM],
            }
            for found in issuers
        ],
        "audit": {**parsed.get("audit", {}), "path": str(folder / "audit")},
    }
    return GuardConfig.from_dict(tested, folder=config.folder)
