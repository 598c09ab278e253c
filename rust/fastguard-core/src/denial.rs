//! Why a call was refused ([`Denial`]) or could not be decided ([`Fault`]).
//!
//! Codes are stable: none is renamed or used again. `docs/codes.md` lists each with cause and cure, and a test
//! holds that list against this file.

use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::clock::UnixTime;

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
    /// Neither a subject nor a client is named.
    PrincipalMissing,
    /// The token, its subject, client, session or issuer was revoked.
    TokenRevoked,
    /// The verifier outside does not know the token.
    VerifierRefused,
    /// The verifier outside failed, or gave no answer in time.
    VerifierUnavailable { retry_after: Duration },

    // --- binding -----------------------------------------------------------------------------
    /// The token is bound to a key or certificate and came without proof of it.
    ProofMissing { binding: &'static str },
    /// `cnf` has a member that is not known.
    BindingUnknown { member: String },
    /// The `DPoP` scheme with a token that is not bound.
    BindingMissing,

    // --- limits ------------------------------------------------------------------------------
    /// The caller has spent its quota for this window.
    QuotaSpent { rule: String, retry_after: Duration },
    /// The table of windows is full, or the principal holds its share of it.
    WindowsFull { rule: String, retry_after: Duration },

    // --- policy ------------------------------------------------------------------------------
    /// No rule names the target.
    TargetUnknown { target: String },
    /// The token lacks scopes that the rule requires.
    ScopeInsufficient { rule: String, required: Vec<String>, missing: Vec<String> },
    /// The rule's tier is `block`.
    TierBlocked { rule: String },

    // --- approval ----------------------------------------------------------------------------
    /// The rule's tier is `approve`, and nobody has approved.
    ApprovalRequired { rule: String },
}

