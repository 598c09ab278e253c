//! Why a call was refused ([`Denial`]) or could not be decided ([`Fault`]).
//!
//! Codes are stable: none is renamed or used again. `docs/codes.md` lists each with cause and cure, and a test
//! holds that list against this file.

mod challenge;
mod detail;

use std::fmt;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::config::Meter;

pub use challenge::Challenger;

/// The room that refused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Room {
    /// The wire: headers, body, target.
    Request,
    /// The token's signature and claims.
    Token,
    /// What ties the token to its holder.
    Binding,
    /// The windows.
    Limits,
    /// Scopes, roles, tiers.
    Policy,
    /// A human's consent.
    Approval,
}

impl Room {
    /// The room's word, as files, records and docs spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Token => "token",
            Self::Binding => "binding",
            Self::Limits => "limits",
            Self::Policy => "policy",
            Self::Approval => "approval",
        }
    }
}

/// Why a call was refused. Exhaustive on purpose: a new reason must break the binding's build.
///
/// Text in a variant is for the record, never for the client, and never a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Denial {
    // --- request -----------------------------------------------------------------------------
    /// The path is neither the guarded one nor declared public.
    PathUnknown,
    /// The HTTP method is not one of MCP's transport.
    HttpMethodRefused,
    /// A page of an origin that is not allowed sent the request (MCP, streamable HTTP). The transport decides, since it knows them.
    OriginRefused,
    /// A header that decides something came more than once.
    HeaderDuplicated { header: &'static str },
    /// A header that decides something cannot be read.
    HeaderInvalid { header: &'static str },
    /// A header and the body name different things.
    HeaderMismatch { header: &'static str },
    /// More headers than [`crate::bounds::MAX_HEADERS`].
    HeadersTooMany,
    /// The body is longer than [`crate::bounds::MAX_BODY_BYTES`].
    BodyTooLarge,
    /// A rule needs the body, and the caller of the guard did not hand it over.
    BodyMissing,
    /// The body has a `Content-Encoding`.
    BodyEncoded,
    /// The body is declared to be another thing than JSON. The transport decides, since it knows the header.
    BodyTypeRefused,
    /// The body is not JSON in UTF-8 (RFC 8259).
    BodyNotJson,
    /// The body nests deeper than [`crate::bounds::MAX_MESSAGE_DEPTH`].
    BodyTooDeep,
    /// An object of the body names a member twice.
    MemberDuplicated,
    /// The body is an array of messages.
    BatchRefused,
    /// The body is JSON but no JSON-RPC 2.0 message, or lacks what its method requires.
    MessageInvalid { what: &'static str },

    // --- token -------------------------------------------------------------------------------
    /// No `Authorization` header.
    TokenMissing,
    /// Another scheme than `Bearer` or `DPoP`, or no token68 after it.
    SchemeUnsupported,
    /// Longer than [`crate::bounds::MAX_TOKEN_BYTES`].
    TokenTooLarge,
    /// Not a JWS in compact serialisation, or its header or payload is not a JSON object.
    TokenMalformed { what: &'static str },
    /// `crit`, `b64` or `zip` asks for something that is not supported.
    HeaderParameterRefused { parameter: &'static str },
    /// `alg` is not allowed by the configuration, or does not fit the key.
    AlgorithmRefused { algorithm: String },
    /// `typ` is not one of the issuer's types.
    TypeRefused { found: String },
    /// `iss` is not a configured issuer.
    IssuerUnknown { found: String },
    /// No key of the issuer's set has this `kid`, or none fits.
    KeyUnknown { key_id: String },
    /// The configuration refuses this key, whatever its issuer publishes.
    KeyDenied { key_id: String },
    /// The token has no `kid` and more than one key fits.
    KeyAmbiguous,
    /// The issuer's keys are not known (yet), or it cannot be known whether this one is new.
    KeysUnavailable { retry_after: Duration },
    /// The signature does not match.
    SignatureInvalid,
    /// A claim that is required is not there.
    ClaimMissing { claim: String },
    /// A claim has the wrong type or an impossible value.
    ClaimInvalid { claim: String },
    /// A claim that the configuration requires has another value.
    ClaimRefused { claim: String },
    /// `aud` does not name this resource.
    AudienceMismatch { found: String },
    /// The token's `exp` is not after the time of the call.
    TokenExpired { expired_at: UnixTime },
    /// The token's `nbf` is after the time of the call.
    TokenNotYetValid { valid_from: UnixTime },
    /// The token's `iat` is after the time of the call.
    TokenFromFuture { issued_at: UnixTime },
    /// `exp` minus `iat` is more than the issuer's `max_lifetime`.
    LifetimeTooLong { lifetime: Duration },
    /// `exp` minus `iat` is more than the issuer's `scope_lifetimes` allow a token with this scope.
    ScopeLifetimeTooLong { scope: String, lifetime: Duration, longest: Duration },
    /// The token's `iat` is longer ago than the issuer's `max_token_age`.
    TokenTooOld { issued_at: UnixTime },
    /// `sub` is none that this issuer may speak of. `key`: what of the configuration says so.
    SubjectRefused { found: String, key: &'static str },
    /// Neither a subject nor a client is named.
    PrincipalMissing,
    /// The token, its subject, client, session or issuer was revoked.
    TokenRevoked,
    /// The verifier outside does not know the token.
    VerifierRefused,
    /// The verifier outside failed, or gave no answer in time.
    VerifierUnavailable { retry_after: Duration },

    /// Too many tokens from this address have turned out to be none.
    AuthenticationLimited { retry_after: Duration },
    /// The issuer says that the opaque token is not in force (RFC 7662 §2.2).
    TokenInactive,
    /// Too many tokens that nobody knows came from this address.
    IntrospectionLimited { retry_after: Duration },
    /// The issuer cannot be asked about the token now, or gave no answer that can be used.
    IntrospectionUnavailable { retry_after: Duration, reason: &'static str },

    /// What was revoked lately cannot be known: nothing was heard of it for longer than `revocations.max_staleness`.
    RevocationsStale { retry_after: Duration },

    // --- binding -----------------------------------------------------------------------------
    /// The token is bound to a key, and there is no `DPoP` header.
    ProofMissing,
    /// The token is bound to a key and came under `Bearer`.
    BoundAsBearer,
    /// More than one `DPoP` header.
    ProofDuplicated,
    /// Not one compact JWS of type `dpop+jwt` with the claims that RFC 9449 §4.2 requires.
    ProofMalformed { what: &'static str },
    /// `alg` of the proof is not allowed by the configuration.
    ProofAlgorithmRefused { algorithm: String },
    /// `jwk` of the proof is no public key that may sign proofs.
    ProofKeyRefused { reason: String },
    /// The proof's signature does not match its key.
    ProofSignatureInvalid,
    /// `htm` is not the method of the request.
    ProofMethodMismatch { found: String },
    /// `htu` is not the URL of the resource.
    ProofUrlMismatch { found: String },
    /// The proof's `iat` is too long before the time of the call.
    ProofExpired { issued_at: UnixTime },
    /// The proof's `iat` is too long after the time of the call.
    ProofFromFuture { issued_at: UnixTime },
    /// `ath` is not the hash of the token.
    ProofTokenMismatch,
    /// The proof has no `content_digest`, and the configuration demands it.
    ProofDigestMissing,
    /// `content_digest` of the proof is not that of the body.
    ProofDigestMismatch,
    /// The proof's key is not the one that the token is bound to.
    ProofKeyMismatch { found: String },
    /// The proof has no nonce of ours, or one of the past.
    NonceRequired { nonce: String },
    /// This proof's `jti` was already used with the same key.
    ProofReplayed,
    /// The store of used proofs is full, or the principal holds its share of it.
    ReplaysFull { retry_after: Duration },
    /// The server by which processes remember used proofs is away.
    ReplaysUnavailable { retry_after: Duration },
    /// The token is bound to a certificate, and no believed peer has handed one on.
    CertificateMissing,
    /// The certificate of the client cannot be read.
    CertificateMalformed { what: &'static str },
    /// The client's certificate is another than the one that the token is bound to.
    CertificateMismatch,
    /// The client's certificate is not valid at the time of the call.
    CertificateExpired,
    /// The client's certificate has none of the names that the configuration gives the client.
    CertificateNameMismatch,
    /// `cnf` has a member whose proof cannot be checked.
    BindingUnknown { member: String },
    /// The token is not bound to a key, and the scheme or the configuration demands it.
    BindingMissing { demanded_by: &'static str },
    /// The request is not signed, or by none of the signatures that are asked for.
    SignatureMissing,
    /// More than one signature could be the one that is asked for.
    SignatureDuplicated,
    /// `Signature-Input` or `Signature` cannot be read, or lacks a parameter that is required (RFC 9421 §2.3).
    SignatureMalformed { what: &'static str },
    /// A component that the configuration requires is not covered, or one that is covered has no value.
    SignatureComponents { component: String, what: &'static str },
    /// The key's algorithm is not allowed by the configuration, or `alg` names another.
    SignatureAlgorithmRefused { algorithm: String },
    /// `keyid` names no key of the token's client.
    SignatureKeyUnknown { key_id: String },
    /// The signature does not match the request as it came.
    SignatureMismatch,
    /// `created` is too long before the time of the call, or `expires` is not after it.
    SignatureExpired { created_at: UnixTime },
    /// `created` is after the time of the call.
    SignatureFromFuture { created_at: UnixTime },
    /// This `nonce` was already used with the same key.
    SignatureReplayed,
    /// `Content-Digest` cannot be read, or has no digest that protects (RFC 9530).
    DigestMalformed { what: &'static str },
    /// `Content-Digest` is not that of the body.
    DigestMismatch,

    // --- limits ------------------------------------------------------------------------------
    /// The caller has spent its quota for this window.
    QuotaSpent {
        rule: String,
        quota: u64,
        window: Duration,
        remaining: u64,
        retry_after: Option<Duration>,
        /// What of results it counts; calls where there is none.
        meter: Option<Meter>,
        /// Whether the window is one that newcomers share, because the table of windows is full.
        is_together: bool,
    },
    /// As many calls run as may run at once. No time helps: one of them must end.
    ConcurrencySpent { rule: String, concurrent: u32 },
    /// The table of windows is full, or the principal holds its share of it.
    WindowsFull { rule: String, retry_after: Duration },
    /// The store of the shared windows is away, and `limits.degrade` is `refuse`.
    LimitsUnavailable { retry_after: Duration },
    /// The tool's cost is made of an argument, which is no number of at least 0.
    CostUnreadable { tool: String },

    // --- policy ------------------------------------------------------------------------------
    /// No rule names the target.
    TargetUnknown { target: String },
    /// The token lacks scopes that the rule requires.
    ScopeInsufficient { rule: String, required: Vec<String>, missing: Vec<String> },
    /// The rule's tier is `block`.
    TierBlocked { rule: String },
    /// The rule's `binding` demands a token that is bound to a key.
    BindingRequired { rule: String },
    /// The rule's `signed` demands a signed request.
    SignatureRequired { rule: String },
    /// The person was not authenticated as the rule demands, or too long ago (RFC 9470). `claim` says which of the two.
    AuthenticationInsufficient {
        rule: String,
        claim: &'static str,
        acr_values: Vec<String>,
        max_age: Option<Duration>,
        required: Vec<String>,
    },
    /// The token's `iat` is longer ago than the rule's `max_token_age`.
    NewerTokenRequired { rule: String },

    /// An operator has blocked the tool or the caller for a time.
    Blocked { what: &'static str, retry_after: Option<Duration> },

    // --- approval ----------------------------------------------------------------------------
    /// The rule's tier is `approve`, and nobody has approved.
    ApprovalRequired { rule: String },
}

impl Denial {
    /// The room that refused.
    #[expect(clippy::too_many_lines, reason = "a line for every reason")]
    pub const fn room(&self) -> Room {
        match self {
            Self::PathUnknown
            | Self::HttpMethodRefused
            | Self::OriginRefused
            | Self::HeaderDuplicated { .. }
            | Self::HeaderInvalid { .. }
            | Self::HeaderMismatch { .. }
            | Self::HeadersTooMany
            | Self::BodyTooLarge
            | Self::BodyMissing
            | Self::BodyEncoded
            | Self::BodyTypeRefused
            | Self::BodyNotJson
            | Self::BodyTooDeep
            | Self::MemberDuplicated
            | Self::BatchRefused
            | Self::MessageInvalid { .. } => Room::Request,
            Self::TokenMissing
            | Self::SchemeUnsupported
            | Self::TokenTooLarge
            | Self::TokenMalformed { .. }
            | Self::HeaderParameterRefused { .. }
            | Self::AlgorithmRefused { .. }
            | Self::TypeRefused { .. }
            | Self::IssuerUnknown { .. }
            | Self::KeyUnknown { .. }
            | Self::KeyDenied { .. }
            | Self::KeyAmbiguous
            | Self::KeysUnavailable { .. }
            | Self::SignatureInvalid
            | Self::ClaimMissing { .. }
            | Self::ClaimInvalid { .. }
            | Self::ClaimRefused { .. }
            | Self::AudienceMismatch { .. }
            | Self::TokenExpired { .. }
            | Self::TokenNotYetValid { .. }
            | Self::TokenFromFuture { .. }
            | Self::LifetimeTooLong { .. }
            | Self::ScopeLifetimeTooLong { .. }
            | Self::TokenTooOld { .. }
            | Self::SubjectRefused { .. }
            | Self::PrincipalMissing
            | Self::TokenRevoked
            | Self::VerifierRefused
            | Self::VerifierUnavailable { .. }
            | Self::AuthenticationLimited { .. }
            | Self::TokenInactive
            | Self::IntrospectionLimited { .. }
            | Self::IntrospectionUnavailable { .. }
            | Self::RevocationsStale { .. } => Room::Token,
            Self::ProofMissing
            | Self::BoundAsBearer
            | Self::ProofDuplicated
            | Self::ProofMalformed { .. }
            | Self::ProofAlgorithmRefused { .. }
            | Self::ProofKeyRefused { .. }
            | Self::ProofSignatureInvalid
            | Self::ProofMethodMismatch { .. }
            | Self::ProofUrlMismatch { .. }
            | Self::ProofExpired { .. }
            | Self::ProofFromFuture { .. }
            | Self::ProofTokenMismatch
            | Self::ProofDigestMissing
            | Self::ProofDigestMismatch
            | Self::ProofKeyMismatch { .. }
            | Self::NonceRequired { .. }
            | Self::ProofReplayed
            | Self::ReplaysFull { .. }
            | Self::ReplaysUnavailable { .. }
            | Self::CertificateMissing
            | Self::CertificateMalformed { .. }
            | Self::CertificateMismatch
            | Self::CertificateExpired
            | Self::CertificateNameMismatch
            | Self::BindingUnknown { .. }
            | Self::BindingMissing { .. }
            | Self::SignatureMissing
            | Self::SignatureDuplicated
            | Self::SignatureMalformed { .. }
            | Self::SignatureComponents { .. }
            | Self::SignatureAlgorithmRefused { .. }
            | Self::SignatureKeyUnknown { .. }
            | Self::SignatureMismatch
            | Self::SignatureExpired { .. }
            | Self::SignatureFromFuture { .. }
            | Self::SignatureReplayed
            | Self::DigestMalformed { .. }
            | Self::DigestMismatch => Room::Binding,
            Self::QuotaSpent { .. }
            | Self::ConcurrencySpent { .. }
            | Self::WindowsFull { .. }
            | Self::LimitsUnavailable { .. }
            | Self::CostUnreadable { .. } => Room::Limits,
            Self::TargetUnknown { .. }
            | Self::ScopeInsufficient { .. }
            | Self::TierBlocked { .. }
            | Self::BindingRequired { .. }
            | Self::SignatureRequired { .. }
            | Self::Blocked { .. }
            | Self::AuthenticationInsufficient { .. }
            | Self::NewerTokenRequired { .. } => Room::Policy,
            Self::ApprovalRequired { .. } => Room::Approval,
        }
    }

    /// Whether it is enforced where its room is only observed: an operator blocks now, not after a trial.
    pub const fn is_always_enforced(&self) -> bool {
        matches!(self, Self::Blocked { .. })
    }

    /// The stable code.
    #[expect(clippy::too_many_lines, reason = "a line for every reason")]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::PathUnknown => "path_unknown",
            Self::HttpMethodRefused => "http_method_refused",
            Self::OriginRefused => "origin_refused",
            Self::HeaderDuplicated { .. } => "header_duplicated",
            Self::HeaderInvalid { .. } => "header_invalid",
            Self::HeaderMismatch { .. } => "header_mismatch",
            Self::HeadersTooMany => "headers_too_many",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyMissing => "body_missing",
            Self::BodyEncoded => "body_encoded",
            Self::BodyTypeRefused => "body_type_refused",
            Self::BodyNotJson => "body_not_json",
            Self::BodyTooDeep => "body_too_deep",
            Self::MemberDuplicated => "member_duplicated",
            Self::BatchRefused => "batch_refused",
            Self::MessageInvalid { .. } => "message_invalid",
            Self::TokenMissing => "token_missing",
            Self::SchemeUnsupported => "scheme_unsupported",
            Self::TokenTooLarge => "token_too_large",
            Self::TokenMalformed { .. } => "token_malformed",
            Self::HeaderParameterRefused { .. } => "header_parameter_refused",
            Self::AlgorithmRefused { .. } => "algorithm_refused",
            Self::TypeRefused { .. } => "type_refused",
            Self::IssuerUnknown { .. } => "issuer_unknown",
            Self::KeyUnknown { .. } => "key_unknown",
            Self::KeyDenied { .. } => "key_denied",
            Self::KeyAmbiguous => "key_ambiguous",
            Self::KeysUnavailable { .. } => "keys_unavailable",
            Self::SignatureInvalid => "signature_invalid",
            Self::ClaimMissing { .. } => "claim_missing",
            Self::ClaimInvalid { .. } => "claim_invalid",
            Self::ClaimRefused { .. } => "claim_refused",
            Self::AudienceMismatch { .. } => "audience_mismatch",
            Self::TokenExpired { .. } => "token_expired",
            Self::TokenNotYetValid { .. } => "token_not_yet_valid",
            Self::TokenFromFuture { .. } => "token_from_future",
            Self::LifetimeTooLong { .. } => "lifetime_too_long",
            Self::ScopeLifetimeTooLong { .. } => "scope_lifetime_too_long",
            Self::TokenTooOld { .. } => "token_too_old",
            Self::SubjectRefused { .. } => "subject_refused",
            Self::PrincipalMissing => "principal_missing",
            Self::TokenRevoked => "token_revoked",
            Self::VerifierRefused => "verifier_refused",
            Self::VerifierUnavailable { .. } => "verifier_unavailable",
            Self::AuthenticationLimited { .. } => "authentication_limited",
            Self::TokenInactive => "token_inactive",
            Self::IntrospectionLimited { .. } => "introspection_limited",
            Self::IntrospectionUnavailable { .. } => "introspection_unavailable",
            Self::RevocationsStale { .. } => "revocations_stale",
            Self::ProofMissing => "proof_missing",
            Self::BoundAsBearer => "bound_as_bearer",
            Self::ProofDuplicated => "proof_duplicated",
            Self::ProofMalformed { .. } => "proof_malformed",
            Self::ProofAlgorithmRefused { .. } => "proof_algorithm_refused",
            Self::ProofKeyRefused { .. } => "proof_key_refused",
            Self::ProofSignatureInvalid => "proof_signature_invalid",
            Self::ProofMethodMismatch { .. } => "proof_method_mismatch",
            Self::ProofUrlMismatch { .. } => "proof_url_mismatch",
            Self::ProofExpired { .. } => "proof_expired",
            Self::ProofFromFuture { .. } => "proof_from_future",
            Self::ProofTokenMismatch => "proof_token_mismatch",
            Self::ProofDigestMissing => "proof_digest_missing",
            Self::ProofDigestMismatch => "proof_digest_mismatch",
            Self::ProofKeyMismatch { .. } => "proof_key_mismatch",
            Self::NonceRequired { .. } => "nonce_required",
            Self::ProofReplayed => "proof_replayed",
            Self::ReplaysFull { .. } => "replays_full",
            Self::ReplaysUnavailable { .. } => "replays_unavailable",
            Self::CertificateMissing => "certificate_missing",
            Self::CertificateMalformed { .. } => "certificate_malformed",
            Self::CertificateMismatch => "certificate_mismatch",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateNameMismatch => "certificate_name_mismatch",
            Self::BindingUnknown { .. } => "binding_unknown",
            Self::BindingMissing { .. } => "binding_missing",
            Self::SignatureMissing => "signature_missing",
            Self::SignatureDuplicated => "signature_duplicated",
            Self::SignatureMalformed { .. } => "signature_malformed",
            Self::SignatureComponents { .. } => "signature_components",
            Self::SignatureAlgorithmRefused { .. } => "signature_algorithm_refused",
            Self::SignatureKeyUnknown { .. } => "signature_key_unknown",
            Self::SignatureMismatch => "signature_mismatch",
            Self::SignatureExpired { .. } => "signature_expired",
            Self::SignatureFromFuture { .. } => "signature_from_future",
            Self::SignatureReplayed => "signature_replayed",
            Self::DigestMalformed { .. } => "digest_malformed",
            Self::DigestMismatch => "digest_mismatch",
            Self::QuotaSpent { .. } => "quota_spent",
            Self::ConcurrencySpent { .. } => "concurrency_spent",
            Self::WindowsFull { .. } => "windows_full",
            Self::LimitsUnavailable { .. } => "limits_unavailable",
            Self::CostUnreadable { .. } => "cost_unreadable",
            Self::TargetUnknown { .. } => "target_unknown",
            Self::ScopeInsufficient { .. } => "scope_insufficient",
            Self::TierBlocked { .. } => "tier_blocked",
            Self::Blocked { .. } => "blocked",
            Self::BindingRequired { .. } => "binding_required",
            Self::SignatureRequired { .. } => "signature_required",
            Self::AuthenticationInsufficient { .. } => "authentication_insufficient",
            Self::NewerTokenRequired { .. } => "newer_token_required",
            Self::ApprovalRequired { .. } => "approval_required",
        }
    }

    /// The scopes that the caller lacks.
    pub fn missing_scopes(&self) -> &[String] {
        match self {
            Self::ScopeInsufficient { missing, .. } => missing,
            _ => &[],
        }
    }

    /// The HTTP status that the client sees.
    pub const fn status(&self) -> u16 {
        match self {
            Self::PathUnknown => 404,
            Self::HttpMethodRefused => 405,
            Self::OriginRefused => 403,
            Self::BodyTooLarge => 413,
            Self::BodyEncoded | Self::BodyTypeRefused => 415,
            Self::CostUnreadable { .. } => 400,
            Self::KeysUnavailable { .. }
            | Self::VerifierUnavailable { .. }
            | Self::IntrospectionUnavailable { .. }
            | Self::RevocationsStale { .. }
            | Self::ReplaysUnavailable { .. }
            | Self::LimitsUnavailable { .. } => 503,
            Self::ReplaysFull { .. } | Self::IntrospectionLimited { .. } | Self::AuthenticationLimited { .. } => 429,
            Self::BindingRequired { .. }
            | Self::SignatureRequired { .. }
            | Self::AuthenticationInsufficient { .. }
            | Self::NewerTokenRequired { .. } => 401,
            _ => match self.room() {
                Room::Request => 400,
                Room::Token | Room::Binding => 401,
                Room::Limits => 429,
                Room::Policy | Room::Approval => 403,
            },
        }
    }

    /// When to come back, where coming back can help.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::KeysUnavailable { retry_after }
            | Self::AuthenticationLimited { retry_after }
            | Self::IntrospectionLimited { retry_after }
            | Self::IntrospectionUnavailable { retry_after, .. }
            | Self::RevocationsStale { retry_after }
            | Self::WindowsFull { retry_after, .. }
            | Self::LimitsUnavailable { retry_after }
            | Self::ReplaysUnavailable { retry_after }
            | Self::ReplaysFull { retry_after } => Some(*retry_after),
            Self::QuotaSpent { retry_after, .. } | Self::Blocked { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The rule of room limits that has too little left, and how much that is.
    pub fn limit(&self) -> Option<(&str, u64)> {
        match self {
            Self::QuotaSpent { rule, remaining, .. } => Some((rule, *remaining)),
            Self::ConcurrencySpent { rule, .. } | Self::WindowsFull { rule, .. } => Some((rule, 0)),
            _ => None,
        }
    }

    /// Whether newcomers share the window that has too little left.
    pub const fn is_together(&self) -> bool {
        matches!(self, Self::QuotaSpent { is_together: true, .. })
    }

    /// The quota that is spent: the rule's name, how many, in which time, what is left, and of what.
    pub fn spent(&self) -> Option<(&str, u64, Duration, u64, &'static str)> {
        match self {
            Self::QuotaSpent { rule, quota, window, remaining, meter, .. } => {
                Some((rule, *quota, *window, *remaining, meter.map_or("calls", Meter::name)))
            }
            _ => None,
        }
    }
}

/// The call could not be decided. It does not run, and the client learns only that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The queue of the audit log is full.
    AuditQueueFull,
    /// The audit log cannot be written.
    AuditFailed { reason: String },
    /// `check` cannot wait for what this call needs; `authorize` can.
    NeedsAuthorize { need: &'static str },
    /// A rule counts the call until it ends, and whoever asks does not tell of the ending.
    NeedsCall { rule: String },
    /// The table was given times of the system's clock and of the caller's.
    ClockMixed,
    /// The guard was closed.
    Closed,
    /// A mistake of ours.
    Internal { reason: String },
}

impl Fault {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AuditQueueFull => "audit_queue_full",
            Self::AuditFailed { .. } => "audit_failed",
            Self::NeedsAuthorize { .. } => "needs_authorize",
            Self::NeedsCall { .. } => "needs_call",
            Self::ClockMixed => "clock_mixed",
            Self::Closed => "closed",
            Self::Internal { .. } => "internal",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AuditQueueFull => f.write_str("the queue of the audit log is full"),
            Self::AuditFailed { reason } => write!(f, "the audit log cannot be written: {reason}"),
            Self::NeedsAuthorize { need } => write!(f, "the call must wait for {need}: use `authorize`"),
            Self::NeedsCall { rule } => write!(f, "`{rule}` counts the call until it ends: use `guard.call`"),
            Self::ClockMixed => f.write_str("this guard was given times of two clocks"),
            Self::Closed => f.write_str("the guard is closed"),
            Self::Internal { reason } => write!(f, "internal error: {reason}"),
        }
    }
}

impl std::error::Error for Denial {}
impl std::error::Error for Fault {}

/// What the gate refuses with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GateError {
    /// A room refused; with the number of the decision's record in the audit log, where it has one of its own.
    Denied(Denial, Option<u64>),
    /// No room could decide.
    Faulted(Fault),
}

impl From<Denial> for GateError {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial, None)
    }
}

impl From<Fault> for GateError {
    fn from(fault: Fault) -> Self {
        Self::Faulted(fault)
    }
}

impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denial, _) => denial.fmt(f),
            Self::Faulted(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for GateError {}
