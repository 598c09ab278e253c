//! Vectors that no one here wrote, each with the score that a strict reader must have.
//!
//! They are read from `$FASTGUARD_VECTORS`, by default `../shared/vectors` beside the checkout. Without the folder each test says so
//! and passes; with `CI=true` it fails.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::string_slice,
    reason = "tests fail by panics, and tell what they skip"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fastguard_core::jose::{Algorithm, Algorithms, Key, KeySet, verify_compact};
use fastguard_core::json::Json;
use serde_json::{Value, json};

/// Whether P-521 can be verified.
const HAS_P521: bool = cfg!(feature = "aws-lc-rs");

fn folder() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors");
    let folder = std::env::var_os("FASTGUARD_VECTORS").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must have the vectors: {}", folder.display());
    println!("SKIPPED: no vectors at {}", folder.display());
    None
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn all() -> Algorithms {
    Algorithms::from_names(Algorithm::ALL.map(Algorithm::name)).unwrap()
}

fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Groups of tests with their keys: the public ones, else the secret.
fn groups(file: &Value) -> impl Iterator<Item = (Result<KeySet, String>, &Vec<Value>)> {
    file["testGroups"].as_array().unwrap().iter().map(|group| {
        let (keys, allow_symmetric) = match &group["public"] {
            Value::Null => (&group["private"], true),
            public => (public, false),
        };
        let set = KeySet::from_jwks(keys.to_string().as_bytes(), allow_symmetric).map_err(|error| error.to_string());
        (set, group["tests"].as_array().unwrap())
    })
}

/// (valid accepted, valid refused by their number, invalid refused, invalid accepted by their number).
fn score(file: &Value, token: &str) -> (usize, Vec<u64>, usize, Vec<u64>) {
    let mut score = (0, Vec::new(), 0, Vec::new());
    for (keys, tests) in groups(file) {
        for test in tests {
            let Some(text) = test[token].as_str() else {
                score.2 += 1;
                continue;
            };
            let is_accepted = keys.as_ref().is_ok_and(|keys| verify_compact(text.as_bytes(), keys, all()).is_ok());
            let number = test["tcId"].as_u64().unwrap();
            match (test["result"].as_str().unwrap(), is_accepted) {
                ("valid", true) => score.0 += 1,
                ("valid", false) => score.1.push(number),
                (_, false) => score.2 += 1,
                (_, true) => score.3.push(number),
            }
        }
    }
    score
}

#[test]
fn wycheproof_json_web_signatures_score_whole() {
    let Some(folder) = folder() else { return };
    let file = read(&folder.join("wycheproof/json_web_signature_test.json"));

    // A strict reader refuses six that are called valid: the header names another algorithm than the key, or the text has a
    // character that base64url has not. Two that are called invalid, 367 and 370, are letter for letter the valid 357, so no
    // reader can refuse them and accept that one: 353 of 355 is the most there is.
    assert_eq!(score(&file, "jws"), (40, vec![346, 347, 350, 351, 372, 373], 353, vec![367, 370]));
}

#[test]
fn wycheproof_json_web_keys_score_whole() {
    let Some(folder) = folder() else { return };
    let file = read(&folder.join("wycheproof/json_web_key_test.json"));

    assert_eq!(score(&file, "jws"), (5, vec![], 21, vec![]));
}

#[test]
fn wycheproof_json_web_crypto_scores_whole() {
    let Some(folder) = folder() else { return };
    let mut file = read(&folder.join("wycheproof/json_web_crypto_test.json"));
    // The rest of the file is JWE, which is refused whole below.
    let groups = file["testGroups"].as_array_mut().unwrap();
    groups.retain(|group| group["tests"].as_array().unwrap().iter().all(|test| !test["jws"].is_null()));

    assert_eq!(score(&file, "jws"), (4, vec![], 45, vec![]));
}

