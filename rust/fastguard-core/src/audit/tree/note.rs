//! Checkpoints as signed notes (C2SP tlog-checkpoint and signed-note).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::audit::digest::{SigningKey, is_signed, sha256};
use crate::audit::line::in_hex;
use crate::audit::merkle::Hash;

/// The type of a key and its signatures: Ed25519 over the note's text (signed-note).
const ED25519: u8 = 0x01;
/// Ed25519 of a witness, over the time and the note's text (tlog-cosignature).
const COSIGNATURE: u8 = 0x04;
const SIGNATURE_MARK: &str = "\u{2014} ";

/// The public half of the key that signs checkpoints, with its name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Key {
    name: String,
    kind: u8,
    public: [u8; 32],
}

impl Key {
    /// Reads `<name>+<hash>+<base64>`, as Go's `note.NewVerifier` does.
    pub fn parse(text: &str) -> Option<Self> {
        Self::read(text, ED25519)
    }

    /// The same of the key of a witness.
    pub fn parse_witness(text: &str) -> Option<Self> {
        Self::read(text, COSIGNATURE)
    }

    fn read(text: &str, wanted: u8) -> Option<Self> {
        let (name, rest) = text.trim().split_once('+')?;
        let (hash, encoded) = rest.split_once('+')?;
        let decoded = STANDARD.decode(encoded).ok()?;
        let (kind, public) = decoded.split_first()?;
        let key = Self { name: name.to_owned(), kind: *kind, public: public.try_into().ok()? };
        (*kind == wanted && is_name(name) && hash == in_hex(&key.id())).then_some(key)
    }

    /// The key's hash: which of several keys of one name signed.
    fn id(&self) -> [u8; 4] {
        let [first, rest @ ..] = self.name.as_bytes() else { return [0; 4] };
        let digest = sha256(*first, &[rest, b"\n", &[self.kind], &self.public]);
        digest.first_chunk().copied().unwrap_or_default()
    }

    /// Whether a signature line of a note names this key.
    fn has_signed(&self, name: &str, id: [u8; 4]) -> bool {
        self.name == name && self.id() == id
    }

    /// When this witness has signed a note, in seconds since 1970.
    pub(in crate::audit) fn cosigned_at(&self, note: &str) -> Result<u64, &'static str> {
        let (text, lines) = parts(note)?;
        for line in lines {
            let (name, id, signature) = line?;
            if !self.has_signed(name, id) {
                continue;
            }
            let (time, signature) = signature.split_first_chunk::<8>().ok_or(MALFORMED)?;
            let at = u64::from_be_bytes(*time);
            if !is_signed(&self.public, cosigned_text(text, at).as_bytes(), signature) {
                return Err("the witness's signature is wrong");
            }
            return Ok(at);
        }
        Err("the checkpoint is not signed by this witness")
    }
}

/// What a witness signs (tlog-cosignature).
fn cosigned_text(text: &str, at: u64) -> String {
    format!("cosignature/v1\ntime {at}\n{text}")
}

const MALFORMED: &str = "the checkpoint is malformed";

/// The name of a key, its hash, and the signature.
type Signature<'n> = (&'n str, [u8; 4], Vec<u8>);

/// The text of a note, and its signatures.
fn parts(note: &str) -> Result<(&str, impl Iterator<Item = Result<Signature<'_>, &'static str>>), &'static str> {
    let end = note.rfind("\n\n").ok_or(MALFORMED)?;
    let (text, signatures) = note.split_at_checked(end + 1).ok_or(MALFORMED)?;
    let signatures = signatures.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n')).ok_or(MALFORMED)?;
    let lines = signatures.split('\n').map(|line| {
        let (name, encoded) =
            line.strip_prefix(SIGNATURE_MARK).and_then(|line| line.split_once(' ')).ok_or(MALFORMED)?;
        let decoded = STANDARD.decode(encoded).map_err(|_| MALFORMED)?;
        let (id, signature) = decoded.split_first_chunk::<4>().ok_or(MALFORMED)?;
        Ok((name, *id, signature.to_vec()))
    });
    Ok((text, lines))
}

impl std::fmt::Display for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let encoded = STANDARD.encode([&[self.kind], self.public.as_slice()].concat());
        write!(formatter, "{}+{}+{encoded}", self.name, in_hex(&self.id()))
    }
}

/// Whether `name` can name a key: signed-note allows neither spaces nor `+`.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|letter: char| letter.is_whitespace() || letter.is_control() || letter == '+')
}

/// Signs checkpoints.
pub(in crate::audit) struct Signer {
    secret: SigningKey,
    key: Key,
}

impl Signer {
    /// `None` where the seed is no key.
    pub(in crate::audit) fn new(name: &str, seed: &[u8; 32]) -> Option<Self> {
        let secret = SigningKey::from_seed(seed)?;
        let key = Key { name: name.to_owned(), kind: ED25519, public: secret.public() };
        Some(Self { secret, key })
    }

    pub(in crate::audit) const fn key(&self) -> &Key {
        &self.key
    }

    /// The note of a checkpoint.
    pub(in crate::audit) fn sign(&self, checkpoint: &Checkpoint) -> String {
        let text = checkpoint.text();
        let signature = [self.key.id().as_slice(), &self.secret.sign(text.as_bytes())].concat();
        format!("{text}\n{SIGNATURE_MARK}{} {}\n", self.key.name, STANDARD.encode(signature))
    }
}

