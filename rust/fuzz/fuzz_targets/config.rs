//! Configurations: whatever stands in the file, it is read whole or refused with a place.
#![no_main]

use fastguard_core::config::Config;
use fastguard_core::gate::Gate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Config::from_toml(text, Some("fastguard.toml")) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(config) => {
            let again = Config::from_toml(text, None).expect("read once");
            assert_eq!(config.digest(), again.digest());
            assert!(config.audit.enabled || Gate::new(config, None).is_ok(), "sound, and does not compile");
        }
    }
});
