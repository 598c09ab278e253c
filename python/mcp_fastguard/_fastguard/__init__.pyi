from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final, Never, Protocol, Self, final

__all__ = [
    "CERTIFICATE_HEADERS",
    "LEASE_PART",
    "MAX_BODY_BYTES",
    "MAX_BODY_BYTES_BEFORE_TOKEN",
    "MAX_INTROSPECTION_BYTES",
    "MAX_KEY_SET_BYTES",
    "Admission",
    "Agreeing",
    "AllowedCall",
    "Asking",
    "Attested",
    "BoundToken",
    "DPoPVerifier",
    "Gate",
    "KeySet",
    "MergedLogs",
    "MeteredWindow",
    "ObservedCall",
    "OpenCall",
    "Permits",
    "Pseudonyms",
    "SlidingWindow",
    "TokenVerifier",
    "ToolRequest",
    "VerifiedToken",
    "Waiting",
    "__version__",
    "check_proof",
    "config_json_schema",
    "config_warnings",
    "cosign",
    "cosigned_at",
    "empty_call",
    "fault_next",
    "forget_log",
    "panic_next",
    "prove_growth",
    "prove_record",
    "prune_log",
    "registered_logs",
    "repair_logs",
    "result_counts",
    "revocation_settings",
    "ship_settings",
    "verify_compact",
    "verify_log",
    "verify_logs",
    "whole_body",
    "witness_key",
]

__version__: Final[str]
#: Headers, in lower case, in which proxies hand on what they know of the client's certificate.
CERTIFICATE_HEADERS: Final[frozenset[bytes]]
#: A lease lasts this part of the window.
LEASE_PART: Final[float]
MAX_BODY_BYTES: Final[int]
MAX_BODY_BYTES_BEFORE_TOKEN: Final[int]
MAX_INTROSPECTION_BYTES: Final[int]
MAX_KEY_SET_BYTES: Final[int]

# --- room request -------------------------------------------------------------------------------

@final
class ToolRequest:
    """One request, as it came. Nothing is judged before :meth:`Guard.check`."""

    def __new__(cls, proof: Never) -> ToolRequest: ...
    @staticmethod
    def http(
        *,
        method: str,
        path: str,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes | None = None,
        peer: str | None = None,
        query: bytes | None = None,
        certificate: str | None = None,
    ) -> ToolRequest:
        """A raw HTTP request.

        Args:
            method: ``"POST"``, ``"GET"`` or ``"DELETE"``; others are refused by ``check``.
            path: the path without query, decoded, as ASGI's ``scope["path"]``.
            headers: name and value, raw, in wire order; names in any case.
            body: the whole body; None means unseen, and fails closed where the body decides.
            peer: the IP address of the connection, or None.
            query: the query without its ``?``, as ASGI's ``scope["query_string"]``. Only signatures cover it.
            certificate: the client's, in PEM, as the server that ended TLS has verified it. Counts with ``certificates.source = "tls"``.

        Raises:
            TypeError: a header is not a pair of bytes.
            ValueError: ``peer`` is not an IP address.
        """
    @staticmethod
    def of_scope(path: str, scope: MutableMapping[str, Any], body: bytes | None) -> ToolRequest:
        """What came under a path of an ASGI connection; without a body that of its head alone.

        Raises:
            KeyError: the scope is not whole.
            TypeError: a header is not a pair of bytes.
        """
    @staticmethod
    def direct(
        *,
        tool: str,
        arguments: dict[str, Any] | None = None,
        token: str | None = None,
        session: str | None = None,
        peer: str | None = None,
    ) -> ToolRequest:
        """A call of a tool by a caller that has parsed it already.

        Raises:
            TypeError: an argument is not of JSON's types.
            ValueError: an argument nests too deeply or is not finite; ``peer`` is not an IP address.
        """
    @staticmethod
    def message(
        *,
        method: str,
        params: dict[str, Any] | None = None,
        id: str | int | None = None,
        token: str | None = None,
        session: str | None = None,
    ) -> ToolRequest:
        """Any message of MCP that an SDK has parsed. Raises like :meth:`direct`."""
    def is_message(self, method: str, params: dict[str, Any] | None = None) -> bool:
        """Whether an SDK's message is the one that this HTTP request carried: same method, target and arguments."""
    def asked(self) -> tuple[str, str | None] | None:
        """Method and target (the name of a tool or prompt, the URI of a resource); None where they cannot be read, and for bodies
        of more than 64 KiB. Nothing is proved by it.
        """
    @property
    def peer(self) -> str | None:
        """The IP address of the connection; None where it is unknown, or only the server's word (uvicorn's ``--proxy-headers``)."""
    @property
    def speaks_of_certificates(self) -> bool:
        """Whether a header says something of the client's certificate, be it true or not."""
    @property
    def has_proofs(self) -> bool:
        """Whether the app must not see the headers as they came: a certificate, or a token under ``DPoP``."""

    @property
    def is_under_dpop(self) -> bool:
        """Whether the token came under the scheme ``DPoP`` (RFC 9449 section 7.1)."""

