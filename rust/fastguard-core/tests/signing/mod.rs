//! Keys made for one run, and tokens signed with them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// One key that signs.
pub(crate) enum Signer {
    Elliptic(EcdsaKeyPair),
    Edwards(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    pub(crate) fn elliptic() -> Self {
        Self::Elliptic(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn edwards() -> Self {
        Self::Edwards(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    /// `alg`.
    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Elliptic(_) => "ES256",
            Self::Edwards(_) => "EdDSA",
            Self::Rsa(_) => "RS256",
        }
    }

    /// The public half.
    pub(crate) fn jwk(&self, key_id: &str) -> Value {
        let mut jwk = match self {
            Self::Elliptic(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)})
            }
            Self::Edwards(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key())}),
            Self::Rsa(pair) => {
                // DER of RSAPublicKey (RFC 8017 A.1.1): 4 bytes of SEQUENCE, 5 of INTEGER with its zero, then the modulus.
                let der = pair.public_key().as_ref();
                assert_eq!(der[265..], [2, 3, 1, 0, 1]);
                json!({"kty": "RSA", "n": encode(&der[9..265]), "e": "AQAB"})
            }
        };
        jwk["kid"] = key_id.into();
        jwk
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Elliptic(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Edwards(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut signature = vec![0; 256];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// A token of any two texts, be they JSON or not.
    pub(crate) fn token_of(&self, header: &[u8], payload: &[u8]) -> String {
        let input = format!("{}.{}", encode(header), encode(payload));
        let signature = encode(self.sign(input.as_bytes()));
        format!("{input}.{signature}")
    }

    /// A token with the header of an access token (RFC 9068 §2.1).
    pub(crate) fn token(&self, key_id: &str, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "kid": key_id, "typ": "at+jwt"});
        self.token_of(header.to_string().as_bytes(), claims.to_string().as_bytes())
    }
}
