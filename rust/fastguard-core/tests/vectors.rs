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
use fastguard_core::UnixTime;
use fastguard_core::binding::{
    ClientCertificate, SignatureAlgorithm, SignatureInput, SignedMessage, StartLine, read_signatures,
};
use fastguard_core::config::CertificateSource;
use fastguard_core::denial::Denial;
use fastguard_core::jose::{Algorithm, Algorithms, Compact, Key, KeySet, verify_compact};
use fastguard_core::json::Json;
use serde_json::{Value, json};
use sfv::FieldType as _;

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
    let examples = read(&folder.join("rfc/thumbprints.json"));
    assert_eq!(examples.as_array().unwrap().len(), 3);
    for example in examples.as_array().unwrap() {
        let text = example["jwk"].to_string();
        let key = Key::from_jwk(&Json::parse(text.as_bytes(), 4).unwrap(), false).unwrap();
        assert_eq!(key.thumbprint(), example["sha256_thumbprint"].as_str().unwrap(), "{}", example["name"]);
    }
}

#[test]
fn certificates_of_rfc_8705_and_rfc_9440_are_read_and_have_their_thumbprints() {
    let Some(folder) = folder() else { return };
    let file = read(&folder.join("rfc/rfc8705.json"));
    let other = &file["client_cert_header_example"];
    // Both are over by now, and were valid then.
    let then = UnixTime::from_seconds(1_590_969_600);
    for (source, value, thumbprint) in [
        (CertificateSource::Tls, &file["cert_pem"], &file["x5t#S256"]),
        (CertificateSource::Tls, &file["cert_pem"], &file["cnf"]["x5t#S256"]),
        (CertificateSource::ClientCert, &other["value"], &other["x5t#S256"]),
    ] {
        let certificate = ClientCertificate::read(source, value.as_str().unwrap()).unwrap();
        assert_eq!(certificate.confirm(thumbprint.as_str().unwrap(), then), Ok(()), "{thumbprint}");
        assert_eq!(certificate.confirm(&"A".repeat(43), then), Err(Denial::CertificateMismatch));
    }
}

/// The third, which came with an access token, is judged whole in `binding.rs`.
#[test]
fn proofs_of_rfc_9449_verify_by_the_keys_that_they_bring() {
    let Some(folder) = folder() else { return };
    let file = read(&folder.join("rfc/rfc9449.json"));
    let mut verified = 0;
    for example in file["proofs"].as_array().unwrap() {
        let keys = KeySet::from_jwks(example["header"]["jwk"].to_string().as_bytes(), false).unwrap();
        let proof = example["proof"].as_str().unwrap();
        let (header, payload) = verify_compact(proof.as_bytes(), &keys, all()).unwrap();
        assert_eq!((header.algorithm, header.typ.as_deref()), (Algorithm::Es256, Some("dpop+jwt")));
        assert_eq!(serde_json::from_slice::<Value>(&payload).unwrap(), example["claims"]);
        assert_eq!(keys.keys()[0].thumbprint(), example["jkt"].as_str().unwrap());
        verified += 1;
    }
    assert_eq!(verified, 3);
    let token = file["access_token_with_jkt"]["jwt"].as_str().unwrap();
    let payload = Compact::split(token.as_bytes()).unwrap().payload().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&payload).unwrap(), file["access_token_with_jkt"]["claims"]);
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

// --- structured fields (RFC 9651) and signatures (RFC 9421) ----------------------------------------

/// A value of the suite as the reader gives it; `None` where it is no value of its kind.
fn bare_item(value: &Value) -> Option<sfv::BareItem> {
    let integer = |value: &Value| sfv::Integer::try_from(value.as_i64().unwrap()).ok();
    Some(match value {
        Value::Bool(flag) => (*flag).into(),
        Value::String(text) => sfv::String::from_string(text.clone()).ok()?.into(),
        Value::Number(number) if number.is_i64() => integer(value)?.into(),
        Value::Number(number) => sfv::Decimal::try_from(number.as_f64().unwrap()).ok()?.into(),
        special => {
            let value = &special["value"];
            match special["__type"].as_str().unwrap() {
                "token" => sfv::Token::from_string(value.as_str().unwrap().to_owned()).ok()?.into(),
                "binary" => base32(value.as_str().unwrap()).into(),
                "date" => sfv::BareItem::Date(sfv::Date::from_unix_seconds(integer(value)?)),
                "displaystring" => sfv::BareItem::DisplayString(value.as_str().unwrap().to_owned()),
                other => panic!("{other}"),
            }
        }
    })
}