# --- room token ---------------------------------------------------------------------------------

@final
class KeySet:
    """Keys that can verify (RFC 7517), prepared once."""

    def __new__(cls, proof: Never) -> KeySet: ...
    @staticmethod
    def from_jwks(jwks: str | bytes | Mapping[str, Any], *, allow_symmetric: bool = False) -> KeySet:
        """Reads a set, or one key. Keys that cannot verify are left out and listed in :attr:`skipped`.

        Args:
            jwks: JSON text, or a dict of it; at most 512 KiB and 100 keys.
            allow_symmetric: reads ``oct`` keys. Whoever verifies with one can sign too, so never for what others issue.

        Raises:
            ValueError: not a key set, or no key of it can verify.
        """
    @property
    def skipped(self) -> list[tuple[int, str | None, str]]:
        """Keys that cannot verify: place in the set, ``kid``, reason."""
    def __len__(self) -> int: ...

def verify_compact(compact: str, keys: KeySet, *, algorithms: Sequence[str]) -> tuple[dict[str, Any], bytes]:
    """Verifies a JWS in compact serialisation (RFC 7515) and nothing else: no claim is read.

    Args:
        compact: the text, at most 16 KiB.
        keys: where the key is found by ``kid``; without ``kid`` exactly one key must fit.
        algorithms: names that are accepted, in their exact case.

    Returns:
        The header, and the payload's bytes.

    Raises:
        TokenDenied: it does not verify.
        ValueError: an algorithm is not known.
    """

@final
class VerifiedToken:
    """Proof that a token's signature, issuer, audience, times and type are in order.

    Attributes:
        subject: ``sub``.
        client_id: the OAuth client, from the first of ``client_claims`` that the token has.
        issuer: ``iss``.
        audience: ``aud``, as a tuple also where the token has one.
        scopes: from the first of ``scope_claims`` that the token has.
        expires_at: ``exp``, in seconds since the epoch.
        issued_at: ``iat``, likewise.
        token_id: ``jti``; for tokens without one, ``sha-256:`` and a digest of header and payload.
        thumbprint: ``cnf.jkt`` (RFC 9449 section 6.1), where the token is bound to a key.
        organisation: the claim that ``organisation_claim`` names.
        claims: all of them, as a new dict each time.
    """

    def __new__(cls, proof: Never) -> VerifiedToken: ...
    @property
    def subject(self) -> str | None: ...
    @property
    def client_id(self) -> str | None: ...
    @property
    def issuer(self) -> str: ...
    @property
    def audience(self) -> tuple[str, ...]: ...
    @property
    def scopes(self) -> tuple[str, ...]: ...
    @property
    def expires_at(self) -> float: ...
    @property
    def issued_at(self) -> float | None: ...
    @property
    def token_id(self) -> str: ...
    @property
    def thumbprint(self) -> str | None: ...
    @property
    def organisation(self) -> str | None: ...
    @property
    def claims(self) -> dict[str, Any]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class TokenVerifier:
    """Verifies access tokens of one issuer (RFC 9068, RFC 8725)."""

    def __new__(
        cls,
        *,
        issuer: str,
        audience: str | Sequence[str],
        keys: KeySet,
        algorithms: Sequence[str],
        leeway: float = 30.0,
        types: Sequence[str] | None = None,
        max_lifetime: float = 3600.0,
        cache_size: int | None = None,
        require: Mapping[str, Any] | None = None,
    ) -> TokenVerifier:
        """Checks its options and prepares.

        Args:
            issuer: the exact value of ``iss``.
            audience: values of ``aud``, one of which a token must have exactly.
            keys: the issuer's keys.
            algorithms: accepted names. A longer list gives whoever finds a weakness in one of them more to choose from.
            leeway: seconds of tolerance for clocks, at most 300. A longer one lets expired tokens live on.
            types: accepted ``typ``, default ``["at+jwt"]``. ``"JWT"`` and ``""`` need ``require``, so that no ID token passes.
            max_lifetime: longest accepted ``exp`` minus ``iat``, in seconds, 1 to 86400.
            cache_size: verified tokens that are kept, default 10000; 0 verifies anew each time.
            require: claims that must be there (True) or equal a value.

        Raises:
            ValueError: an option is impossible or contradicts another.
        """
    def verify(self, text: str, now: float | None = None) -> VerifiedToken:
        """Verifies one token.

        Args:
            text: the token, at most 16 KiB.
            now: seconds since the epoch; left out, the system's clock is read.

        Raises:
            TokenDenied: it is not valid; ``code`` says why.
        """

# --- room binding -------------------------------------------------------------------------------

@final
class BoundToken:
    """Proof that a token is used by the holder of the key that it is bound to.

    Attributes:
        token: the verified token.
    """

    def __new__(cls, proof: Never) -> BoundToken: ...
    @property
    def token(self) -> VerifiedToken: ...
    @property
    def thumbprint(self) -> str:
        """The key's SHA-256 thumbprint (RFC 7638) in base64url: ``cnf.jkt`` of the token."""
    @property
    def nonce(self) -> str | None:
        """The nonce that the client should use from now on, for the answer's ``DPoP-Nonce``, where the proof's own is about to end."""

