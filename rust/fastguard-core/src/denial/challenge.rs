//! What a client is told to present instead (RFC 6750 §3, RFC 9449 §7.1, RFC 9728 §5.1).

use std::fmt::Write as _;

use super::{Denial, Room};

/// What every challenge of one resource says.
#[derive(Clone, Debug, Default)]
pub struct Challenger {
    /// Where the resource's metadata stand.
    pub metadata_url: Option<Box<str>>,
    /// What a client without a token should ask for.
    pub first_scopes: Box<str>,
    /// The names of the algorithms of proofs, spaces between; `None` where proofs are not taken.
    pub proof_algorithms: Option<Box<str>>,
    /// Whether tokens pass under `Bearer`.
    pub takes_bearer: bool,
}

impl Challenger {
    /// The `WWW-Authenticate` value of a refusal, where one is due. Where both schemes can help, both stand in it.
    pub fn challenge(&self, denial: &Denial) -> Option<String> {
        if !denial.is_challenged() {
            return None;
        }
        let mut value = String::new();
        let is_of_proof = denial.is_of_proof();
        if self.takes_bearer && (!is_of_proof || self.proof_algorithms.is_none()) {
            self.write(&mut value, "Bearer", None, denial);
        }
        if let Some(algorithms) = &self.proof_algorithms {
            if !value.is_empty() {
                value.push_str(", ");
            }
            self.write(&mut value, "DPoP", Some(algorithms), denial);
        }
        (!value.is_empty()).then_some(value)
    }

    fn write(&self, value: &mut String, scheme: &str, algorithms: Option<&str>, denial: &Denial) {
        value.push_str(scheme);
        let mut mark = ' ';
        let mut parameter = |name: &str, text: &str| {
            let _ = write!(value, "{mark}{}{name}=\"{text}\"", if mark == ',' { " " } else { "" });
            mark = ',';
        };
        if let Some(error) = denial.challenge_error() {
            parameter("error", error);
            parameter("error_description", denial.challenge_description());
        }
        if let Denial::AuthenticationInsufficient { acr_values, max_age, .. } = denial {
            // RFC 9470 §3. Both, whichever was wanting: the next login must meet both.
            if !acr_values.is_empty() {
                parameter("acr_values", &acr_values.join(" "));
            }
            if let Some(age) = max_age {
                parameter("max_age", &age.as_secs().to_string());
            }
        }
        let required = denial.required_scopes();
        if !required.is_empty() {
            parameter("scope", &required.join(" "));
        } else if !self.first_scopes.is_empty() {
            parameter("scope", &self.first_scopes);
        }
        if let Some(algorithms) = algorithms {
            parameter("algs", algorithms);
        }
        if let Some(url) = &self.metadata_url {
            parameter("resource_metadata", url);
        }
    }
}