fn base32(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => u64::from(byte - b'A'),
        _ => u64::from(byte - b'2' + 26),
    };
    let bits: Vec<u64> = text
        .bytes()
        .filter(|byte| *byte != b'=')
        .flat_map(|byte| (0..5).rev().map(move |at| digit(byte) >> at & 1))
        .collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |sum, bit| sum * 2 + *bit) as u8).collect()
}

fn key_of(pair: &Value) -> Option<sfv::Key> {
    sfv::Key::from_string(pair[0].as_str().unwrap().to_owned()).ok()
}

fn parameters(value: &Value) -> Option<sfv::Parameters> {
    value.as_array().unwrap().iter().map(|pair| Some((key_of(pair)?, bare_item(&pair[1])?))).collect()
}

fn structured_item(value: &Value) -> Option<sfv::Item> {
    Some(sfv::Item { bare_item: bare_item(&value[0])?, params: parameters(&value[1])? })
}

fn list_entry(value: &Value) -> Option<sfv::ListEntry> {
    Some(match &value[0] {
        Value::Array(items) => {
            let items = items.iter().map(structured_item).collect::<Option<_>>()?;
            sfv::ListEntry::InnerList(sfv::InnerList { items, params: parameters(&value[1])? })
        }
        _ => sfv::ListEntry::Item(structured_item(value)?),
    })
}

/// What a field says, as text since its kinds have no type in common, and how it is written; nothing is not written at all.
type Shown = (String, Option<String>);

fn shown<T: sfv::FieldType + std::fmt::Debug>(field: &T, written: Option<String>) -> Shown {
    (format!("{field:?}"), written)
}

fn structured(kind: &str, text: &[u8]) -> Option<Shown> {
    let parser = sfv::Parser::new(text);
    Some(match kind {
        "item" => parser.parse::<sfv::Item>().ok().map(|item| shown(&item, Some(item.serialize())))?,
        "list" => parser.parse::<sfv::List>().ok().map(|list| shown(&list, list.serialize()))?,
        _ => parser.parse::<sfv::Dictionary>().ok().map(|found| shown(&found, found.serialize()))?,
    })
}

/// The same made of the suite's value.
fn expected_structure(kind: &str, value: &Value) -> Option<Shown> {
    let members = || value.as_array().unwrap().iter();
    Some(match kind {
        "item" => structured_item(value).map(|item| shown(&item, Some(item.serialize())))?,
        "list" => {
            let list = members().map(list_entry).collect::<Option<sfv::List>>()?;
            shown(&list, list.serialize())
        }
        _ => {
            let found = members().map(|pair| Some((key_of(pair)?, list_entry(&pair[1])?)));
            let found = found.collect::<Option<sfv::Dictionary>>()?;
            shown(&found, found.serialize())
        }
    })
}

/// The files of the suite below a folder, without its schema.
fn structured_cases(folder: &Path, of_writing: bool) -> Vec<Value> {
    let has = |file: &Path, name: &str| file.components().any(|part| part.as_os_str() == name);
    let files = files_below(folder).into_iter();
    let files = files.filter(|file| !has(file, "schema") && has(file, "serialisation-tests") == of_writing);
    files.flat_map(|file| read(&file).as_array().unwrap().clone()).collect()
}