#[test]
fn every_json_web_encryption_is_refused() {
    let Some(folder) = folder() else { return };
    let mut refused = 0;
    for name in ["json_web_encryption_test.json", "json_web_crypto_test.json"] {
        let file = read(&folder.join("wycheproof").join(name));
        for group in file["testGroups"].as_array().unwrap() {
            for test in group["tests"].as_array().unwrap() {
                let Some(text) = test["jwe"].as_str() else { continue };
                for keys in
                    ["public", "private"].map(|keys| KeySet::from_jwks(group[keys].to_string().as_bytes(), true))
                {
                    assert!(
                        keys.is_err() || keys.is_ok_and(|keys| verify_compact(text.as_bytes(), &keys, all()).is_err())
                    );
                }
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 172);
}

/// Verifies every test of a primitive's file: (valid accepted, others refused).
fn primitive(name: &str, algorithm: Algorithm, jwk: impl Fn(&Value) -> Value) -> Option<(usize, usize)> {
    let file = read(&folder()?.join("wycheproof").join(name));
    let mut score = (0, 0);
    for group in file["testGroups"].as_array().unwrap() {
        let text = jwk(group).to_string();
        let key = Key::from_jwk(&Json::parse(text.as_bytes(), 4).unwrap(), false);
        for test in group["tests"].as_array().unwrap() {
            let (message, signature) = (hex(test["msg"].as_str().unwrap()), hex(test["sig"].as_str().unwrap()));
            let is_accepted = key.as_ref().is_ok_and(|key| key.verify(algorithm, &message, &signature));
            // The "acceptable" ones lack the NULL of their algorithm's parameters (RFC 8017 §A.2.4): refused.
            assert_eq!(is_accepted, test["result"] == "valid", "{name} {}", test["tcId"]);
            if is_accepted { score.0 += 1 } else { score.1 += 1 }
        }
    }
    Some(score)
}

fn rsa_jwk(group: &Value) -> Value {
    let number = |name: &str| {
        let bytes = hex(group["publicKey"][name].as_str().unwrap());
        base64url(&bytes[bytes.iter().position(|byte| *byte != 0).unwrap()..])
    };
    json!({"kty": "RSA", "n": number("modulus"), "e": number("publicExponent")})
}

#[test]
fn wycheproof_rsa_scores_whole() {
    use Algorithm::{Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
    for (name, algorithm, expected) in [
        ("rsa_signature_2048_sha256_test.json", Rs256, (9, 250)),
        ("rsa_signature_2048_sha384_test.json", Rs384, (7, 251)),
        ("rsa_signature_2048_sha512_test.json", Rs512, (8, 251)),
        ("rsa_signature_3072_sha256_test.json", Rs256, (8, 251)),
        ("rsa_signature_3072_sha384_test.json", Rs384, (7, 252)),
        ("rsa_signature_3072_sha512_test.json", Rs512, (8, 252)),
        ("rsa_signature_4096_sha256_test.json", Rs256, (7, 251)),
        ("rsa_signature_4096_sha384_test.json", Rs384, (7, 252)),
        ("rsa_signature_4096_sha512_test.json", Rs512, (7, 252)),
        ("rsa_pss_2048_sha256_mgf1_32_test.json", Ps256, (63, 45)),
        ("rsa_pss_2048_sha384_mgf1_48_test.json", Ps384, (95, 46)),
        ("rsa_pss_3072_sha256_mgf1_32_test.json", Ps256, (63, 45)),
        ("rsa_pss_4096_sha256_mgf1_32_test.json", Ps256, (63, 45)),
        ("rsa_pss_4096_sha384_mgf1_48_test.json", Ps384, (95, 46)),
        ("rsa_pss_4096_sha512_mgf1_64_test.json", Ps512, (132, 47)),
    ] {
        let Some(score) = primitive(name, algorithm, rsa_jwk) else { return };
        assert_eq!(score, expected, "{name}");
    }
}

#[test]
fn wycheproof_curves_score_whole() {
    for (name, algorithm, expected) in [
        ("ecdsa_secp256r1_sha256_p1363_test.json", Algorithm::Es256, (173, 89)),
        ("ecdsa_secp384r1_sha384_p1363_test.json", Algorithm::Es384, (193, 87)),
        ("ecdsa_secp521r1_sha512_p1363_test.json", Algorithm::Es512, (231, 87)),
        ("ed25519_test.json", Algorithm::EdDsa, (88, 63)),
    ] {
        if algorithm == Algorithm::Es512 && !HAS_P521 {
            continue;
        }
        let jwk = |group: &Value| {
            if algorithm == Algorithm::EdDsa {
                let x = hex(group["publicKey"]["pk"].as_str().unwrap());
                return json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(&x)});
            }
            let point = hex(group["publicKey"]["uncompressed"].as_str().unwrap());
            let (x, y) = point[1..].split_at((point.len() - 1) / 2);
            let curve = ["P-256", "P-384", "P-521"][x.len() / 17 - 1];
            json!({"kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y)})
        };
        let Some(score) = primitive(name, algorithm, jwk) else { return };
        assert_eq!(score, expected, "{name}");
    }
}

#[test]
fn wycheproof_hmac_scores_whole() {
    let Some(folder) = folder() else { return };
    for (name, algorithm, bits) in
        [("256", Algorithm::Hs256, 256), ("384", Algorithm::Hs384, 384), ("512", Algorithm::Hs512, 512)]
    {
        let file = read(&folder.join(format!("wycheproof/hmac_sha{name}_test.json")));
        let mut accepted = 0;
        for group in file["testGroups"].as_array().unwrap() {
            for test in group["tests"].as_array().unwrap() {
                let secret = hex(test["key"].as_str().unwrap());
                let jwk = json!({"kty": "oct", "k": base64url(&secret)}).to_string();
                let key = Key::from_jwk(&Json::parse(jwk.as_bytes(), 4).unwrap(), true);
                let (message, tag) = (hex(test["msg"].as_str().unwrap()), hex(test["tag"].as_str().unwrap()));
                let is_accepted = key.is_ok_and(|key| key.verify(algorithm, &message, &tag));
                // RFC 7518 §3.2: whole tags only, and secrets at least as long as the hash.
                let is_whole = group["tagSize"] == bits && secret.len() * 8 >= bits;
                assert_eq!(is_accepted, is_whole && test["result"] == "valid", "{name} {}", test["tcId"]);
                accepted += usize::from(is_accepted);
            }
        }
        assert!(accepted >= 20, "{name}: {accepted}");
    }
}

#[test]
fn examples_of_rfc_7515_verify() {
    let Some(folder) = folder() else { return };
    let examples = read(&folder.join("rfc/rfc7515.json"));
    let mut scores = BTreeMap::new();
    for example in examples.as_array().unwrap() {
        let keys = KeySet::from_jwks(example["jwk"].to_string().as_bytes(), true);
        let text = example["jws"].as_str().unwrap();
        let is_accepted = keys.is_ok_and(|keys| verify_compact(text.as_bytes(), &keys, all()).is_ok());
        let name = example["name"].as_str().unwrap();
        let is_expected = example["expected"] == "valid" && (HAS_P521 || !name.ends_with("A.4"));
        assert_eq!(is_accepted, is_expected, "{name}");
        scores.insert(name.to_owned(), is_accepted);
    }
    assert_eq!(scores.len(), 6);
}

#[test]
fn cookbook_signatures_verify_and_others_are_refused() {
    let Some(folder) = folder() else { return };
    let (mut accepted, mut refused) = (0, 0);
    for (name, is_accepted) in [
        ("jws/4_1.rsa_v15_signature.json", true),
        ("jws/4_2.rsa-pss_signature.json", true),
        ("jws/4_3.ecdsa_signature.json", HAS_P521),
        ("jws/4_4.hmac-sha2_integrity_protection.json", true),
        ("jws/4_5.signature_with_detached_content.json", false),
        ("curve25519/jws.json", true),
        ("rfc7797/hmac-sha2_b64_false.json", false),
        ("rfc7797/4.2.hmac-sha2_b64_false.json", false),
    ] {
        let example = read(&folder.join("cookbook").join(name));
        let mut jwk = example["input"]["key"].clone();
        // The cookbook signs, so its keys are private ones.
        for member in ["d", "p", "q", "dp", "dq", "qi"] {
            jwk.as_object_mut().unwrap().remove(member);
        }
        let keys = KeySet::from_jwks(jwk.to_string().as_bytes(), true);
        let Some(text) = example["output"]["compact"].as_str() else {
            refused += 1;
            continue;
        };
        let verified = keys.is_ok_and(|keys| verify_compact(text.as_bytes(), &keys, all()).is_ok());
        assert_eq!(verified, is_accepted, "{name}");
        if verified { accepted += 1 } else { refused += 1 }
    }
    assert_eq!((accepted, refused), if HAS_P521 { (5, 3) } else { (4, 4) });
}

#[test]
fn public_keys_of_the_cookbook_are_read() {
    let Some(folder) = folder() else { return };
    let ec = read(&folder.join("cookbook/jwk/3_1.ec_public_key.json"));
    assert_eq!(KeySet::from_jwks(ec.to_string().as_bytes(), false).is_ok(), HAS_P521);
    let rsa = read(&folder.join("cookbook/jwk/3_3.rsa_public_key.json"));
    assert!(KeySet::from_jwks(rsa.to_string().as_bytes(), false).is_ok());
    for name in ["3_2.ec_private_key.json", "3_4.rsa_private_key.json", "3_6.symmetric_key_encryption.json"] {
        let key = read(&folder.join("cookbook/jwk").join(name));
        assert!(KeySet::from_jwks(key.to_string().as_bytes(), true).is_err(), "{name}");
    }
}

#[test]
fn thumbprints_of_the_rfcs_are_found() {
    let Some(folder) = folder() else { return };
    for example in read(&folder.join("rfc/thumbprints.json")).as_array().unwrap() {
        let text = example["jwk"].to_string();
        let key = Key::from_jwk(&Json::parse(text.as_bytes(), 4).unwrap(), false).unwrap();
        assert_eq!(key.thumbprint(), example["sha256_thumbprint"].as_str().unwrap(), "{}", example["name"]);
    }
}

#[test]
fn json_test_suite_scores_whole() {
    let Some(folder) = folder() else { return };
    let (mut accepted, mut refused, mut either) = (0, 0, Vec::new());
    for entry in std::fs::read_dir(folder.join("jsontestsuite/test_parsing")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let is_parsed = Json::parse(&std::fs::read(&path).unwrap(), 64).is_ok();
        match name.as_bytes()[0] {
            // Two files of the 95 name a member twice, which RFC 8259 §4 allows and a guard must not.
            b'y' if name.contains("duplicated_key") => assert!(!is_parsed, "{name}"),
            b'y' => {
                assert!(is_parsed, "{name}");
                accepted += 1;
            }
            b'n' => {
                assert!(!is_parsed, "{name}");
                refused += 1;
            }
            _ if is_parsed => either.push(name),
            _ => {}
        }
    }
    assert_eq!((accepted, refused), (93, 188));
    either.sort();
    assert_eq!(either, PINNED);
}

/// Of the 35 that RFC 8259 leaves open, these are read.
const PINNED: [&str; 5] = [
    "i_number_double_huge_neg_exp.json",
    "i_number_real_underflow.json",
    "i_number_too_big_neg_int.json",
    "i_number_too_big_pos_int.json",
    "i_number_very_big_negative_int.json",
];

/// Every file of JSON below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect()
}

fn merkle_hash(value: &Value) -> Option<[u8; 32]> {
    let decoded = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default());
    decoded.unwrap().try_into().ok()
}

/// A root; where sizes are equal, vectors have short texts that are only compared.
fn merkle_root(value: &Value) -> Option<[u8; 32]> {
    let mut decoded = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default()).unwrap();
    decoded.resize(decoded.len().max(32), 0);
    decoded.try_into().ok()
}