/// Signs the checkpoints of others.
pub(in crate::audit) struct Cosigner {
    secret: SigningKey,
    key: Key,
}

impl Cosigner {
    /// `None` where the name is none of a key, or the seed is no key.
    pub(in crate::audit) fn new(name: &str, seed: &[u8; 32]) -> Option<Self> {
        let secret = SigningKey::from_seed(seed)?;
        let key = Key { name: name.to_owned(), kind: COSIGNATURE, public: secret.public() };
        is_name(name).then_some(Self { secret, key })
    }

    pub(in crate::audit) const fn key(&self) -> &Key {
        &self.key
    }

    /// The note with one more signature, of this time. Whether it may be signed, its caller has seen.
    pub(in crate::audit) fn sign(&self, note: &str, at: u64) -> Result<String, &'static str> {
        let (text, _) = parts(note)?;
        let signed = self.secret.sign(cosigned_text(text, at).as_bytes());
        let signature = [self.key.id().as_slice(), &at.to_be_bytes(), &signed].concat();
        Ok(format!("{note}{SIGNATURE_MARK}{} {}\n", self.key.name, STANDARD.encode(signature)))
    }
}

/// What a log was at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many records it had.
    pub size: u64,
    /// The root over them (RFC 6962 §2.1).
    pub root: Hash,
}

impl Checkpoint {
    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// Reads a note; with a key, one that this key has signed. Signatures of others, as of witnesses, are passed over.
    pub fn open(note: &str, key: Option<&Key>) -> Result<Self, &'static str> {
        let (text, signatures) = parts(note)?;
        let mut is_ours = key.is_none();
        for signature in signatures {
            let (name, id, signature) = signature?;
            if let Some(key) = key.filter(|key| key.has_signed(name, id)) {
                if !is_signed(&key.public, text.as_bytes(), &signature) {
                    return Err("the checkpoint's signature is wrong");
                }
                is_ours = true;
            }
        }
        if !is_ours {
            return Err("the checkpoint is not signed by this key");
        }
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(MALFORMED);
        };
        let number: u64 = size.parse().map_err(|_| MALFORMED)?;
        let root = STANDARD.decode(root).ok().and_then(|root| root.try_into().ok()).ok_or(MALFORMED)?;
        if origin.is_empty() || number.to_string() != size {
            return Err(MALFORMED);
        }
        Ok(Self { origin: origin.to_owned(), size: number, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> (String, Key) {
        let signer = Signer::new("example.com/audit", &[7; 32]).unwrap();
        let checkpoint = Checkpoint { origin: "example.com/audit/log".to_owned(), size: 300, root: [9; 32] };
        (signer.sign(&checkpoint), signer.key().clone())
    }

    #[test]
    fn every_edit_of_one_byte_of_a_note_is_refused() {
        let (note, key) = signed();
        assert_eq!(Checkpoint::open(&note, Some(&key)).map(|checkpoint| checkpoint.size), Ok(300));
        for at in 0..note.len() {
            for flip in [1, 2, 0x20] {
                let mut bytes = note.clone().into_bytes();
                bytes[at] ^= flip;
                let is_open = std::str::from_utf8(&bytes).is_ok_and(|note| Checkpoint::open(note, Some(&key)).is_ok());
                assert!(!is_open, "byte {at}");
            }
            assert!(note.get(..at).is_none_or(|note| Checkpoint::open(note, Some(&key)).is_err()), "cut at {at}");
        }
    }

    #[test]
    fn cosignature_stands_beside_the_logs_own_and_every_edit_of_it_is_refused() {
        let (note, key) = signed();
        let witness = Cosigner::new("witness.example", &[3; 32]).unwrap();
        let cosigned = witness.sign(&note, 1_795_219_200).unwrap();

        assert_eq!(Checkpoint::open(&cosigned, Some(&key)).map(|checkpoint| checkpoint.size), Ok(300));
        assert_eq!(witness.key().cosigned_at(&cosigned), Ok(1_795_219_200));
        assert_eq!(witness.key().cosigned_at(&note), Err("the checkpoint is not signed by this witness"));
        assert_eq!(Key::parse_witness(&witness.key().to_string()), Some(witness.key().clone()));
        assert_eq!(Key::parse(&witness.key().to_string()), None);
        for at in 0..cosigned.len() - 1 {
            let mut bytes = cosigned.clone().into_bytes();
            bytes[at] ^= 1;
            let edited = String::from_utf8(bytes);
            // An edit of the log's own signature is not the witness's matter.
            let is_of_log = (note.rfind('\u{2014}').unwrap()..note.len()).contains(&at);
            let is_open = edited.is_ok_and(|note| witness.key().cosigned_at(&note).is_ok());
            assert!(!is_open || is_of_log, "byte {at}");
        }
    }

    #[test]
    fn key_is_read_as_it_is_written() {
        let (note, key) = signed();
        assert_eq!(Key::parse(&format!("{key}\n")), Some(key.clone()));
        assert_eq!(Key::parse(&key.to_string().replace("com/", "org/")), None);
        let other = Signer::new("example.com/audit", &[8; 32]).unwrap();
        assert_eq!(Checkpoint::open(&note, Some(other.key())), Err("the checkpoint is not signed by this key"));
    }
}