#[test]
fn structured_fields_score_whole() {
    let Some(folder) = folder() else { return };
    let folder = folder.join("structured-field-tests");
    let (reading, writing) = (structured_cases(&folder, false), structured_cases(&folder, true));
    for case in &reading {
        let (kind, name) = (case["header_type"].as_str().unwrap(), &case["name"]);
        let lines: Vec<&str> = case["raw"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
        let Some((found, written)) = structured(kind, lines.join(", ").as_bytes()) else {
            // None of those that may fail does.
            assert_eq!(case["must_fail"], true, "{name}");
            continue;
        };
        assert_ne!(case["must_fail"], true, "{name}");
        assert_eq!(Some(found), expected_structure(kind, &case["expected"]).map(|(found, _)| found), "{name}");
        let canonical = case["canonical"].as_array().or(case["raw"].as_array()).unwrap();
        assert_eq!(written.as_deref(), canonical.first().map(|text| text.as_str().unwrap()), "{name}");
    }
    for case in &writing {
        let found = expected_structure(case["header_type"].as_str().unwrap(), &case["expected"]);
        let written = found.and_then(|(_, written)| written);
        let expected = case["canonical"].as_array().filter(|_| case["must_fail"] != true);
        let expected = expected.and_then(|lines| lines.first()).map(|line| line.as_str().unwrap());
        assert_eq!(written.as_deref(), expected, "{}", case["name"]);
    }
    assert_eq!((reading.len(), writing.len()), (1_591, 544));
}

/// An HTTP message as text, with what a signature sees of it.
struct Text {
    start: Vec<String>,
    fields: Vec<(String, Vec<u8>)>,
    trailers: Vec<(String, Vec<u8>)>,
}

impl Text {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        // RFC 9112 §5.2: a folded line goes on with a space.
        let mut lines: Vec<String> = Vec::new();
        for line in head.lines() {
            match lines.last_mut() {
                Some(last) if line.starts_with([' ', '\t']) => {
                    *last = format!("{} {}", last.trim_end(), line.trim_start());
                }
                _ => lines.push(line.to_owned()),
            }
        }
        let is_start = |line: &str| line.starts_with("HTTP/") || line.ends_with(" HTTP/1.1");
        let start = if is_start(&lines[0]) { lines.remove(0) } else { String::new() };
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.as_bytes().to_vec())
        };
        let trailers = body.split_once("\n0\n").map(|(_, trailers)| trailers.lines().map(field).collect());
        Self {
            start: start.split(' ').map(str::to_owned).collect(),
            fields: lines.iter().map(|line| field(line)).collect(),
            trailers: trailers.unwrap_or_default(),
        }
    }

    fn host(&self) -> &str {
        let host = self.fields.iter().find(|(name, _)| name == "host");
        host.map_or("", |(_, value)| std::str::from_utf8(value).unwrap().trim())
    }

    fn field(&self, name: &str) -> Vec<u8> {
        let values: Vec<&[u8]> =
            self.fields.iter().filter(|(found, _)| found == name).map(|(_, value)| value.trim_ascii()).collect();
        values.join(&b", "[..])
    }

    fn start<'a>(&'a self, scheme: &'a str) -> StartLine<'a> {
        if self.start[0].starts_with("HTTP/") {
            return StartLine::Response { status: self.start[1].parse().unwrap() };
        }
        let target = self.start.get(1).map_or("/", String::as_str);
        let own = target.split_once("://").map_or(target, |(_, rest)| &rest[rest.find('/').unwrap()..]);
        let (path, query) = own.split_once('?').map_or((own, None), |(path, query)| (path, Some(query)));
        let method = &self.start[0];
        StartLine::Request { method, scheme, authority: self.host(), path, query, request_target: Some(target) }
    }

    /// What a signature is over, of this message in answer to a request.
    fn base(&self, input: &SignatureInput, scheme: &str, request: Option<&Self>) -> Result<String, Denial> {
        fn lines(from: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
            from.iter().map(|(name, value)| (&**name, &**value)).collect()
        }
        let asked = request.map(|request| (request.start(scheme), lines(&request.fields)));
        let asked =
            asked.as_ref().map(|(start, fields)| SignedMessage { start: *start, fields, trailers: &[], request: None });
        let (fields, trailers) = (lines(&self.fields), lines(&self.trailers));
        let start = self.start(scheme);
        input.base(&SignedMessage { start, fields: &fields, trailers: &trailers, request: asked.as_ref() })
    }
}