impl Denial {
    /// The room that refused.
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
            | Self::PrincipalMissing
            | Self::TokenRevoked
            | Self::VerifierRefused
            | Self::VerifierUnavailable { .. } => Room::Token,
            Self::ProofMissing { .. } | Self::BindingUnknown { .. } | Self::BindingMissing => Room::Binding,
            Self::QuotaSpent { .. } | Self::WindowsFull { .. } => Room::Limits,
            Self::TargetUnknown { .. } | Self::ScopeInsufficient { .. } | Self::TierBlocked { .. } => Room::Policy,
            Self::ApprovalRequired { .. } => Room::Approval,
        }
    }

    /// The stable code.
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
            Self::PrincipalMissing => "principal_missing",
            Self::TokenRevoked => "token_revoked",
            Self::VerifierRefused => "verifier_refused",
            Self::VerifierUnavailable { .. } => "verifier_unavailable",
            Self::ProofMissing { .. } => "proof_missing",
            Self::BindingUnknown { .. } => "binding_unknown",
            Self::BindingMissing => "binding_missing",
            Self::QuotaSpent { .. } => "quota_spent",
            Self::WindowsFull { .. } => "windows_full",
            Self::TargetUnknown { .. } => "target_unknown",
            Self::ScopeInsufficient { .. } => "scope_insufficient",
            Self::TierBlocked { .. } => "tier_blocked",
            Self::ApprovalRequired { .. } => "approval_required",
        }
    }

    /// The key of the configuration that decides this: where to look when the refusal was not meant.
    pub fn config_key(&self) -> Option<&str> {
        Some(match self {
            Self::PathUnknown => "resource.public",
            Self::TokenTooLarge
            | Self::TokenMalformed { .. }
            | Self::IssuerUnknown { .. }
            | Self::HeaderParameterRefused { .. } => "issuers.issuer",
            Self::AlgorithmRefused { .. } => "issuers.algorithms",
            Self::TypeRefused { .. } => "issuers.types",
            Self::KeyUnknown { .. } | Self::KeyAmbiguous | Self::KeysUnavailable { .. } | Self::SignatureInvalid => {
                "issuers.jwks_uri"
            }
            Self::AudienceMismatch { .. } => "issuers.audiences",
            Self::ClaimMissing { claim } | Self::ClaimRefused { claim } | Self::ClaimInvalid { claim } => {
                match claim.as_str() {
                    "aud" => "issuers.audiences",
                    "iss" => "issuers.issuer",
                    "exp" | "iat" | "nbf" => "issuers.max_lifetime",
                    _ => "issuers.require",
                }
            }
            Self::PrincipalMissing => "issuers.client_claims",
            Self::TokenExpired { .. } | Self::TokenNotYetValid { .. } | Self::TokenFromFuture { .. } => "tokens.leeway",
            Self::LifetimeTooLong { .. } => "issuers.max_lifetime",
            Self::ProofMissing { .. } | Self::BindingUnknown { .. } | Self::BindingMissing => "dpop.mode",
            Self::QuotaSpent { .. } => "limits.rules",
            Self::WindowsFull { .. } => "limits.max_keys",
            Self::TargetUnknown { .. } => "tools",
            Self::ScopeInsufficient { rule, .. } | Self::TierBlocked { rule } | Self::ApprovalRequired { rule } => rule,
            _ => return None,
        })
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
            Self::BodyEncoded => 415,
            Self::KeysUnavailable { .. } | Self::VerifierUnavailable { .. } => 503,
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
            | Self::QuotaSpent { retry_after, .. }
            | Self::WindowsFull { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// The `error` parameter of the `WWW-Authenticate` challenge (RFC 6750 §3.1); `None` where the request
    /// carried no credentials, or where no challenge is due.
    pub const fn challenge_error(&self) -> Option<&'static str> {
        match self {
            Self::TokenMissing | Self::KeysUnavailable { .. } => None,
            Self::ScopeInsufficient { .. } => Some("insufficient_scope"),
            _ => match self.room() {
                Room::Token | Room::Binding => Some("invalid_token"),
                _ => None,
            },
        }
    }

    /// The `WWW-Authenticate` value (RFC 6750 §3, RFC 9728 §5.1), where one is due. `metadata_url` is where the resource's
    /// metadata stand, `first_scopes` what a client without a token should ask for.
    pub fn challenge(&self, metadata_url: &str, first_scopes: &str) -> Option<String> {
        if !self.is_challenged() {
            return None;
        }
        let mut challenge = String::from("Bearer ");
        if let Some(error) = self.challenge_error() {
            let description = match self {
                Self::ScopeInsufficient { .. } => "the token lacks a scope that this call needs",
                Self::TokenExpired { .. } => "the token has expired",
                Self::TokenRevoked => "the token was revoked",
                _ => "the token is not valid here",
            };
            let _ = write!(challenge, "error=\"{error}\", error_description=\"{description}\", ");
        }
        if let Self::ScopeInsufficient { required, .. } = self {
            let _ = write!(challenge, "scope=\"{}\", ", required.join(" "));
        } else if !first_scopes.is_empty() {
            let _ = write!(challenge, "scope=\"{first_scopes}\", ");
        }
        let _ = write!(challenge, "resource_metadata=\"{metadata_url}\"");
        Some(challenge)
    }

    /// Whether the answer carries a `WWW-Authenticate` challenge.
    pub const fn is_challenged(&self) -> bool {
        self.status() == 401 || matches!(self, Self::ScopeInsufficient { .. })
    }
}

