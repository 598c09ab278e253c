//! What records and logs say of a refusal.

use std::fmt;

use super::Denial;

impl Denial {
    /// The key of the configuration that decides this: where to look when the refusal was not meant.
    #[expect(clippy::too_many_lines, reason = "a line for every reason")]
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
            Self::KeyDenied { .. } => "issuers.denied_keys",
            Self::TokenInactive | Self::IntrospectionUnavailable { .. } => "issuers.introspection_endpoint",
            Self::RevocationsStale { .. } => "revocations.max_staleness",
            Self::AuthenticationLimited { .. } => "limits.failed_authentications",
            Self::IntrospectionLimited { .. } => "issuers.introspection_lookups_per_address",
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
            Self::ScopeLifetimeTooLong { .. } => "issuers.scope_lifetimes",
            Self::TokenTooOld { .. } => "issuers.max_token_age",
            Self::SubjectRefused { key, .. } => key,
            Self::ProofMissing | Self::BoundAsBearer | Self::BindingUnknown { .. } | Self::BindingMissing { .. } => {
                "dpop.mode"
            }
            Self::ProofAlgorithmRefused { .. } => "dpop.algorithms",
            Self::ProofMethodMismatch { .. } | Self::ProofUrlMismatch { .. } | Self::SignatureMismatch => {
                "resource.url"
            }
            Self::ProofExpired { .. } | Self::ProofFromFuture { .. } => "dpop.max_age",
            Self::NonceRequired { .. } => "dpop.nonce",
            Self::ProofDigestMissing => "dpop.content_digest",
            Self::CertificateNameMismatch => "certificates.clients",
            Self::SignatureMissing => "signatures.mode",
            Self::SignatureDuplicated => "signatures.tag",
            Self::SignatureComponents { .. } => "signatures.components",
            Self::SignatureAlgorithmRefused { .. } => "signatures.algorithms",
            Self::SignatureKeyUnknown { .. } => "signatures.clients",
            Self::SignatureExpired { .. } | Self::SignatureFromFuture { .. } => "signatures.max_age",
            Self::CertificateMissing | Self::CertificateMalformed { .. } => "certificates.source",
            Self::ReplaysFull { .. } => "dpop.replay_entries",
            Self::ReplaysUnavailable { .. } => "dpop.replays",
            Self::QuotaSpent { .. } | Self::ConcurrencySpent { .. } => "limits.rules",
            Self::WindowsFull { .. } => "limits.max_keys",
            Self::LimitsUnavailable { .. } => "limits.degrade",
            Self::TargetUnknown { .. } | Self::CostUnreadable { .. } => "tools",
            Self::ScopeInsufficient { rule, .. }
            | Self::TierBlocked { rule }
            | Self::ApprovalRequired { rule }
            | Self::BindingRequired { rule }
            | Self::SignatureRequired { rule }
            | Self::AuthenticationInsufficient { rule, .. }
            | Self::NewerTokenRequired { rule } => rule,
            _ => return None,
        })
    }
}