fn merkle_path(case: &Value) -> Option<Vec<[u8; 32]>> {
    case["proof"].as_array().map_or(Some(Vec::new()), |path| path.iter().map(merkle_hash).collect())
}

#[test]
fn merkle_proofs_of_inclusion_and_consistency() {
    let Some(folder) = folder() else { return };
    let testdata = folder.join("merkle/testdata");
    let number = |case: &Value, name: &str| case[name].as_u64().unwrap_or_default();
    let (mut judged, mut accepted) = (0, 0);
    for file in files_below(&testdata.join("inclusion")) {
        let case = read(&file);
        let holds = || {
            let (leaf, root) = (merkle_hash(&case["leafHash"])?, merkle_hash(&case["root"])?);
            let (index, size) = (number(&case, "leafIdx"), number(&case, "treeSize"));
            Some(fastguard_core::audit::is_included(&leaf, index, size, &merkle_path(&case)?, &root))
        };
        assert_eq!(holds() == Some(true), case["wantErr"] != true, "{}", file.display());
        judged += 1;
        accepted += usize::from(case["wantErr"] != true);
    }
    for file in files_below(&testdata.join("consistency")) {
        let case = read(&file);
        let holds = || {
            let (first, second) = (merkle_root(&case["root1"])?, merkle_root(&case["root2"])?);
            let sizes = (number(&case, "size1"), number(&case, "size2"));
            Some(fastguard_core::audit::is_consistent(sizes, (&first, &second), &merkle_path(&case)?))
        };
        assert_eq!(holds() == Some(true), case["wantErr"] != true, "{}", file.display());
        judged += 1;
        accepted += usize::from(case["wantErr"] != true);
    }
    assert_eq!((judged, accepted), (196, 12));
}
