// A counter-based hash: a draw depends on what it is for and never on when it is made.

// The first counter of each use; uses of one key never meet.
const DRAW_COUNTS: u32 = 0x10000000u;
const DRAW_PACKING: u32 = 0x20000000u;
const DRAW_TENURE: u32 = 0x30000000u;
const DRAW_GROUPS: u32 = 0x40000000u;
const DRAW_OFFERS: u32 = 0x50000000u;
const DRAW_LOSERS: u32 = 0x60000000u;
const DRAW_COUNT_MOVES: u32 = 0x70000000u;

fn draw(key: u32, counter: u32) -> u32 {
    var x = key ^ (counter * 0x9e3779b9u);
    x ^= x >> 16u;
    x *= 0x21f0aaadu;
    x ^= x >> 15u;
    x *= 0x735a2d97u;
    return x ^ (x >> 15u);
}

// The key of a start of the node whose first group is `group`.
fn start_key(group: u32, start: u32) -> u32 {
    return draw(draw(draw(params.seed_low, params.seed_high), group), start);
}

// A number in 0..n.
fn below(word: u32, n: u32) -> u32 {
    return mul_high(word, n);
}

// Noise for the choice of a place for something that carries `load`: it is added to the load of a place before the least is
// taken. It is `word`, a draw, plus a step for each place, cut to less than the largest power of two in an eighth of `load`.
fn place_noise(word: u32, place: u32, load: u32) -> u32 {
    return (word + place * PLACE_STEP) >> noise_shift(load);
}

const PLACE_STEP: u32 = 0xc10eda53u;

fn noise_shift(load: u32) -> u32 {
    return min(countLeadingZeros((load >> PACKING_NOISE_SHIFT) | 1u) + 1u, 31u);
}

// Strength of the noise on the counts of a start, in 1/256.
fn count_noise(start: u32) -> i32 {
    if params.count_noise == 0u {
        return 0;
    }
    return bitcast<i32>(problem[params.at_tables + 64u + start % 8u]);
}

// A quarter of `load`, times `1 + strength * z` with `z` about standard normal, from a table of quantiles.
fn perturbed(load: u32, strength: i32, word: u32) -> u32 {
    let z = bitcast<i32>(problem[params.at_tables + (word >> 26u)]);
    return mul_high(load, u32(65536 + z * strength) << 14u);
}
