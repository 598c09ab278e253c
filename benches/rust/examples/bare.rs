//! Bare verification by aws-lc-rs with a parsed key, whenever it is asked for, so that another process can measure beside it in alternating
//! blocks. Each line of standard input is an algorithm, how many threads, and how many signatures each of them verifies; the answer is
//! how many nanoseconds that took, and how many of them one thread alone had a processor for.
#![allow(clippy::all, clippy::pedantic, clippy::restriction, reason = "a measurement, run by `make bench`")]

use std::io::{BufRead, stdin};
use std::time::Instant;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    ParsedPublicKey,
};

/// As many signatures are taken by turns.
const SIGNATURES: usize = 500;

/// As long as the signing input of a usual proof.
const LETTERS: usize = 440;

struct Bench {
    key: ParsedPublicKey,
    signed: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Bench {
    fn new(key: ParsedPublicKey, sign: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        let signed = (0..SIGNATURES).map(|number| {
            let input = format!("{number:0LETTERS$}").into_bytes();
            let signature = sign(&input);
            (input, signature)
        });
        Self { key, signed: signed.collect() }
    }

    fn run(&self, threads: usize, count: usize) -> (u128, u64) {
        let work = || {
            for (input, signature) in self.signed.iter().cycle().take(count) {
                self.key.verify_sig(input, signature).expect("valid");
            }
        };
        let (start, had) = (Instant::now(), processor_time());
        if threads == 1 {
            work();
        } else {
            std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        }
        (start.elapsed().as_nanos(), processor_time() - had)
    }
}

/// Nanoseconds for which the first thread had a processor; 0 where the system does not say.
fn processor_time() -> u64 {
    // Whoever yields is accounted for; else that waits for the next tick.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn main() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let random = SystemRandom::new();
    let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref()).expect("parsed");
    let elliptic = Bench::new(key, |input| pair.sign(&random, input).expect("signed").as_ref().to_vec());
    let pair = Ed25519KeyPair::generate().expect("a key");
    let key = ParsedPublicKey::new(&ED25519, pair.public_key().as_ref()).expect("parsed");
    let edwards = Bench::new(key, |input| pair.sign(input).as_ref().to_vec());
    for line in stdin().lock().lines() {
        let line = line.expect("text");
        let words: Vec<&str> = line.split(' ').collect();
        let [algorithm, threads, count] = words[..] else { panic!("{line}") };
        let bench = if algorithm == "ES256" { &elliptic } else { &edwards };
        let (took, had) = bench.run(threads.parse().expect("a number"), count.parse().expect("a number"));
        println!("{took} {had}");
    }
}