impl fmt::Display for Denial {
    /// The detail for records and logs. Lower case, no full stop, input in backticks.
    #[expect(clippy::too_many_lines, reason = "a line for every reason")]
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
            Self::BodyTypeRefused => f.write_str("the body is declared to be another thing than JSON"),
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
            Self::KeyDenied { key_id } => write!(f, "key `{}` is denied", Shown(key_id)),
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
            Self::ScopeLifetimeTooLong { scope, lifetime, longest } => write!(
                f,
                "the token's lifetime of {} s is too long for its scope `{}`, which allows {} s",
                lifetime.as_secs(),
                Shown(scope),
                longest.as_secs()
            ),
            Self::TokenTooOld { issued_at } => {
                write!(f, "the token is too old: it was issued at {}", issued_at.as_seconds_f64())
            }
            Self::SubjectRefused { found, .. } => {
                write!(f, "subject `{}` is none that this issuer may speak of", Shown(found))
            }
            Self::PrincipalMissing => f.write_str("the token names neither a subject nor a client"),
            Self::TokenRevoked => f.write_str("the token was revoked"),
            Self::VerifierRefused => f.write_str("the verifier does not accept the token"),
            Self::VerifierUnavailable { .. } => f.write_str("the verifier failed or gave no answer"),
            Self::TokenInactive => f.write_str("the issuer says that the token is not active"),
            Self::RevocationsStale { .. } => f.write_str("what was revoked lately cannot be known"),
            Self::AuthenticationLimited { .. } => {
                f.write_str("too many tokens from this address have turned out to be none")
            }
            Self::IntrospectionLimited { .. } => f.write_str("too many unknown tokens came from this address"),
            Self::IntrospectionUnavailable { reason, .. } => {
                write!(f, "the issuer cannot be asked about the token: {reason}")
            }
            Self::ProofMissing => f.write_str("the token is bound to a key and came without proof"),
            Self::BoundAsBearer => f.write_str("the token is bound to a key and came under `Bearer`"),
            Self::ProofDuplicated => f.write_str("there is more than one `DPoP` header"),
            Self::ProofMalformed { what } => write!(f, "no DPoP proof: {what}"),
            Self::ProofAlgorithmRefused { algorithm } => {
                write!(f, "algorithm `{}` of the proof is refused", Shown(algorithm))
            }
            Self::ProofKeyRefused { reason } => write!(f, "the key in the proof is refused: {reason}"),
            Self::ProofSignatureInvalid => f.write_str("the signature of the proof does not match"),
            Self::ProofMethodMismatch { found } => write!(f, "`htm` `{}` is not the request's method", Shown(found)),
            Self::ProofUrlMismatch { found } => write!(f, "`htu` `{}` is not the resource's URL", Shown(found)),
            Self::ProofExpired { issued_at } => {
                write!(f, "the proof is too old: it was made at {}", issued_at.as_seconds_f64())
            }
            Self::ProofFromFuture { issued_at } => {
                write!(f, "the proof was made in the future, at {}", issued_at.as_seconds_f64())
            }
            Self::ProofTokenMismatch => f.write_str("`ath` is not the hash of the token"),
            Self::ProofDigestMissing => f.write_str("the proof has no `content_digest`"),
            Self::ProofDigestMismatch => f.write_str("`content_digest` is not the digest of the body"),
            Self::ProofKeyMismatch { found } => {
                write!(f, "the token is bound to another key than `{}`", Shown(found))
            }
            Self::NonceRequired { .. } => f.write_str("the proof has no nonce of the last minutes"),
            Self::ProofReplayed => f.write_str("the proof was used before"),
            Self::ReplaysUnavailable { .. } => f.write_str("the store of used proofs is away"),
            Self::ReplaysFull { .. } => f.write_str("no room is left to remember the proof"),
            Self::CertificateMissing => f.write_str("the token is bound to a certificate, and none was handed on"),
            Self::CertificateMalformed { what } => write!(f, "the client's certificate cannot be read: {what}"),
            Self::CertificateMismatch => f.write_str("the token is bound to another certificate than the client's"),
            Self::CertificateExpired => f.write_str("the client's certificate is not valid now"),
            Self::CertificateNameMismatch => f.write_str("the certificate has no name of the token's client"),
            Self::SignatureMissing => f.write_str("the request is not signed"),
            Self::SignatureDuplicated => f.write_str("the request has more than one signature that could be meant"),
            Self::SignatureMalformed { what } => write!(f, "no signature of a request: {what}"),
            Self::SignatureComponents { component, what } => {
                write!(f, "component `{}` of the signature: {what}", Shown(component))
            }
            Self::SignatureAlgorithmRefused { algorithm } => {
                write!(f, "algorithm `{}` of the signature is refused", Shown(algorithm))
            }
            Self::SignatureKeyUnknown { key_id } => {
                write!(f, "`{}` is no key of the token's client", Shown(key_id))
            }
            Self::SignatureMismatch => f.write_str("the signature does not match the request"),
            Self::SignatureExpired { created_at } => {
                write!(f, "the signature is too old: it was made at {}", created_at.as_seconds_f64())
            }
            Self::SignatureFromFuture { created_at } => {
                write!(f, "the signature was made in the future, at {}", created_at.as_seconds_f64())
            }
            Self::SignatureReplayed => f.write_str("the signature was used before"),
            Self::DigestMalformed { what } => write!(f, "no digest of the body: {what}"),
            Self::DigestMismatch => f.write_str("`Content-Digest` is not the digest of the body"),
            Self::SignatureRequired { rule } => write!(f, "`{rule}` needs a signed request"),
            Self::BindingUnknown { member } => write!(f, "`cnf` member `{}` cannot be confirmed", Shown(member)),
            Self::BindingMissing { demanded_by } => {
                write!(f, "the token is not bound to a key, which {demanded_by} demands")
            }
            Self::QuotaSpent { rule, is_together: true, .. } => {
                write!(f, "the quota of `{rule}` that newcomers share is spent: `limits.max_keys` windows are in use")
            }
            Self::QuotaSpent { rule, .. } => write!(f, "the quota of `{rule}` is spent"),
            Self::ConcurrencySpent { rule, concurrent } => write!(f, "{concurrent} calls of `{rule}` run already"),
            Self::LimitsUnavailable { .. } => f.write_str("the store of the shared limits is away"),
            Self::WindowsFull { rule, .. } => write!(f, "no window is free for `{rule}`"),
            Self::CostUnreadable { tool } => {
                write!(f, "the argument that `{}` is charged by is no number", Shown(tool))
            }
            Self::TargetUnknown { target } => write!(f, "no rule names `{}`", Shown(target)),
            Self::ScopeInsufficient { rule, missing, .. } => {
                write!(f, "`{rule}` needs the scope `{}`", missing.join(" "))
            }
            Self::Blocked { what, .. } => write!(f, "the {what} is blocked by an operator"),
            Self::TierBlocked { rule } => write!(f, "`{rule}` is blocked"),
            Self::BindingRequired { rule } => write!(f, "`{rule}` needs a token that is bound to a key"),
            Self::AuthenticationInsufficient { rule, claim: "acr", acr_values, .. } => {
                write!(f, "`{rule}` needs a login whose `acr` is one of `{}`", acr_values.join(" "))
            }
            Self::AuthenticationInsufficient { rule, claim, max_age, .. } => {
                let age = max_age.unwrap_or_default().as_secs();
                write!(f, "`{rule}` needs a login of the last {age} s, by `{claim}`")
            }
            Self::NewerTokenRequired { rule } => write!(f, "the token is too old for `{rule}`"),
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
