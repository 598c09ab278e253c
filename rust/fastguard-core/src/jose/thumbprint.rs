//! Names of keys and tokens made of their digests.

use super::backend::sha256;
use super::base64url::encode_segment;

/// The SHA-256 thumbprint of a key (RFC 7638): over its required members, in order of their names, without white space.
/// `members` are pairs of name and value, ordered; the values need no escaping in JSON.
pub(super) fn thumbprint(members: &[(&str, &str)]) -> Box<str> {
    let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
    encode_segment(&sha256(format!("{{{}}}", members.join(",")).as_bytes())).into()
}

/// The name of a token that has no `jti`: the digest of its header and payload, which no other signature changes.
pub fn digest_name(signing_input: &[u8]) -> String {
    format!("sha-256:{}", encode_segment(&sha256(signing_input)))
}

/// Whether the private half of a key stands in an RFC or in a collection of test vectors.
pub fn is_published(thumbprint: &str) -> bool {
    PUBLISHED.binary_search(&thumbprint).is_ok()
}

/// Thumbprints of the keys in RFC 7515, 7517, 7520, 7638, 8037, 8705, 9449, 9421 and in Wycheproof's JSON Web files, sorted.
const PUBLISHED: [&str; 36] = [
    "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
    "3Juhh9nCaGcKHSuwWnhh8919jBcpdja8op_RLoQt7ik",
    "8izOqBCj1XBwWw0-iTcMv27pUKWwFvNmw-kutyfzf-g",
    "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI",
    "BHj8s0GPnMEQtkaULIM-PLgEhLBbuGUQ1vMxmBWZzEo",
    "Hq8QDnrnBm1i_yRr4gRGsYQ5o8tlLrxeJq5MSWzOK1U",
    "HsSFalww3yP-dO-lWGYgFcyV5H22oScIFc4V2Y6GOto",
    "IsUn6_e04MaShXFIISMp4kG62LWzMIPy_MvSA5pJgX8",
    "L1CD4-qDpyE1E9gHzj5vjCjGJE-_cE15R7vJc42twog",
    "M0LDoI96XngUSg4xDJ0__MUj2ymdPLQMNSR_D3EXDAs",
    "N2LgK1ze4NM8YcoO-G7o5XTEOMyE6EZJmjmtoGrAW04",
    "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
    "RgVR5H6vvCLajavO3NKXafnQJXfbDa0gFBXhfKcyeMQ",
    "Rt-IyDEhXohvTl_ozKQ9YGflXGuDb3uu3QmqN2LoMwM",
    "Vy57XrArUrW0NbpI12tEzDHABxMwrTh6HHXRenSpnCo",
    "YlKlB7M2wnS0cPn_V7OW-FuDLuWdJ9z4OvPHmhGDfeE",
    "ZiLSoDuPfDc8rxPl05LxD9nV_EzK3XJ8t6qpTXJCtvw",
    "ayHP8s_OfTOz7Lp74K10qdqgO_pmAnygDsd0O9VnymY",
    "dHri3SADZkrush5HU_50AoRhcKFryN-PI6jPBtPL55M",
    "e59bmbwk8PjLjUR56__eHxmfF6Qg6zrn1lnWa2vmyhI",
    "eLx7cyKbcDMHSL_1LbVriUzfZG-p_W2rjxLJrg9teck",
    "giQqigT_IKcuzHl0FVJ3k5ts3_TWNAxvsC08UZsfcM8",
    "hKoe1YKmJxChuUJIUBuWgD3Kc_DtVa-vpjuCNmmDQh8",
    "h_jutvC-jg3Nwueq8LmdSybXykVsBwk4_5u5Y9JiS7E",
    "jtGSXJVYuZVE0cLF8m4OWz-gvUEtc1LxRfUd7fMBarg",
    "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
    "mTVa39KNK8LI9ZgAkyqQOQayaqVO7DXurapqkzEbfMg",
    "mn9TtdH1OfJlO91eUXaEGe9tTrDzowXs_n2wKGrqLN4",
    "oD0HwocPBSfpNy5W3bpJeyFGY_IQ_YpqxSjQ3Yd-CLA",
    "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U",
    "poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U",
    "rTtHPa7sf4UUCCKAww7j-XnhD2AKwOGNIsGDDipf_EM",
    "u5YUSjQ2-2chBi51NSk3t3g7IM4o2KYcnPqPtCNGd3U",
    "u809Vppx5ixWMOohxWr2aM3m5bD0LQ67g_GPmubQus4",
    "ydQXMtvbsOsZyFir-Y7A8t7fKEM1gbKPvyFkdpu4fvI",
    "zfyJgf2zoUydpctYAdg8JTMjGKGn5NLKDKURo1Ip-eI",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_keys_are_sorted_so_that_each_is_found() {
        assert!(PUBLISHED.is_sorted());
        assert!(PUBLISHED.iter().all(|thumbprint| is_published(thumbprint)));
        assert!(!is_published("AAAA"));
    }

    #[test]
    fn example_of_rfc_7638_gives_its_thumbprint() {
        let modulus = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let members = [("e", "AQAB"), ("kty", "RSA"), ("n", modulus)];
        assert_eq!(&*thumbprint(&members), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }
}
