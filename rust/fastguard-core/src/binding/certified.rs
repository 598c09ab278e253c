//! `[certificates]`, compiled: whose calls come with a certificate, and with which.

use std::collections::HashMap;

use super::certificate::ClientCertificate;
use crate::call::VerifiedToken;
use crate::clock::UnixTime;
use crate::config::{Config, ConfigError};
use crate::denial::Denial;
use crate::request::CertificateHeader;

/// Judges the certificates of clients.
#[derive(Debug)]
pub(super) struct Certified {
    is_required: bool,
    /// By issuer, then by client.
    names: HashMap<Box<str>, HashMap<Box<str>, Vec<String>>>,
}

impl Certified {
    pub(super) fn new(config: &Config) -> Result<Self, ConfigError> {
        let mut names: HashMap<Box<str>, HashMap<Box<str>, Vec<String>>> = HashMap::new();
        for (index, client) in config.certificates.clients.iter().enumerate() {
            let issuer = config.issuer_of_client(client.issuer.as_deref());
            let at =
                || ConfigError::at(format!("certificates.clients[{index}].issuer"), "needed: there is not one issuer");
            let of_issuer = names.entry(issuer.ok_or_else(at)?.into()).or_default();
            of_issuer
                .entry(client.client_id.as_str().into())
                .or_default()
                .extend(client.subject_alt_names.iter().cloned());
        }
        Ok(Self { is_required: config.certificates.required, names })
    }

    /// Confirms the certificate that the token is bound to (RFC 8705 §3), and the one that its client must have.
    pub(super) fn confirm(
        &self,
        token: &VerifiedToken,
        thumbprint: Option<&str>,
        header: CertificateHeader<'_>,
        now: UnixTime,
    ) -> Result<(), Denial> {
        if thumbprint.is_none() && !self.is_required && self.names.is_empty() {
            return Ok(());
        }
        let of_issuer = self.names.get(token.issuer());
        let names = token.client_id().and_then(|client_id| of_issuer?.get(client_id));
        if thumbprint.is_none() && names.is_none() && !self.is_required {
            return Ok(());
        }
        let certificate = read(header)?;
        if let Some(thumbprint) = thumbprint {
            certificate.confirm(thumbprint, now)?;
        }
        match names {
            Some(names) => certificate.confirm_name(names, now),
            // A certificate of anyone proves nothing, unless the issuer has bound the token to it.
            None if thumbprint.is_none() => Err(Denial::CertificateNameMismatch),
            None => Ok(()),
        }
    }
}

fn read(header: CertificateHeader<'_>) -> Result<ClientCertificate, Denial> {
    match header {
        CertificateHeader::Missing => Err(Denial::CertificateMissing),
        CertificateHeader::One(source, value) => ClientCertificate::read(source, value),
        CertificateHeader::Unreadable => {
            Err(Denial::CertificateMalformed { what: "the header came more than once, or is not visible ASCII" })
        }
    }
}