fn rfc9421() -> Option<Value> {
    folder().map(|folder| read(&folder.join("rfc9421/rfc9421.json")))
}

#[test]
fn signed_messages_of_rfc_9421_verify_and_changed_ones_do_not() {
    let Some(file) = rfc9421() else { return };
    let (mut valid, mut invalid) = (0, 0);
    for case in file["cases"].as_array().unwrap() {
        let (label, name) = (case["label"].as_str().unwrap(), case["keyid"].as_str().unwrap());
        let message = Text::read(case["message"].as_str().unwrap());
        let related = case["related_request"].as_str().map(Text::read);
        let algorithm = SignatureAlgorithm::from_name(case["alg"].as_str().unwrap()).unwrap();
        let jwk = match &file["keys"][name]["jwk"] {
            Value::Null => {
                let secret = base64::engine::general_purpose::STANDARD
                    .decode(file["keys"][name]["secret_b64"].as_str().unwrap());
                json!({"kty": "oct", "k": base64url(&secret.unwrap())})
            }
            // Published keys, with their private halves: we keep the public ones.
            jwk => {
                let public = ["kty", "crv", "x", "y", "n", "e"];
                jwk.as_object()
                    .unwrap()
                    .iter()
                    .filter(|(name, _)| public.contains(&&***name))
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect()
            }
        };
        let text = jwk.to_string();
        let key = Key::from_jwk(&Json::parse(text.as_bytes(), 4).unwrap(), true).unwrap();
        let inputs = read_signatures(&message.field("signature-input"), &message.field("signature"), None).unwrap();
        let input = inputs.iter().find(|input| input.label() == label).unwrap();
        assert_eq!(input.key_id(), Some(name));
        let base = message.base(input, "https", related.as_ref()).unwrap();
        let is_valid = key.verify(algorithm.in_jose(), base.as_bytes(), input.signature());
        assert_eq!(is_valid, case["expected"] == "valid", "{label}\n{base}");
        assert_eq!(base, case["signature_base"].as_str().unwrap());
        *(if is_valid { &mut valid } else { &mut invalid }) += 1;
    }
    assert_eq!((valid, invalid), (17, 4));
}

/// The line of one component's identifier.
fn component_line(message: &Text, scheme: &str, identifier: &str) -> Result<String, Denial> {
    let inputs = read_signatures(format!("a=({identifier})").as_bytes(), b"a=:AAAA:", None)?;
    let base = message.base(&inputs[0], scheme, None)?;
    let (lines, _) = base.rsplit_once('\n').unwrap();
    Ok(lines.to_owned())
}

#[test]
fn component_examples_of_rfc_9421_have_their_lines() {
    let Some(file) = rfc9421() else { return };
    let (mut lines, mut examples) = (0, 0);
    for example in file["component_examples"].as_array().unwrap() {
        let mut message = example["message"].as_str().unwrap().to_owned();
        // Section 2.1 shows the empty field apart from the message, 2.1.3 and 2.2.7 the same value sent in other ways.
        let expected: Vec<&str> =
            example["base_lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
        if expected[0].starts_with("\"x-empty-header\"") {
            message += "\nX-Empty-Header:";
        } else if expected[0].ends_with(":dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:") {
            message = "Example-Header: value, with, lots\nExample-Header: of, commas".to_owned();
        } else if expected[0] == "\"@query\": ?" {
            message = "POST /path HTTP/1.1\nHost: www.example.com".to_owned();
        }
        let message = Text::read(&message);
        // The decoded names and values of section 2.2.8 are the RFC's illustration of what its encoding hides.
        if expected.iter().any(|line| line.contains("façade")) {
            continue;
        }
        examples += 1;
        for line in expected {
            let (identifier, _) = line.split_once(": ").or_else(|| line.split_once(":(SP)")).unwrap();
            let scheme = if line.ends_with(": http") { "http" } else { "https" };
            let line = line.strip_suffix("(SP)").map_or_else(|| line.to_owned(), |start| format!("{start} "));
            assert_eq!(component_line(&message, scheme, identifier), Ok(line));
            lines += 1;
        }
    }
    assert_eq!((examples, lines), (24, 38));
}
