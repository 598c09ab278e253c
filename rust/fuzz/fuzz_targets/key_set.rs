//! Documents of key sets, as they come from the network (RFC 7517).
#![no_main]

use fastguard_core::jose::{Algorithms, KeySet, verify_compact};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|document: &[u8]| {
    let Ok(keys) = KeySet::from_jwks(document, false) else { return };
    for key in keys.keys() {
        // 32 bytes of SHA-256 (RFC 7638 §3.1).
        assert_eq!(key.thumbprint().len(), 43);
    }
    let algorithms = Algorithms::from_names(["ES256", "RS256", "PS256", "EdDSA"]).expect("known names");
    let unsigned = b"eyJhbGciOiJFUzI1NiJ9.e30.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert!(verify_compact(unsigned, &keys, algorithms).is_err(), "a signature of nothing passes");
});
