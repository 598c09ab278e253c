//! `[admin]`

use super::Findings;
use super::url::{is_plain_path, split_url};
use crate::config::admin::Admin;
use crate::config::error::Problem;
use crate::config::glob::Glob;
use crate::config::schema::{Config, Issuer};

pub(super) fn check(config: &Config, findings: &mut Findings) {
    let Some(admin) = &config.admin else { return };
    check_path(config, admin, findings);
    findings.refuse_empty("admin.scope", admin.scope.is_empty() || admin.scope.contains(char::is_whitespace));
    let has_window = (1..=86_400).contains(&admin.quota.window().as_secs());
    if !(1..=10_000).contains(&admin.quota.count()) || !has_window {
        findings.add("admin.quota", "between 1 and 10000, in 1s to 24h");
    }
    let Some(issuer) = config.issuers.iter().find(|issuer| issuer.issuer == admin.issuer) else {
        let known = config.issuers.iter().map(|issuer| issuer.issuer.as_str());
        let problem = Problem::new("admin.issuer", format!("`{}` is none of the issuers", admin.issuer));
        return findings.push(problem.nearest(&admin.issuer, known));
    };
    check_issuer(config, admin, issuer, findings);
}

fn check_path(config: &Config, admin: &Admin, findings: &mut Findings) {
    let path = &*admin.path;
    if !path.starts_with('/') || path == "/" || path.ends_with('/') || !is_plain_path(path) {
        let message = "a path of its own: it starts with `/`, does not end with it, and has no `..`, `//`, `%` or `*`";
        findings.add("admin.path", message);
    }
    let guarded = split_url(&config.resource.url).1;
    if path == guarded || config.resource.public.iter().any(|public| public == path) {
        findings.add("admin.path", "the guarded path and public paths lead elsewhere");
    }
    if path.starts_with("/.well-known/") {
        findings.add("admin.path", "well-known paths are for documents that everybody may read (RFC 8615)");
    }
}

fn check_issuer(config: &Config, admin: &Admin, issuer: &Issuer, findings: &mut Findings) {
    if issuer.has_no_keys() {
        let message = "signs no tokens that are accepted here: what is asked about opaque ones is asked for tools";
        findings.add("admin.issuer", message);
    }
    let may_assert = |names: &Vec<String>| names.iter().any(|name| Glob::new(name).matches(&admin.scope));
    if issuer.asserts_scopes.as_ref().is_some_and(|names| !may_assert(names)) {
        let message = format!("the issuer may not assert `{}`: name it in its `asserts_scopes`", admin.scope);
        findings.add("admin.scope", message);
    }
    let Some(audiences) = &admin.audiences else {
        if issuer.audience_claim.as_deref().is_some_and(|claim| claim != "aud") {
            findings.add("admin.audiences", "needed: no such `audience_claim` holds the endpoint's URL");
        }
        return;
    };
    findings.refuse_empty("admin.audiences", audiences.is_empty() || audiences.iter().any(String::is_empty));
    let of_tools = |name: &&String| match &issuer.audiences {
        Some(accepted) => accepted.contains(name),
        None => **name == config.resource.url,
    };
    if let Some(name) = audiences.iter().find(of_tools) {
        let message = format!("`{name}` is accepted of callers of tools: their tokens must not pass here");
        findings.add("admin.audiences", message);
    }
}
