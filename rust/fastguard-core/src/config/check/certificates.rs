//! `[certificates]`

use super::Findings;
use crate::config::certificates::CertificateSource;
use crate::config::schema::Config;

pub(super) fn check(config: &Config, findings: &mut Findings) {
    let table = &config.certificates;
    if table.required && config.stdio.is_some() {
        findings.add("certificates.required", "contradicts [stdio]: no certificate can come over standard input");
    }
    if table.source == CertificateSource::Off {
        for (key, is_there) in [("required", table.required), ("clients", !table.clients.is_empty())] {
            if is_there {
                findings.add(format!("certificates.{key}"), "contradicts `certificates.source = \"off\"`");
            }
        }
    }
    for (index, client) in table.clients.iter().enumerate() {
        let key = format!("certificates.clients[{index}]");
        findings.refuse_empty(format!("{key}.client_id"), client.client_id.is_empty());
        findings.refuse_empty(format!("{key}.subject_alt_names"), client.subject_alt_names.is_empty());
        for name in &client.subject_alt_names {
            // A wildcard would match names that nobody has written down here.
            if name.is_empty() || !name.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'*') {
                let message = format!("`{}` is no URI and no name of the DNS", name.escape_default());
                findings.add(format!("{key}.subject_alt_names"), message);
            }
        }
        super::check_issuer_of_client(config, client.issuer.as_deref(), &key, findings);
    }
}