@final
class DPoPVerifier:
    """Verifies proofs of possession (RFC 9449 section 4.3) and remembers those that were used."""

    def __new__(
        cls,
        *,
        max_age: float = 300.0,
        algorithms: Sequence[str] | None = None,
        leeway: float = 30.0,
        replay_entries: int | None = None,
        nonce_secret: bytes | None = None,
    ) -> DPoPVerifier:
        """Checks its options and makes an empty store.

        Args:
            max_age: largest distance between ``iat`` and now, in seconds, 1 to 300. A longer one lets proofs made in advance live on.
            algorithms: accepted names of ``ES256``, ``ES384``, ``ES512``, ``EdDSA``, ``Ed25519``, ``PS256`` and ``RS256``; default
                ``["ES256", "EdDSA"]``. The two names of Ed25519 come together.
            leeway: seconds of tolerance for clocks, added to ``max_age``; both together count for 300 at most.
            replay_entries: used proofs that are remembered at once, 1024 to 100000000, default 1000000; each costs about 40 bytes. A
                full store refuses; it never forgets a proof that could be used again. No principal holds more than 1/64 of it.
            nonce_secret: at least 32 random bytes. With it, a proof must carry a nonce that was made of it within the last two minutes
                (RFC 9449 section 9); processes that have the same secret take each other's, and those of guards with this
                ``dpop.nonce_secret_file``. Left out, none is asked for, and a proof made in advance is good for all of ``max_age``.

        Raises:
            ValueError: an option is impossible.
        """
    def nonce(self, *, now: float | None = None) -> str:
        """The nonce to give out now: for the ``DPoP-Nonce`` of an answer that refuses nothing. A refusal for want of one brings it as ``nonce``.

        Args:
            now: seconds since the epoch; left out, the system's clock is read. As with ``confirm``, one or the other.

        Raises:
            GuardFault: times of two clocks were given.
            ValueError: the verifier was built without ``nonce_secret``.
        """
    def confirm(
        self,
        token: VerifiedToken,
        proof: str,
        *,
        method: str,
        url: str,
        access_token: str,
        body: bytes | None = None,
        now: float | None = None,
    ) -> BoundToken:
        """Confirms that a request comes from the holder of the token's key. The proof is used up by it.

        Args:
            token: the verified token, bound by ``cnf.jkt``.
            proof: the value of the one ``DPoP`` header.
            method: the request's method, in its exact case.
            url: the URL that the request was made to, as clients know it; never taken from headers that clients can set.
            access_token: the token's text as it was presented.
            body: the request's body. A proof with ``content_digest`` must match it, and is refused where it is left out.
            now: seconds since the epoch; left out, the system's clock is read. One or the other, never both.

        Raises:
            BindingDenied: the proof is not valid; ``code`` says why. With ``nonce_required``, ``nonce`` is the one to give out.
            GuardFault: times of two clocks were given.
            ValueError: ``url`` is not absolute.
        """
    def __len__(self) -> int:
        """How many used proofs are remembered."""

# --- room limits --------------------------------------------------------------------------------

@final
class Admission:
    """What a window said. True where it admitted.

    Attributes:
        allowed: whether it was admitted, and charged.
        remaining: how much the window has left now.
        retry_after: in how many seconds the same cost is admitted if nobody else comes; None where it was admitted, or never can be.
    """

    def __new__(cls, proof: Never) -> Admission: ...
    @property
    def allowed(self) -> bool: ...
    @property
    def remaining(self) -> int: ...
    @property
    def retry_after(self) -> float | None: ...
    def __bool__(self) -> bool: ...

@final
class SlidingWindow:
    """At most ``quota`` in any window, for each key: in every interval of that length, never more; and what was charged is
    given back at most 1/64 of the window late.
    """

    def __new__(cls, quota: int, window: float, *, max_keys: int = 1_000_000) -> SlidingWindow:
        """Makes an empty table.

        Args:
            quota: how many, at most 4294967295; 0 admits nothing.
            window: seconds, from 0.001 to 31 days.
            max_keys: most keys at once. When the table is full, new keys share one window of the quota; it never forgets a key that
                counts.

        Raises:
            ValueError: a value is out of its range.
        """
    def admit(self, key: str | bytes, cost: int = 1, now: float | None = None) -> Admission:
        """Charges the key's window, if it has room.

        Args:
            key: who.
            cost: how much.
            now: any monotonic seconds; left out, the system's monotonic clock. One or the other, never both.

        Raises:
            GuardFault: times of two clocks were given.
        """
    def __len__(self) -> int: ...

class _Charge(Protocol):
    """What :class:`Permits` read of a charge."""

    @property
    def key(self) -> bytes: ...
    @property
    def quota(self) -> int: ...
    @property
    def window(self) -> float: ...
    @property
    def cost(self) -> int: ...
    @property
    def is_look(self) -> bool: ...

