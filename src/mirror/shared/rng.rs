//! The mirror of `shaders/shared/rng.wgsl`: a counter-based hash, so that a draw depends on what it is for
//! and never on when it is made.

use crate::params::{COUNT_NOISE, PACKING_NOISE_SHIFT, Params, mul_high};

/// The first counter of each use; uses of one key never meet.
pub const COUNTS: u32 = 0x1000_0000;
/// See [`COUNTS`].
pub const PACKING: u32 = 0x2000_0000;
/// See [`COUNTS`].
pub const TENURE: u32 = 0x3000_0000;
/// See [`COUNTS`].
pub const OFFERS: u32 = 0x5000_0000;
/// See [`COUNTS`].
pub const LOSERS: u32 = 0x6000_0000;
/// See [`COUNTS`].
pub const LINKS: u32 = 0x8000_0000;
/// See [`COUNTS`].
pub const COUNT_MOVES: u32 = 0x7000_0000;
/// See [`COUNTS`].
pub const GROUPS: u32 = 0x4000_0000;

/// Standard normal quantiles at `(i + 1/2) / 64`, in 1/256.
pub const NORMAL: [i32; 64] = [
    -619, -509, -451, -410, -377, -350, -326, -304, -285, -267, -250, -235, -220, -206, -192, -179, -166,
    -154, -142, -131, -120, -108, -98, -87, -76, -66, -56, -45, -35, -25, -15, -5, 5, 15, 25, 35, 45, 56, 66,
    76, 87, 98, 108, 120, 131, 142, 154, 166, 179, 192, 206, 220, 235, 250, 267, 285, 304, 326, 350, 377,
    410, 451, 509, 619,
];

/// A random word for `counter` under `key`: a Weyl step and two multiply-xorshift rounds
/// (constants from the search in github.com/skeeto/hash-prospector).
pub fn draw(key: u32, counter: u32) -> u32 {
    let mut x = key ^ counter.wrapping_mul(0x9e37_79b9);
    x ^= x >> 16;
    x = x.wrapping_mul(0x21f0_aaad);
    x ^= x >> 15;
    x = x.wrapping_mul(0x735a_2d97);
    x ^ (x >> 15)
}

/// The key of a start of a node, by the first of its groups: the same in whichever assignment the node is. The layer
/// is left out, so that a layer's plan does not depend on which other layers are in the call.
pub fn key(params: &Params, group: u32, start: u32) -> u32 {
    draw(draw(draw(params.seed[0], params.seed[1]), group), start)
}

/// A number in `0..n`.
pub fn below(word: u32, n: u32) -> u32 {
    mul_high(word, n)
}

/// Strength of the noise on the counts of a start, in 1/256.
pub fn count_noise(params: &Params, start: u32) -> i32 {
    if params.count_noise { COUNT_NOISE[(start % 8) as usize] } else { 0 }
}

/// A quarter of `load`, times `1 + strength * z` with `z` about standard normal: the scale does not matter to
/// replication, and a quarter leaves room.
pub fn perturbed(load: u32, strength: i32, word: u32) -> u32 {
    let factor = 65_536 + NORMAL[(word >> 26) as usize] * strength;
    mul_high(load, (factor as u32) << 14)
}

/// Noise for the choice of a place for something that carries `load`: it is added to the load of a place before the least
/// is taken. It is `word`, a draw, plus a step for each place, cut to less than the largest power of two in an eighth of
/// `load`.
pub fn place_noise(word: u32, place: u32, load: u32) -> u32 {
    word.wrapping_add(place.wrapping_mul(PLACE_STEP)) >> noise_shift(load)
}

/// The step of [`place_noise`] from place to place: odd, and three quarters of 2^32, so that neighbours are far apart.
pub const PLACE_STEP: u32 = 0xc10e_da53;

/// The bits that [`place_noise`] drops; one is left.
pub fn noise_shift(load: u32) -> u32 {
    (((load >> PACKING_NOISE_SHIFT) | 1).leading_zeros() + 1).min(31)
}

#[cfg(test)]
mod tests {
    use approx::assert_abs_diff_eq;

    use super::*;

    #[test]
    fn noise_of_places_is_a_share_of_the_load_and_spread() {
        for load in [0, 7, 8, 16, 1000, 12_345_678, 1 << 30] {
            let share = load >> PACKING_NOISE_SHIFT;
            let noise: Vec<u32> = (0..64).map(|place| place_noise(0x1234_5678, place, load)).collect();
            assert!(noise.iter().all(|&n| n <= share.max(1)), "{load}: {noise:?}");
            // Half of the share at least, of which each quarter has some of the places.
            let quarter = share / 8;
            for part in 0..if quarter > 0 { 4 } else { 0 } {
                assert!(noise.iter().any(|n| n / quarter == part), "{load}: none in quarter {part}");
            }
        }
    }

    #[test]
    fn noise_keeps_loads_positive_and_in_range() {
        for strength in COUNT_NOISE {
            for word in (0..64).map(|i| i << 26) {
                let load = perturbed(1 << 30, strength, word);
                assert!(load > 0 && load <= 1 << 29, "{strength} {word:#x}: {load}");
            }
        }
    }

    #[test]
    fn the_table_holds_normal_quantiles() {
        // The logistic approximation of the normal distribution (Bowling et al. 2009) is within 2e-4.
        for (i, z) in NORMAL.into_iter().enumerate() {
            let z = f64::from(z) / 256.0;
            let p = 1.0 / (1.0 + (-(0.07056 * z.powi(3) + 1.5976 * z)).exp());
            assert_abs_diff_eq!(p, (i as f64 + 0.5) / 64.0, epsilon = 1.5e-3);
        }
    }
}
