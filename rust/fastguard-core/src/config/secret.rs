//! Secrets that come beside the configuration, by a file or the environment.

use std::fmt;
use std::sync::Arc;

use super::error::ConfigError;
use super::schema::Config;
use crate::bounds::MIN_SECRET_BYTES;

/// Bytes that no record, digest or message shows.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Secret(Option<Arc<[u8]>>);

impl Secret {
    /// The bytes, where there are any.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.0.as_deref()
    }

    /// `key`: where it comes from. White space at its end is not part of it, since editors add it.
    fn set(&mut self, key: &str, what: &str, bytes: &[u8]) -> Result<(), ConfigError> {
        if self.0.is_some() {
            return Err(ConfigError::at(key, format!("{what} comes by the file or by the environment, not by both")));
        }
        let bytes = bytes.trim_ascii_end();
        if bytes.len() < MIN_SECRET_BYTES {
            return Err(ConfigError::at(key, format!("the secret must have at least {MIN_SECRET_BYTES} bytes")));
        }
        self.0 = Some(bytes.into());
        Ok(())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Secret(set)" } else { "Secret(unset)" })
    }
}

impl Config {
    /// Takes in the secret of nonces. `key` is where it comes from.
    pub fn set_nonce_secret(&mut self, key: &str, bytes: &[u8]) -> Result<(), ConfigError> {
        self.dpop.nonce_secret.set(key, "the secret of nonces", bytes)
    }

    /// Takes in the secret of what processes share. `key` is where it comes from.
    pub fn set_state_secret(&mut self, key: &str, bytes: &[u8]) -> Result<(), ConfigError> {
        match &mut self.state {
            Some(state) => state.secret.set(key, "the secret of the store", bytes),
            None => Err(ConfigError::at(key, "there is no `[state]` that it could be for")),
        }
    }
}