@final
class Permits:
    """What a process may use of shared windows without asking the store, and its own windows. All its threads share them."""

    def __new__(cls, processes: int) -> Permits:
        """None yet.

        Args:
            processes: how many share the quotas.

        Raises:
            ValueError: there is none.
        """
    def is_leased(self, quota: int, window: float) -> bool:
        """Whether a rule of this quota and window (seconds) takes permits in advance; others are counted exactly."""
    def take(self, charges: Sequence[_Charge]) -> list[int] | None:
        """Uses the permits at hand: what each window has left. None where they do not suffice, and then nothing is used.

        Raises:
            ValueError: a charge cannot be counted, or two have the same key.
        """
    def begin(
        self, charges: Sequence[_Charge], *, must_ask: bool = False
    ) -> list[int] | tuple[int, float, int] | int | Asking:
        """Decides a call by the permits at hand, or begins a question to the store.

        Args:
            charges: what it is charged, no two in one window.
            must_ask: the call needs the store's word besides.

        Returns:
            What each window has left, where all was at hand, and is used. The place of the charge that has no room, in how many
            seconds there is, and what is left, where the store has said so a moment ago. The number of another question that
            asks for what is lacking: wait for it, and begin again. Or a question, which must be asked, and ended.
        """
    def settle(self, charges: Sequence[_Charge]) -> None:
        """Charges the process's own windows for what was used of leases, so that they tell the truth."""
    def bound(self, quota: int, window: float) -> SlidingWindow:
        """The process's own window that holds what the store admits: the whole quota over 7/8 of the window."""
    def share(self, quota: int, window: float) -> SlidingWindow:
        """The process's share of the quota, for when the store is away."""
    @property
    def answered(self) -> int:
        """How many calls the gate has decided by them alone."""
    def __len__(self) -> int: ...
    def after_fork(self) -> None:
        """In a child process: the permits are the parent's."""

@final
class Asking:
    """A question to the store for a call that lacks permits. It ends once: what is forgotten gives back what it holds."""

    def __new__(cls, *_: Never) -> Never: ...
    @property
    def number(self) -> int:
        """By which others know that it is under way."""
    @property
    def questions(self) -> list[tuple[int, int, int, int, int]]:
        """What leases ask for: the place of the charge, what is needed, what is wanted, the slot that something is given back to, and
        how much.
        """
    @property
    def exact(self) -> list[int]:
        """The places of the charges that the same question is to make exactly."""
    def granted(self, given: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]] | tuple[int, float, int]:
        """The store has granted all.

        Args:
            given: for each question how much, what is left, and the slot.

        Returns:
            The place of each leased window, and what it has left. Or, as of :meth:`Permits.begin`, the one in which this process has
            used the whole quota, whatever the store says.

        Raises:
            TimeoutError: a lease has ended meanwhile.
            ValueError: it has ended already.
        """
    def refused(self, question: int | None, retry_after: float) -> None:
        """The store has no room.

        Args:
            question: in the window of this one; None where it is that of something else.
            retry_after: seconds until there is.

        Raises:
            ValueError: it has ended already.
        """
    def give_up(self) -> None:
        """There is no answer. May come after one."""

@final
class MeteredWindow:
    """A quota in any window, for each key, of what is known only afterwards: whoever has spent it is refused until there is room
    for 1, and one charge may go beyond it.
    """

    def __new__(cls, quota: int, window: float, *, max_keys: int = 1_000_000) -> MeteredWindow:
        """Makes an empty table; see :class:`SlidingWindow`."""
    def look(self, key: str | bytes, now: float | None = None) -> Admission:
        """Whether the key's window has room for 1. Charges nothing.

        Raises:
            GuardFault: times of two clocks were given.
        """
    def charge(self, key: str | bytes, amount: int, now: float | None = None) -> None:
        """Charges the key's window, whether it has room or not.

        Raises:
            GuardFault: times of two clocks were given.
        """
    def __len__(self) -> int: ...

def panic_next() -> None:
    """The next work of the core on this thread panics. Only in builds with debug assertions: for tests."""

def fault_next(code: str) -> None:
    """The next decision on this thread is none, because of the log: ``"audit_queue_full"`` or ``"audit_failed"``. Only in builds
    with debug assertions: for tests.

    Raises:
        ValueError: another code.
    """

def empty_call(key: str, cost: int = 1, now: float | None = None) -> None:
    """Does nothing: what every call across the boundary costs at least. For benches."""

# --- room policy --------------------------------------------------------------------------------

