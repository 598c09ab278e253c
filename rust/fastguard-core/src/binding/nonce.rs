//! Nonces without state (RFC 9449 §8, §9): made of a secret and the time, so that processes agree by the secret alone.

use std::time::Duration;

use crate::clock::UnixTime;
use crate::jose::{Mac, decode_segment, encode_segment, is_same};

/// How long one nonce is given out. It is accepted one step longer, so that no call fails for the change, and one step earlier, by
/// processes whose clocks are behind: a proof made in advance is good for two minutes and not for five.
const STEP: Duration = Duration::from_secs(60);

/// Bytes of the tag in a nonce: nobody can guess 120 bits.
const TAG_BYTES: usize = 15;

/// What no other use of the secret begins with.
const PURPOSE: &[u8] = b"mcp-fastguard dpop nonce 1";

/// Makes nonces, and knows them again.
#[derive(Debug)]
pub struct Nonces {
    mac: Mac,
}

/// Whether a nonce is ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Judged {
    /// Of the present step.
    Present,
    /// Of a neighbouring one; the client should use this from now on.
    Neighbour(String),
    /// Neither; the client must use this.
    Refused(String),
}

impl Nonces {
    /// From a secret, which is not kept.
    pub fn new(secret: &[u8]) -> Self {
        Self { mac: Mac::new(secret) }
    }

    /// The nonce to give out now.
    pub fn give(&self, now: UnixTime) -> String {
        encode_segment(&self.nonce_of(step_of(now)))
    }

    /// Judges the nonce of a proof.
    pub fn judge(&self, nonce: Option<&str>, now: UnixTime) -> Judged {
        let present = step_of(now);
        let found = nonce.and_then(|nonce| decode_segment(nonce.as_bytes()));
        let Some([mark, tag @ ..]) = found.as_deref() else { return Judged::Refused(self.give(now)) };
        // The mark says which step it claims to be of, so that one tag is made and not three.
        let steps = [present, present.saturating_sub(1), present.saturating_add(1)];
        let Some(step) = steps.into_iter().find(|step| mark_of(*step) == *mark) else {
            return Judged::Refused(self.give(now));
        };
        let [_, expected @ ..] = self.nonce_of(step);
        if !is_same(tag, &expected) {
            return Judged::Refused(self.give(now));
        }
        if step == present { Judged::Present } else { Judged::Neighbour(self.give(now)) }
    }

    fn nonce_of(&self, step: u64) -> [u8; 1 + TAG_BYTES] {
        let tag = self.mac.tag(&[PURPOSE, &step.to_be_bytes()].concat());
        let mut nonce = [mark_of(step); 1 + TAG_BYTES];
        for (slot, byte) in nonce.iter_mut().skip(1).zip(tag) {
            *slot = byte;
        }
        nonce
    }
}

fn step_of(now: UnixTime) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(0) / u64::try_from(STEP.as_millis()).unwrap_or(u64::MAX)
}

const fn mark_of(step: u64) -> u8 {
    step.to_be_bytes()[7]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = &[7; 32];

    fn at(seconds: i64) -> UnixTime {
        UnixTime::from_seconds(seconds)
    }

    #[test]
    fn nonce_is_taken_in_its_step_and_the_neighbouring_ones() {
        let nonces = Nonces::new(SECRET);
        let nonce = nonces.give(at(600));
        assert_eq!(nonces.judge(Some(&nonce), at(659)), Judged::Present);
        assert_eq!(nonces.judge(Some(&nonce), at(660)), Judged::Neighbour(nonces.give(at(660))));
        assert_eq!(nonces.judge(Some(&nonce), at(719)), Judged::Neighbour(nonces.give(at(719))));
        assert_eq!(nonces.judge(Some(&nonce), at(720)), Judged::Refused(nonces.give(at(720))));
        assert_eq!(nonces.judge(Some(&nonce), at(540)), Judged::Neighbour(nonces.give(at(540))));
        assert_eq!(nonces.judge(Some(&nonce), at(539)), Judged::Refused(nonces.give(at(539))));
    }

    #[test]
    fn processes_agree_by_the_secret_alone() {
        let nonce = Nonces::new(SECRET).give(at(600));
        assert_eq!(Nonces::new(SECRET).judge(Some(&nonce), at(600)), Judged::Present);
        assert!(matches!(Nonces::new(&[8; 32]).judge(Some(&nonce), at(600)), Judged::Refused(_)));
    }

    #[test]
    fn nonce_whose_mark_has_come_round_is_refused() {
        let nonces = Nonces::new(SECRET);
        let nonce = nonces.give(at(600));
        assert!(matches!(nonces.judge(Some(&nonce), at(600 + 256 * 60)), Judged::Refused(_)));
    }

    #[test]
    fn what_is_no_nonce_is_refused() {
        let nonces = Nonces::new(SECRET);
        let nonce = nonces.give(at(600));
        let longer = format!("{nonce}AA");
        let changed: String = nonce.chars().rev().collect();
        let shorter: String = nonce.chars().take(4).collect();
        for other in [None, Some(""), Some("A"), Some("!"), Some(&shorter), Some(&longer), Some(&changed)] {
            assert!(matches!(nonces.judge(other, at(600)), Judged::Refused(_)), "{other:?}");
        }
    }
}
