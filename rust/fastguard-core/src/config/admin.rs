//! `[admin]`: where operators act on a running guard.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check::split_url;
use super::limits::{LimitAnswer, LimitMode, LimitRule, Limits};
use super::schema::{Config, Issuer, Resource, Rule};
use super::values::Quota;

/// What an administrator can ask for, as rules and records name it.
pub const ADMIN_METHODS: [&str; 5] =
    ["fastguard/block", "fastguard/refresh_keys", "fastguard/revoke", "fastguard/status", "fastguard/unblock"];

/// `[admin]`: an endpoint by which operators revoke and block. Without this table there is none.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Its path, under the host of `resource.url`. Default: /fastguard/admin.
    #[serde(default = "default_path")]
    pub path: String,
    /// Whose tokens administrators bring: one of `[[issuers]]`.
    pub issuer: String,
    /// The scope that such a token must have. Nothing implies it. Default: fastguard:admin.
    #[serde(default = "default_scope")]
    pub scope: String,
    /// Accepted values of `aud`, none of which may be accepted of a caller of tools. Default: the endpoint's own URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audiences: Option<Vec<String>>,
    /// How often each administrator may ask for something, in each process. Default: 60/minute.
    #[serde(default = "default_quota")]
    pub quota: Quota,
}

fn default_path() -> String {
    "/fastguard/admin".to_owned()
}

fn default_scope() -> String {
    "fastguard:admin".to_owned()
}

const fn default_quota() -> Quota {
    Quota::new(60, std::time::Duration::from_secs(60))
}

impl Config {
    /// The configuration of the administrators' endpoint, which is a resource of its own: another URL, another audience, one
    /// issuer, rules for its own methods and for no tool. Everything that proves a caller is as it stands for callers of tools.
    pub(crate) fn of_admin(&self) -> Option<Self> {
        let admin = self.admin.as_ref()?;
        let url = format!("{}{}", split_url(&self.resource.url).0, admin.path);
        let of_name = self.issuers.iter().filter(|issuer| issuer.issuer == admin.issuer);
        let issuers = of_name.map(|issuer| Issuer {
            audiences: Some(admin.audiences.clone().unwrap_or_else(|| vec![url.clone()])),
            // What it answers about an opaque token is asked for tools: here only what it signs counts.
            introspection_client_id: None,
            ..issuer.clone()
        });
        let rule = Rule { scopes: Some(vec![admin.scope.clone()]), ..Rule::default() };
        let issuers = issuers.collect();
        Some(Self {
            issuers,
            resource: Resource {
                url,
                public: Vec::new(),
                scopes: vec![admin.scope.clone()],
                name: None,
                authorization_servers: None,
                documentation: None,
            },
            scopes: BTreeMap::new(),
            // Each process counts for itself: what stops an attack must not wait for a store that is part of it.
            limits: Limits {
                rules: vec![LimitRule::of_principals(Some("admin"), admin.quota)],
                mode: Some(LimitMode::Local),
                degrade: None,
                answer: LimitAnswer::Error,
                ..self.limits.clone()
            },
            tools: BTreeMap::new(),
            prompts: BTreeMap::new(),
            resources: BTreeMap::new(),
            methods: ADMIN_METHODS.map(|method| (method.to_owned(), rule.clone())).into(),
            stdio: None,
            observe: None,
            admin: None,
            ..self.clone()
        })
    }
}