@final
class AllowedCall:
    """Proof that a call may run, short of the approvals that its rule may demand.

    Attributes:
        subject: ``sub`` of the token.
        client_id: the OAuth client.
        issuer: ``iss``.
        organisation: the claim that ``organisation_claim`` names.
        actor: ``sub`` of ``act`` (RFC 8693 section 4.1): who acts for the subject.
        scopes: those of the token.
        kind: ``"tool"``, ``"prompt"``, ``"resource"`` or ``"method"``: which table of rules decided.
        method: of the message, as ``tools/call``.
        target: what the rules name: the name of a tool or prompt, the URI of a resource, else the method.
        tool: the target, where it is a tool.
        request_id: JSON text of the request's id, where there is one.
        tier: ``"auto"``, ``"log"`` or ``"approve"``, as the rule says.
        rule: the key of the rule that allowed the call, as ``tools.run_query``.
        remaining: how many more calls the tightest limit admits now.
        limit: the name of that limit's rule.
        owes: whether a rule with ``concurrent`` or ``meter`` counts the call until it ends.
        record: the number of the decision's record; 0 without a log.
        dpop_nonce: what the client should put into its next proof, where its nonce is about to end (RFC 9449 section 8.2).
        token: the verified token.
    """

    def __new__(cls, proof: Never) -> AllowedCall: ...
    @property
    def subject(self) -> str | None: ...
    @property
    def client_id(self) -> str | None: ...
    @property
    def issuer(self) -> str: ...
    @property
    def organisation(self) -> str | None: ...
    @property
    def actor(self) -> str | None: ...
    @property
    def scopes(self) -> tuple[str, ...]: ...
    @property
    def kind(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def tool(self) -> str | None: ...
    @property
    def request_id(self) -> str | None: ...
    @property
    def tier(self) -> str: ...
    @property
    def rule(self) -> str: ...
    @property
    def remaining(self) -> int | None: ...
    @property
    def limit(self) -> str | None: ...
    @property
    def owes(self) -> bool: ...
    @property
    def record(self) -> int: ...
    @property
    def dpop_nonce(self) -> str | None: ...
    @property
    def token(self) -> VerifiedToken: ...

# --- the corridor -------------------------------------------------------------------------------

@final
class Waiting:
    """A call that waits: for an issuer's keys, or for what the verifier or the issuer finds of a token."""

    def __new__(cls, proof: Never) -> Waiting: ...
    @property
    def issuer(self) -> str | None:
        """The issuer whose keys are needed."""
    @property
    def credential(self) -> str | None:
        """The text of the token that the verifier, or its issuer, must look at."""

@final
class Agreeing:
    """A call for which other processes must be asked, once; then ``Gate.agreed`` decides."""

    def __new__(cls, proof: Never) -> Agreeing: ...
    @property
    def claims(self) -> list[tuple[bytes, float]]:
        """The proof and the signature that no other process may take: a key (16 bytes), and for how many seconds it must be remembered."""
    @property
    def charges(self) -> list[tuple[str, bytes, int, float, int, bool]]:
        """One for each shared window: the rule's name, the key (16 bytes), the quota, the window in seconds, the cost; and whether it is
        only asked for room, because it counts what results have.
        """
    @property
    def places(self) -> list[tuple[str, bytes, int]]:
        """One for each place among the calls that run: the rule's name, the key (16 bytes), how many may run at once."""
    @property
    def ticket(self) -> int | None:
        """By which number ``Gate.take_ended`` will tell of the call's ending; None where it owes nothing then."""

@final
class Attested:
    """What a verifier has found of a token: whose it is, or why it is refused."""

    def __new__(cls, proof: Never) -> Attested: ...

@final
class ObservedCall:
    """A call that an observed room refused and that runs all the same. Never an :class:`AllowedCall`.

    What names a caller is None where the token was refused: then the call is nobody's.
    """

    def __new__(cls, proof: Never) -> ObservedCall: ...
    @property
    def owes(self) -> bool: ...
    @property
    def code(self) -> str:
        """Why it would have been refused."""
    @property
    def room(self) -> str:
        """The room that would have refused it."""
    @property
    def detail(self) -> str: ...
    @property
    def subject(self) -> str | None: ...
    @property
    def client_id(self) -> str | None: ...
    @property
    def issuer(self) -> str | None: ...
    @property
    def organisation(self) -> str | None: ...
    @property
    def actor(self) -> str | None: ...
    @property
    def scopes(self) -> tuple[str, ...]: ...
    @property
    def kind(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def tool(self) -> str | None: ...
    @property
    def request_id(self) -> str | None: ...
    @property
    def record(self) -> int: ...
    @property
    def dpop_nonce(self) -> str | None: ...
    @property
    def token(self) -> VerifiedToken | None: ...

class OpenCall:
    """What is known of a call on its way, and its steps that wait for nothing; :class:`Call` walks it through the rooms.

    Attributes:
        guard: whose decision it is.
        request: what came.
        is_settled: whether room approval has let it pass.
        is_taken: whether a message layer has taken it for its message, which happens once.
        is_closed: whether its ending is recorded.
    """

    is_taken: bool

    def __new__(
        cls,
        guard: Any,
        request: ToolRequest,
        proof: AllowedCall | ObservedCall | None = None,
        *,
        observes: bool = False,
        attested: Attested | None = None,
    ) -> Self: ...
    @property
    def guard(self) -> Any: ...
    @property
    def request(self) -> ToolRequest: ...
    @property
    def is_settled(self) -> bool: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def proof(self) -> AllowedCall | ObservedCall:
        """What :meth:`Call.authorize` proved; an ``ObservedCall`` only where a server's layer observes.

        Raises:
            GuardFault: nothing was proved yet.
        """
    @property
    def needs_layer(self) -> bool:
        """Whether the call may not pass without a message layer: lists are filtered there, and a call that is counted until it
        ends must be seen to end.
        """
    @property
    def _is_proved(self) -> bool: ...
    @property
    def _owes(self) -> bool:
        """Whether a rule counts the call until it ends, which other processes may have to know."""
    @property
    def _observes(self) -> bool: ...
    @property
    def _attested(self) -> Attested | None: ...
    def _decide(self) -> bool:
        """Whether the gate lets the call pass at once. What it decides otherwise is kept for :meth:`_take_decision`; nothing is
        kept, and nothing was charged, where the log has no room at once.

        Raises:
            Denied: a room refused it.
            GuardFault: it cannot be decided.
        """
    def _take_decision(self) -> AllowedCall | ObservedCall | Waiting | Agreeing | None: ...
    def _prove(self, proof: AllowedCall | ObservedCall) -> None: ...
    def _settle(self) -> None: ...
    def _look_again(self) -> None:
        """The last look before room execute.

        Raises:
            GuardFault: the call was not settled, or has ended.
            Denied: the token expired or was revoked while the call waited.
        """
    def note(self, *, rows: int | None = None, bytes_scanned: int | None = None) -> None:
        """Adds counts to the ending's record.

        Raises:
            RuntimeError: the call has ended.
            ValueError: a count is negative.
        """
    def _finish(
        self,
        result: Any,
        status: str | None = None,
        error: str | None = None,
        summary: tuple[int | None, int | None, bool, int | None, bool, bool] | None = None,
    ) -> None:
        """Takes note of how the call ended. ``summary``: of the result, by the tool itself; default: its counts and sizes."""
    def _ran(self) -> None: ...
    def _pass(self) -> None: ...
    def _fail(self, status: str, error: str) -> None: ...
    def close(self) -> None:
        """Records the ending, once. Without a proof there is nothing to end.

        Raises:
            GuardFault: the ending cannot be recorded.
        """
    def take(self, method: str, params: Mapping[str, Any] | None) -> bool:
        """Whether this call is the proof for a message, and was not spent before. Taking spends it."""
    def comes_with(self, params: Mapping[str, Any] | None) -> None:
        """Takes note of what a client brings that was asked for something (MCP 2026-07-28, multi round-trip requests), so that
        the records of all rounds of one call are joined. Of the state a keyed digest is recorded, of the answers nothing.
        """

@final
class Gate:
    """Rooms 0 to 4 and the log. Use it through :class:`mcp_fastguard.Guard`."""

    def __new__(
        cls, text: str, *, folder: Path, file: str | None = None, is_json: bool = False, has_verifier: bool = False
    ) -> Gate: ...
    def tell_time_by(self, clock: Callable[[], float]) -> None:
        """Has the time told by a test's clock wherever none is given: in seconds since the epoch.

        Raises:
            ValueError: it has a clock already.
        """
    def check(self, request: ToolRequest, now: float | None = None) -> AllowedCall: ...
    def decide(
        self,
        request: ToolRequest,
        *,
        has_waited: bool = False,
        attested: Attested | None = None,
        observes: bool = False,
        ends: bool = False,
        now: float | None = None,
    ) -> AllowedCall | ObservedCall | Waiting | Agreeing: ...
    def agreed(
        self,
        agreeing: Agreeing,
        *,
        claim: str,
        claim_place: int = 0,
        mode: str | None = None,
        place: int | None = None,
        is_admitted: bool = False,
        remaining: int = 0,
        retry_after: float | None = None,
        observes: bool = False,
        now: float | None = None,
    ) -> AllowedCall | ObservedCall | Agreeing: ...
    def take_ended(self) -> list[tuple[int, list[tuple[bytes, int, float, int]]]]:
        """Calls that have ended and of which other processes must be told, each once: the ticket, and of each window that the result
        is charged to the key, the quota, the window in seconds and how much.
        """
    def applied_limits(
        self, request: ToolRequest, now: float | None = None
    ) -> list[tuple[str, list[tuple[str, str | None]], tuple[str, int, float, int], tuple[bytes, int, float | None]]]:
        """Every rule of the limits that counts a call, and how it stands in this process. Charges and records nothing.

        Of each: its name; what it has a window of its own for, by the words of ``per`` and the names that the call has there; what it
        counts, how many, in how many seconds (0 where it counts what runs) and what the call costs; its key, what is left, and in how
        many seconds there is room where there is none.

        Raises:
            Denied: a room before the limits refuses the call, or its cost cannot be read.
            GuardFault: the call cannot be decided without waiting.
        """
    def check_head(
        self,
        request: ToolRequest,
        *,
        has_waited: bool = False,
        attested: Attested | None = None,
        now: float | None = None,
    ) -> Waiting | None: ...
    def deny(self, request: ToolRequest, code: str) -> Never:
        """Refuses a request for what only its transport can see, and has it recorded."""
    def check_nested(
        self,
        parent: AllowedCall | ObservedCall,
        request: ToolRequest,
        *,
        observes: bool = False,
        now: float | None = None,
    ) -> AllowedCall | ObservedCall | Waiting | Agreeing: ...
    def attest(self, text: str, claims: str | None, now: float | None = None) -> Attested: ...
    def introspected(self, text: str, answer: bytes) -> Attested:
        """Takes in what an issuer has answered about an opaque token. Ends the lookup."""
    def introspection_failed(self, text: str, *, is_endpoint: bool, wish: float | None = None) -> Attested:
        """Ends a lookup that brought no answer. ``wish``: in how many seconds the endpoint wants to be asked again."""
    def introspection_source(
        self,
    ) -> (
        tuple[
            tuple[str, str | None, bool, tuple[str, ...], Path | None, Path | None, Path | None, Path | None],
            str | None,
            str,
            Path | None,
        ]
        | None
    ): ...
    def attest_local(self, subject: str, scopes: Sequence[str], now: float | None = None) -> Attested: ...
    def recheck(self, call: AllowedCall | ObservedCall, now: float | None = None) -> None: ...
    def is_observed(self, room: str) -> bool: ...
    def may_see(self, kind: str, name: str, caller: AllowedCall | ObservedCall | VerifiedToken) -> bool: ...
    def finish(
        self,
        call: AllowedCall | ObservedCall,
        status: str,
        duration: float,
        error: str | None = None,
        rows: int | None = None,
        bytes: int | None = None,
        items: int | None = None,
        summary_failed: bool = False,
        *,
        request: ToolRequest | None = None,
        came_with: str | None = None,
        asks: str | None = None,
    ) -> None: ...
    def revoke(
        self,
        *,
        issuer: str | None = None,
        token_id: str | None = None,
        subject: str | None = None,
        client_id: str | None = None,
        session: str | None = None,
        key_id: str | None = None,
        issued_before: float | None = None,
        by: AllowedCall | tuple[str, str | None, str | None] | None = None,
        now: float | None = None,
    ) -> None: ...
    def block(
        self,
        *,
        tool: str | None = None,
        issuer: str | None = None,
        subject: str | None = None,
        client_id: str | None = None,
        until: float | None = None,
        by: AllowedCall | tuple[str, str | None, str | None] | None = None,
        now: float | None = None,
    ) -> None: ...
    def unblock(
        self,
        *,
        tool: str | None = None,
        issuer: str | None = None,
        subject: str | None = None,
        client_id: str | None = None,
        by: AllowedCall | tuple[str, str | None, str | None] | None = None,
        now: float | None = None,
    ) -> bool: ...
    @property
    def learns_revocations(self) -> bool: ...
    def revocations_known(self, seconds: float) -> None: ...
    def state_settings(
        self,
    ) -> (
        tuple[
            tuple[str, str | None, Path | None, Path | None],
            tuple[Path | None, Path | None],
            tuple[str, float, int],
            tuple[str, str],
        ]
        | None
    ): ...
    def key_sources(
        self,
    ) -> list[tuple[str, str | None, bool, tuple[str, ...], Path | None, Path | None, Path | None, Path | None]]: ...
    def replace_keys(self, issuer: str, jwks: bytes, fresh: float = 600.0) -> None: ...
    def keys_failed(self, issuer: str, reason: str = "", retry_after: float = 0.0) -> None: ...
    def key_figures(self) -> list[tuple[str, int, bool]]: ...
    def reload(self, text: str, *, file: str | None = None, is_json: bool = False) -> None: ...
    def add_rule(
        self,
        kind: str,
        name: str,
        *,
        scopes: Sequence[str],
        any_scopes: Sequence[str],
        is_open: bool,
        tier: str,
        is_read_only: bool = False,
    ) -> None: ...
    def rule_keys(self, kind: str, name: str) -> list[str]: ...
    def config_json(self) -> str: ...
    def warnings(self) -> list[tuple[str, str]]: ...
    @property
    def path(self) -> str: ...
    @property
    def admin_path(self) -> str | None: ...
    @property
    def metadata_url(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def policy_digest(self) -> str: ...
    def passes_certificates_of(self, peer: str | None) -> bool: ...
    @property
    def tells_limits_by_result(self) -> bool: ...
    @property
    def dpop_algorithms(self) -> list[str]: ...
    @property
    def audit_folder(self) -> Path | None: ...
    @property
    def keeps_each(self) -> bool: ...
    def must_keep(self, call: AllowedCall | ObservedCall) -> bool: ...
    def keep(self) -> None: ...
    def flush(self, timeout: float = 2.0) -> None: ...
    def close(self) -> str | None: ...
    def refuse(self) -> None: ...
    def after_fork(self) -> None: ...
    @property
    def permits(self) -> Permits: ...
    def repaired_logs(self) -> list[tuple[str, bool, str]]: ...
    def statistics(self) -> list[tuple[str, int]]: ...

def config_json_schema() -> str: ...
def ship_settings(
    text: str, *, folder: str | Path, file: str | None = None, is_json: bool = False
) -> (
    tuple[
        Path,
        list[
            tuple[
                tuple[str, str, str],
                tuple[str | None, bool],
                tuple[Path | None, Path | None, Path | None, Path | None],
                Path | None,
                tuple[str | None, str, str | None],
                tuple[str, float | None],
            ]
        ],
    ]
    | None
): ...
def revocation_settings(
    text: str, *, folder: str | Path, file: str | None = None, is_json: bool = False
) -> (
    tuple[
        Path | None,
        bool,
        float,
        bytes | None,
        tuple[
            tuple[str, str | None, Path | None, Path | None],
            tuple[Path | None, Path | None],
            tuple[str, float, int],
            tuple[str, str],
        ]
        | None,
    ]
    | None
): ...
def config_warnings(text: str, file: str | None = None) -> list[tuple[str, str]]: ...
def verify_log(path: Path, key: str | None = None, checkpoint: str | None = None) -> tuple[int, str, bool, str | None]:
    """Whether the files of a log are whole: (records, root, sealed, problem).

    ``key`` is the public key as signed notes name it, ``checkpoint`` an earlier note of the same log.
    """

def whole_body(message: MutableMapping[str, Any]) -> bytes | None:
    """The body of an ASGI message that holds all of it, if it is one of at most 64 KiB, which may be read before the token was
    checked; mostly it is.
    """

def result_counts(result: object) -> tuple[int | None, int | None, bool, int | None, bool]:
    """Counts of a result, as the wire's dict or an object of an SDK has it; never its data.

    Gives the items, their bytes, whether it is an error, the rows, and whether the server asks for something.
    """

def verify_logs(
    path: Path, key: str | None = None, checkpoint: str | None = None
) -> list[tuple[str, int | None, str | None, str, str | None]]:
    """The logs in a folder and their registry, each held against the other: (log, records, root, state, problem).

    ``checkpoint`` counts for the log that it names.
    """

def registered_logs(path: Path) -> list[tuple[str, bool]]:
    """The logs that the registry in a folder knows, without those that were removed on purpose: (log, whether it has ended)."""

def prune_log(
    text: str, *, folder: str | Path, log: str, last: int, rule: str, file: str | None = None, is_json: bool = False
) -> int:
    """Removes the files of a sealed log up to number ``last``: how many of its records are gone then.

    The registry says so first, with the name of the rule. ``GuardFault`` where the log is not sealed, or does not verify.
    """

def forget_log(
    text: str, *, folder: str | Path, log: str, reason: str, file: str | None = None, is_json: bool = False
) -> None:
    """Removes a whole log, or has the registry say that one which is gone may be; ``GuardFault`` where its process runs."""

@final
class MergedLogs:
    """The records of several logs, ordered by time: lines with the name of their log as a member, ``log``."""

    def __new__(cls, logs: Sequence[Path]) -> MergedLogs: ...
    def __iter__(self) -> MergedLogs: ...
    def __next__(self) -> bytes: ...

def repair_logs(
    text: str, *, folder: str | Path, file: str | None = None, is_json: bool = False
) -> list[tuple[str, bool, str]]:
    """Ends the logs of killed processes where ``[audit]`` keeps them: (log, whether it was left as it is, in words)."""

def witness_key(name: str, folder: Path) -> str:
    """The public key of the witness whose memory is in ``folder``; made where there is none."""

def cosign(log: Path, key: str, name: str, folder: Path) -> tuple[str, int, int | None]:
    """Has a witness sign the last checkpoint of a log: (note, records, records at the last one that it has signed).

    ``ValueError`` where the log has not only grown since.
    """

def cosigned_at(note: str, witness: str) -> int:
    """When the witness of this public key has signed a note, in seconds since 1970; ``ValueError`` where it has not."""

@final
class Pseudonyms:
    """Whom the pseudonyms of a place stand for."""

    def __new__(
        cls, text: str, *, folder: str | Path, file: str | None = None, is_json: bool = False
    ) -> Pseudonyms: ...
    def of(self, issuer: str, subject: str) -> str | None:
        """The pseudonym of a subject, while its key is there."""
    def resolve(self, pseudonym: str) -> tuple[str, str] | None:
        """Whom a pseudonym stands for: (issuer, subject)."""
    def erase(self, issuer: str, subject: str) -> bool:
        """Destroys the key of a subject; false where there is none."""

def prove_record(path: Path, seq: int) -> str:
    """A proof, in the format of C2SP tlog-proof, that record ``seq`` is in the log; ``ValueError`` where it has none."""

def check_proof(proof: str, key: str) -> tuple[str, int, int, bytes]:
    """What a proof shows: (origin, size, seq, record); ``ValueError`` where it shows nothing."""

def prove_growth(path: Path, checkpoint: str) -> tuple[int, int, list[bytes]]:
    """That the log only grew since a checkpoint: (records then, records now, the path of RFC 6962)."""
