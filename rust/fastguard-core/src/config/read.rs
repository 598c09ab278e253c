//! From text to a checked configuration.

use std::ops::Range;

use super::check;
use super::error::{ConfigError, Problem, Warning};
use super::schema::Config;
use crate::bounds::MAX_CONFIG_BYTES;
use crate::jose::sha256;

impl Config {
    /// Reads and checks a `fastguard.toml`. `file` is how messages call it.
    pub fn from_toml(text: &str, file: Option<&str>) -> Result<Self, ConfigError> {
        let lines = Lines(text);
        let read = || {
            if text.len() > MAX_CONFIG_BYTES {
                return Err(ConfigError::at("", "the file is too large"));
            }
            let deserializer = toml::Deserializer::parse(text).map_err(|error| lines.syntax(&error))?;
            let config =
                track(deserializer, |error: &toml::de::Error| (error.message().to_owned(), error.span()), &lines)?;
            check::check(&config)?;
            Ok(config)
        };
        read().map_err(|error: ConfigError| error.with_lines(|key| lines.of_key(key)).in_file(file))
    }

    /// Reads and checks the JSON text of a configuration of the same shape.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        if text.len() > MAX_CONFIG_BYTES {
            return Err(ConfigError::at("", "the configuration is too large"));
        }
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let describe = |error: &serde_json::Error| (plain(&error.to_string()), None);
        let config = track(&mut deserializer, describe, &Lines(""))?;
        check::check(&config)?;
        Ok(config)
    }

    /// What is allowed and probably not meant.
    pub fn warnings(&self) -> Vec<Warning> {
        check::warnings(self)
    }

    /// The digest that names this configuration in records. Secrets have no place in it.
    pub fn digest(&self) -> String {
        // Maps are ordered and the fields' order is fixed, so equal configurations have equal texts.
        let text = serde_json::to_vec(self).unwrap_or_default();
        sha256(&text).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    }

    /// Sets the few values that a deployment may set by its environment; others named `FASTGUARD_…` stop the start.
    pub fn apply_environment(&mut self, variables: impl Iterator<Item = (String, String)>) -> Result<(), ConfigError> {
        /// Read elsewhere: the token of a server on stdio, the command line's file, the vectors of the tests.
        const ELSEWHERE: [&str; 4] =
            ["FASTGUARD_TOKEN", "FASTGUARD_CONFIG", "FASTGUARD_VECTORS", "FASTGUARD_NODE_TOOLS"];
        const PROXIES: &str = "FASTGUARD_PROXIES_ADDRESSES";
        const NONCE_SECRET: &str = "FASTGUARD_DPOP_NONCE_SECRET";
        const STATE_SECRET: &str = "FASTGUARD_STATE_SECRET";
        let own = self.stdio.as_ref().and_then(|stdio| stdio.token_variable.clone());
        for (name, value) in variables.filter(|(name, _)| name.starts_with("FASTGUARD_")) {
            if name == PROXIES {
                let addresses: Result<_, String> = value.split(',').map(|address| address.trim().parse()).collect();
                self.proxies.addresses = addresses.map_err(|message| ConfigError::at(name, message))?;
            } else if name == NONCE_SECRET {
                self.set_nonce_secret(&name, value.as_bytes())?;
            } else if name == STATE_SECRET {
                // A process may have guards that share nothing beside one that does.
                if self.state.is_some() {
                    self.set_state_secret(&name, value.as_bytes())?;
                }
            } else if !ELSEWHERE.contains(&&*name) && own.as_deref() != Some(&*name) {
                let known = ELSEWHERE.into_iter().chain([PROXIES, NONCE_SECRET, STATE_SECRET]);
                let problem = Problem::new(&*name, "this environment variable sets nothing").nearest(&name, known);
                return Err(ConfigError::new(vec![problem]));
            }
        }
        Ok(())
    }

    /// The JSON Schema of the file, for editors.
    #[cfg(feature = "schema")]
    pub fn json_schema() -> serde_json::Value {
        let mut schema = schemars::schema_for!(Self).to_value();
        if let Some(object) = schema.as_object_mut() {
            object.insert("title".to_owned(), "fastguard.toml".into());
        }
        schema
    }
}

/// Deserialises with the path of what is being read, so that a message can name it.
fn track<'de, D>(
    deserializer: D,
    describe: impl Fn(&D::Error) -> (String, Option<Range<usize>>),
    lines: &Lines<'_>,
) -> Result<Config, ConfigError>
where
    D: serde::Deserializer<'de>,
{
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        let (message, span) = describe(error.inner());
        let mut problem = explain(&path, &message);
        problem.line = span.map(|span| lines.at(span.start));
        ConfigError::new(vec![problem])
    })
}

/// Turns what serde says into words that name the nearest right one.
fn explain(path: &str, message: &str) -> Problem {
    let path = if path == "." { "" } else { path };
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((written, known)) if message.starts_with("unknown field") => {
            let key = path.strip_suffix(written).map_or(path, |parent| parent.trim_end_matches('.'));
            let key = if key.is_empty() { (*written).to_owned() } else { format!("{key}.{written}") };
            Problem::new(key, "unknown key").nearest(written, known.iter().copied())
        }
        Some((written, known)) if message.starts_with("unknown variant") => {
            let known = known.iter().copied();
            let list = known.clone().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
            Problem::new(path, format!("`{written}` is none of {list}")).nearest(written, known)
        }
        Some((missing, _)) if message.starts_with("missing field") => {
            let key = if path.is_empty() { (*missing).to_owned() } else { format!("{path}.{missing}") };
            Problem::new(key, "missing")
        }
        _ => Problem::new(path, message),
    }
}

/// Cuts off the place that `serde_json` adds: there is no file to look it up in.
fn plain(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).to_owned()
}

/// Finds lines in the text of a file.
struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let mut problem = Problem::new("", format!("not TOML: {}", error.message()));
        problem.line = error.span().map(|span| self.at(span.start));
        ConfigError::new(vec![problem])
    }

    fn at(&self, offset: usize) -> usize {
        self.0.get(..offset).map_or(1, |before| before.matches('\n').count() + 1)
    }

    /// The line on which a key stands, as far as a plain look at the text can tell: the table's header, then the key.
    fn of_key(&self, key: &str) -> Option<usize> {
        let table = key.split(['.', '[']).next().filter(|table| !table.is_empty())?;
        let index: usize = key.split_once('[').and_then(|(_, rest)| rest.split(']').next()?.parse().ok()).unwrap_or(0);
        let named = key.split('"').nth(1);
        let last = key.rsplit(['.', ']', '"']).next().filter(|last| !last.is_empty() && *last != table);
        let heads = self.0.lines().enumerate().filter(|(_, line)| {
            let head = line.trim_start().trim_start_matches('[');
            line.trim_start().starts_with('[')
                && head.starts_with(table)
                && named.is_none_or(|name| head.contains(name))
        });
        let (start, _) = heads.clone().nth(index).or_else(|| heads.clone().next())?;
        let body =
            self.0.lines().enumerate().skip(start + 1).take_while(|(_, line)| !line.trim_start().starts_with('['));
        let found = last.and_then(|last| {
            body.into_iter().find(|(_, line)| {
                line.trim_start().strip_prefix(last).is_some_and(|rest| rest.trim_start().starts_with('='))
            })
        });
        Some(found.map_or(start, |(line, _)| line) + 1)
    }
}
