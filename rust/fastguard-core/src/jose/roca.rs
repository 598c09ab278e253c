//! RSA keys made by a faulty library (CVE-2017-15361, "The Return of Coppersmith's Attack", Nemec et al. 2017, section 4).
//!
//! Its primes are powers of 65537 modulo a product of small primes, and so are the moduli. A modulus that is such a power modulo
//! each of the first 39 odd primes is one of them; for another the chance is below 2^-27.

/// The odd primes to 167.
const PRIMES: [u64; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Whether a modulus, most significant byte first, bears the fingerprint.
pub(super) fn is_weak(modulus: &[u8]) -> bool {
    PRIMES.iter().all(|prime| is_power_of_generator(remainder(modulus, *prime), *prime))
}

fn remainder(number: &[u8], prime: u64) -> u64 {
    number.iter().fold(0, |remainder, byte| (remainder * 256 + u64::from(*byte)) % prime)
}

fn is_power_of_generator(value: u64, prime: u64) -> bool {
    let mut power = 1;
    for _ in 0..prime {
        if power == value {
            return true;
        }
        power = power * 65_537 % prime;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_of_the_generator_is_weak_and_its_neighbour_is_not() {
        // 65537^2 = 4295098369
        assert!(is_weak(&4_295_098_369_u64.to_be_bytes()));
        assert!(!is_weak(&4_295_098_371_u64.to_be_bytes()));
    }
}