impl fmt::Display for Denial {
    /// The detail for records and logs. Lower case, no full stop, input in backticks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PathUnknown => f.write_str("the path is neither guarded nor declared public"),
            Self::HttpMethodRefused => f.write_str("the HTTP method is not GET, POST or DELETE"),
            Self::OriginRefused => f.write_str("the request's origin is not allowed"),
            Self::HeaderDuplicated { header } => write!(f, "header `{header}` came more than once"),
            Self::HeaderInvalid { header } => write!(f, "header `{header}` cannot be read"),
            Self::HeaderMismatch { header } => write!(f, "header `{header}` differs from the body"),
            Self::HeadersTooMany => f.write_str("too many headers"),
            Self::BodyTooLarge => f.write_str("the body is too large"),
            Self::BodyMissing => f.write_str("the rule needs the body, which was not given"),
            Self::BodyEncoded => f.write_str("the body has a content encoding"),
            Self::BodyNotJson => f.write_str("the body is not JSON in UTF-8"),
            Self::BodyTooDeep => f.write_str("the body nests too deeply"),
            Self::MemberDuplicated => f.write_str("an object of the body names a member twice"),
            Self::BatchRefused => f.write_str("batches of messages are refused"),
            Self::MessageInvalid { what } => write!(f, "not a JSON-RPC message of MCP: {what}"),
            Self::TokenMissing => f.write_str("no token was presented"),
            Self::SchemeUnsupported => f.write_str("the `Authorization` header is not of a supported scheme"),
            Self::TokenTooLarge => f.write_str("the token is too large"),
            Self::TokenMalformed { what } => write!(f, "not a compact JWS: {what}"),
            Self::HeaderParameterRefused { parameter } => write!(f, "header parameter `{parameter}` is refused"),
            Self::AlgorithmRefused { algorithm } => write!(f, "algorithm `{}` is refused", Shown(algorithm)),
            Self::TypeRefused { found } => write!(f, "type `{}` is refused", Shown(found)),
            Self::IssuerUnknown { found } => write!(f, "issuer `{}` is not configured", Shown(found)),
            Self::KeyUnknown { key_id } => write!(f, "no key fits `{}`", Shown(key_id)),
            Self::KeyAmbiguous => f.write_str("the token names no key and more than one fits"),
            Self::KeysUnavailable { .. } => f.write_str("the issuer's keys are not available"),
            Self::SignatureInvalid => f.write_str("the signature does not match"),
            Self::ClaimMissing { claim } => write!(f, "claim `{}` is missing", Shown(claim)),
            Self::ClaimInvalid { claim } => write!(f, "claim `{}` is invalid", Shown(claim)),
            Self::ClaimRefused { claim } => write!(f, "claim `{}` has another value than required", Shown(claim)),
            Self::AudienceMismatch { found } => write!(f, "audience `{}` does not name this resource", Shown(found)),
            Self::TokenExpired { expired_at } => write!(f, "the token expired at {}", expired_at.as_seconds_f64()),
            Self::TokenNotYetValid { valid_from } => {
                write!(f, "the token is valid only from {}", valid_from.as_seconds_f64())
            }
            Self::TokenFromFuture { issued_at } => {
                write!(f, "the token was issued in the future, at {}", issued_at.as_seconds_f64())
            }
            Self::LifetimeTooLong { lifetime } => {
                write!(f, "the token's lifetime of {} s is too long", lifetime.as_secs())
            }
            Self::PrincipalMissing => f.write_str("the token names neither a subject nor a client"),
            Self::TokenRevoked => f.write_str("the token was revoked"),
            Self::VerifierRefused => f.write_str("the verifier does not accept the token"),
            Self::VerifierUnavailable { .. } => f.write_str("the verifier failed or gave no answer"),
            Self::ProofMissing { binding } => write!(f, "the token is bound by `{binding}` and came without proof"),
            Self::BindingUnknown { member } => write!(f, "`cnf` member `{}` is not known", Shown(member)),
            Self::BindingMissing => f.write_str("the DPoP scheme needs a token that is bound to a key"),
            Self::QuotaSpent { rule, .. } => write!(f, "the quota of `{rule}` is spent"),
            Self::WindowsFull { rule, .. } => write!(f, "no window is free for `{rule}`"),
            Self::TargetUnknown { target } => write!(f, "no rule names `{}`", Shown(target)),
            Self::ScopeInsufficient { rule, missing, .. } => {
                write!(f, "`{rule}` needs the scope `{}`", missing.join(" "))
            }
            Self::TierBlocked { rule } => write!(f, "`{rule}` is blocked"),
            Self::ApprovalRequired { rule } => write!(f, "`{rule}` needs an approval"),
        }
    }
}

/// Input of others in a message: at most 128 characters, control characters escaped.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars().take(128) {
            if character.is_control() || character == '`' {
                write!(f, "{}", character.escape_default())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        if self.0.chars().nth(128).is_some() { f.write_str("…") } else { Ok(()) }
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
    /// A room refused.
    Denied(Denial),
    /// No room could decide.
    Faulted(Fault),
}

impl From<Denial> for GateError {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
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
            Self::Denied(denial) => denial.fmt(f),
            Self::Faulted(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for GateError {}
