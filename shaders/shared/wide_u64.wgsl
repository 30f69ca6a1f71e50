// 64-bit products in two words, from 16-bit ones: SHADER_INT64 is not everywhere.

struct Wide {
    low: u32,
    high: u32,
}

fn mul_high(a: u32, b: u32) -> u32 {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let middle = a1 * b0 + ((a0 * b0) >> 16u);
    let middle_low = (middle & 0xffffu) + a0 * b1;
    return a1 * b1 + (middle >> 16u) + (middle_low >> 16u);
}

fn mul_wide(a: u32, b: u32) -> Wide {
    return Wide(a * b, mul_high(a, b));
}

fn wide_greater(a: Wide, b: Wide) -> bool {
    return a.high > b.high || (a.high == b.high && a.low > b.low);
}
