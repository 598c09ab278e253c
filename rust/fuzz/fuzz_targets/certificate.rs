//! Certificates as proxies hand them on, and the URLs of proofs.
#![no_main]

use fastguard_core::binding::ClientCertificate;
use fastguard_core::config::CertificateSource;
use fastguard_core::uri::Uri;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &str| {
    for source in [CertificateSource::ClientCert, CertificateSource::Envoy, CertificateSource::Nginx] {
        let _ = ClientCertificate::read(source, value);
    }
    if let Some(uri) = Uri::parse(value) {
        assert_eq!(Uri::parse(value.split(['?', '#']).next().unwrap_or_default()), Some(uri), "a query changes the URL");
    }
});
