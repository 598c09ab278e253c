//! Every size limit, each with its source.

/// Longest compact token that is parsed. The four identity providers measured in `tests/vectors` stay
/// under 4 KiB; nginx and uvicorn refuse header blocks of more than 32 to 64 KiB.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Longest encoded JOSE header of a token. RFC 7515 sets none; headers seen are under 300 bytes.
pub const MAX_JOSE_HEADER_BYTES: usize = 4 * 1024;

/// Deepest nesting in a JOSE header (T6 of the requirements).
pub const MAX_JOSE_HEADER_DEPTH: usize = 16;

/// Deepest nesting in a claims set (T6).
pub const MAX_CLAIMS_DEPTH: usize = 64;

/// Deepest nesting in a message; the deepest of the MCP conformance suite is 9.
pub const MAX_MESSAGE_DEPTH: usize = 64;

/// Longest claim value that becomes part of an identity (`iss`, `sub`, `client_id`, `jti`, `sid`).
/// A client id may be an `https` URL (MCP's client id metadata documents).
pub const MAX_IDENTITY_BYTES: usize = 2 * 1024;

/// Most scopes that one token may carry.
pub const MAX_SCOPES: usize = 1_024;

/// Longest message body: the MCP SDK's own `DEFAULT_MAX_REQUEST_BODY_SIZE`.
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// A body longer than this is read only after the headers and the token were checked (decision 9).
pub const MAX_BODY_BYTES_BEFORE_TOKEN: usize = 64 * 1024;

/// Longest tool, prompt or method name, and resource URI, that is looked up.
pub const MAX_NAME_BYTES: usize = 2 * 1024;

/// Most headers of one request that are looked at (h11 and uvicorn allow 100 and more).
pub const MAX_HEADERS: usize = 256;

/// Longest key set document (F3).
pub const MAX_KEY_SET_BYTES: usize = 512 * 1024;

/// Most keys of one set that are prepared (F3).
pub const MAX_KEYS: usize = 100;

/// Deepest nesting in a key set (F3).
pub const MAX_KEY_SET_DEPTH: usize = 8;

/// RSA moduli, in bits (T12, F16).
pub const RSA_MODULUS_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// RSA moduli of proofs, in bits: each proof brings its key, so the largest is what a stranger can make us compute (D13, F16).
pub const PROOF_RSA_MODULUS_BITS: std::ops::RangeInclusive<usize> = 2_048..=4_096;

/// Longest proof of possession (F16). One with an RSA key of 4096 bits has 2.2 KB.
pub const MAX_PROOF_BYTES: usize = 8 * 1024;

/// Longest `jti` of a proof (F16); a UUID has 36.
pub const MAX_PROOF_ID_BYTES: usize = 256;

/// Deepest nesting in the claims of a proof: its claims are plain, others are passed over.
pub const MAX_PROOF_DEPTH: usize = 16;

/// Longest URI that is compared.
pub const MAX_URI_BYTES: usize = 2 * 1024;

/// Largest distance between a proof's `iat` and now, leeway included (MCP's DPoP extension, SEP-1932: five minutes).
pub const MAX_PROOF_AGE: std::time::Duration = std::time::Duration::from_secs(300);

/// Used proofs that are remembered; each costs at most 40 bytes, and each principal among them 300 more.
pub const REPLAY_ENTRIES: usize = 1_000_000;

/// Shortest secret of a deployment: as many bytes as HMAC-SHA256 gives (RFC 2104 §3).
pub const MIN_SECRET_BYTES: usize = 32;

/// Longest `kid`.
pub const MAX_KEY_ID_BYTES: usize = 1_024;

/// Unknown `kid`s that are remembered per issuer until the next fetch.
pub const MAX_UNKNOWN_KEY_IDS: usize = 1_024;

/// Verified tokens that are kept; each costs about 2 KiB.
pub const TOKEN_CACHE_ENTRIES: usize = 10_000;

/// Revocations that are kept at once. A full table refuses further ones; live ones are never dropped.
pub const MAX_REVOCATIONS: usize = 1_000_000;

/// Blocks in force at once: an operator sets them by hand.
pub const MAX_BLOCKS: usize = 10_000;

/// Longest `fastguard.toml`.
pub const MAX_CONFIG_BYTES: usize = 4 * 1024 * 1024;

/// Longest answer about one token (RFC 7662): four times the longest token, whose claims it repeats.
pub const MAX_INTROSPECTION_BYTES: usize = 64 * 1024;

/// Lookups of opaque tokens that may be under way at once, so that an endpoint that hangs holds at most so many sockets.
pub const MAX_OPEN_LOOKUPS: usize = 256;

/// Refused opaque tokens that are remembered, each for ten seconds; at most 300 bytes each.
pub const MAX_REFUSED_TOKENS: usize = 8_192;

/// Addresses whose lookups, or whose failed authentications, are counted apart; newcomers beyond share one count.
pub const MAX_COUNTED_ADDRESSES: usize = 4_096;

/// Most scopes that a configuration may name.
pub const MAX_KNOWN_SCOPES: usize = 4_096;

/// Part of a bounded table that one principal may hold: one in this many (decision 5).
pub const TABLE_SHARE: usize = 64;

/// Longest value of `Signature-Input`, `Signature` and `Content-Digest`: as much as of a proof. The longest of RFC 9421 has 0.7 KB.
pub const MAX_SIGNATURE_FIELD_BYTES: usize = 8 * 1024;

/// Most signatures that one message may carry: its client's, and those of the proxies on its way.
pub const MAX_SIGNATURES: usize = 8;

/// Most components that one signature may cover; the most of RFC 9421 is 10.
pub const MAX_SIGNATURE_COMPONENTS: usize = 32;

/// Most bytes of all field lines of a signed request: what nginx and uvicorn take of headers.
pub const MAX_SIGNED_FIELDS_BYTES: usize = 64 * 1024;