impl Denial {
    /// The `error` parameter of the challenge (RFC 6750 §3.1, RFC 9449 §7.1); `None` where the request carried no
    /// credentials, or where no challenge is due.
    pub const fn challenge_error(&self) -> Option<&'static str> {
        match self {
            Self::TokenMissing
            | Self::KeysUnavailable { .. }
            | Self::ReplaysFull { .. }
            | Self::ReplaysUnavailable { .. }
            | Self::AuthenticationLimited { .. }
            | Self::IntrospectionLimited { .. }
            | Self::IntrospectionUnavailable { .. }
            | Self::RevocationsStale { .. } => None,
            Self::ScopeInsufficient { .. } => Some("insufficient_scope"),
            Self::NonceRequired { .. } => Some("use_dpop_nonce"),
            Self::ProofMissing
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
            | Self::ProofReplayed => Some("invalid_dpop_proof"),
            Self::AuthenticationInsufficient { .. } => Some("insufficient_user_authentication"),
            // Not the token is refused but the request that it came with: another token would not help (RFC 6750 §3.1).
            Self::SignatureMissing
            | Self::SignatureDuplicated
            | Self::SignatureMalformed { .. }
            | Self::SignatureComponents { .. }
            | Self::SignatureAlgorithmRefused { .. }
            | Self::SignatureKeyUnknown { .. }
            | Self::SignatureMismatch
            | Self::SignatureExpired { .. }
            | Self::SignatureFromFuture { .. }
            | Self::SignatureReplayed
            | Self::SignatureRequired { .. }
            | Self::DigestMalformed { .. }
            | Self::DigestMismatch => Some("invalid_request"),
            Self::BindingRequired { .. } | Self::NewerTokenRequired { .. } => Some("invalid_token"),
            _ => match self.room() {
                Room::Token | Room::Binding => Some("invalid_token"),
                _ => None,
            },
        }
    }

    fn challenge_description(&self) -> &'static str {
        match self {
            Self::ScopeInsufficient { .. } => "the token lacks a scope that this call needs",
            Self::TokenExpired { .. } => "the token has expired",
            Self::AuthenticationInsufficient { .. } => "this call needs a stronger or more recent login",
            Self::NewerTokenRequired { .. } => "the token is too old for this call",
            Self::TokenTooOld { .. } => "the token is too old",
            Self::TokenRevoked => "the token was revoked",
            Self::NonceRequired { .. } => "the proof needs the nonce of this answer",
            Self::BoundAsBearer => "the token is bound to a key and needs a proof",
            Self::ProofKeyMismatch { .. } => "the token is bound to another key",
            Self::BindingMissing { .. } | Self::BindingRequired { .. } => "the token must be bound to a key",
            _ => match self.challenge_error() {
                Some("invalid_dpop_proof") => "the proof is not valid here",
                Some("invalid_request") => "the signature of the request is missing or not valid here",
                _ => "the token is not valid here",
            },
        }
    }

    /// The scopes that a token for this call needs, where the rule that refused names some.
    fn required_scopes(&self) -> &[String] {
        match self {
            Self::ScopeInsufficient { required, .. } | Self::AuthenticationInsufficient { required, .. } => required,
            _ => &[],
        }
    }

    /// Whether a proof of possession is what was wrong or wanting, so that no bearer token can help.
    fn is_of_proof(&self) -> bool {
        matches!(
            self,
            Self::BoundAsBearer
                | Self::BindingMissing { .. }
                | Self::BindingRequired { .. }
                | Self::ProofKeyMismatch { .. }
        ) || matches!(self.challenge_error(), Some(error) if !is_of_token(error))
    }

    /// Whether the answer carries a `WWW-Authenticate` challenge.
    pub const fn is_challenged(&self) -> bool {
        self.status() == 401 || matches!(self, Self::ScopeInsufficient { .. })
    }

    /// The nonce that the client must put into its next proof (RFC 9449 §9), where it is told one.
    pub fn nonce(&self) -> Option<&str> {
        match self {
            Self::NonceRequired { nonce } => Some(nonce),
            _ => None,
        }
    }
}

/// The errors of RFC 6750 and RFC 9470; the others are of RFC 9449.
fn is_of_token(error: &str) -> bool {
    matches!(error, "invalid_request" | "invalid_token" | "insufficient_scope" | "insufficient_user_authentication")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenger(takes_bearer: bool, algorithms: Option<&str>) -> Challenger {
        let url = "https://h/.well-known/oauth-protected-resource";
        Challenger {
            metadata_url: Some(url.into()),
            first_scopes: "read".into(),
            proof_algorithms: algorithms.map(Box::from),
            takes_bearer,
        }
    }

    #[test]
    fn both_schemes_stand_in_the_challenge_where_both_can_help() {
        let value = challenger(true, Some("ES256")).challenge(&Denial::TokenMissing).unwrap();
        let metadata = "resource_metadata=\"https://h/.well-known/oauth-protected-resource\"";
        assert_eq!(
            value,
            format!("Bearer scope=\"read\", {metadata}, DPoP scope=\"read\", algs=\"ES256\", {metadata}")
        );
    }

    #[test]
    fn refused_proof_is_answered_by_its_scheme_alone() {
        let value = challenger(true, Some("ES256 EdDSA")).challenge(&Denial::ProofReplayed).unwrap();
        assert!(value.starts_with("DPoP error=\"invalid_dpop_proof\", error_description="), "{value}");
        assert!(value.contains("algs=\"ES256 EdDSA\"") && !value.contains("Bearer"), "{value}");
    }

    #[test]
    fn nonce_that_is_wanted_is_named_as_the_error() {
        let denial = Denial::NonceRequired { nonce: "n".to_owned() };
        let value = challenger(false, Some("ES256")).challenge(&denial).unwrap();
        assert!(value.starts_with("DPoP error=\"use_dpop_nonce\""), "{value}");
        assert_eq!(denial.nonce(), Some("n"));
    }

    #[test]
    fn bearer_alone_is_named_where_proofs_are_not_taken() {
        let value = challenger(true, None).challenge(&Denial::TokenRevoked).unwrap();
        assert!(value.starts_with("Bearer error=\"invalid_token\"") && !value.contains("DPoP"), "{value}");
    }

    #[test]
    fn refusals_of_other_status_have_no_challenge() {
        assert_eq!(challenger(true, Some("ES256")).challenge(&Denial::PathUnknown), None);
    }
}
