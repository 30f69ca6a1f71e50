//! Loads as NumPy arrays of 2 or 3 dimensions and any integer or float type.

use npyz::{DType, NpyFile, Order, TypeChar, WriterBuilder};

use super::{LoadHistory, MAX_VALUES, check_shape};
use crate::error::ParseError;

/// The most bytes a header may have: that of a plain array has some hundred, and the parser needs many times
/// as much memory.
const MAX_HEADER: usize = 1 << 10;

pub fn read(bytes: &[u8]) -> Result<LoadHistory, ParseError> {
    screen(bytes)?;
    let file = NpyFile::new(bytes).map_err(|error| ParseError::not("an npy file", error))?;
    let shape: Vec<usize> = file.shape().iter().map(|&n| usize::try_from(n).unwrap_or(usize::MAX)).collect();
    let (windows, layers, experts) = match shape[..] {
        [layers, experts] => (1, layers, experts),
        [windows, layers, experts] => (windows, layers, experts),
        _ => return Err(ParseError::content(format!("shape {shape:?} does not have 2 or 3 dimensions"))),
    };
    // Sizes are checked against the file before memory is taken.
    let count = windows.checked_mul(layers).and_then(|n| n.checked_mul(experts));
    let count = count.filter(|&n| n <= MAX_VALUES);
    let count = count.ok_or_else(|| ParseError::content(format!("shape {shape:?} is too large")))?;
    let DType::Plain(kind) = file.dtype() else {
        let reason = format!("type {} is not a number", file.dtype().descr());
        return Err(ParseError::content(reason));
    };
    let size = usize::try_from(kind.size_field()).unwrap_or(usize::MAX);
    // Before the values are put in order: an empty array may claim any number of layers.
    check_shape(windows, layers, experts, count)?;
    let data = count.saturating_mul(size);
    if data > bytes.len() {
        return Err(ParseError::damaged(format!(
            "truncated: shape {shape:?} needs {data} bytes of data, the file has {}",
            bytes.len()
        )));
    }
    let fortran = file.order() == Order::Fortran;
    let truncated = |error: std::io::Error| ParseError::damaged_by("truncated or damaged", error);
    macro_rules! values {
        ($type:ty) => {
            file.into_vec::<$type>().map_err(truncated)?
        };
    }
    let (mut counts, mut values) = (None, Vec::new());
    match (kind.type_char(), size) {
        (TypeChar::Uint, 1) => counts = Some(widen(values!(u8))),
        (TypeChar::Uint, 2) => counts = Some(widen(values!(u16))),
        (TypeChar::Uint, 4) => counts = Some(widen(values!(u32))),
        (TypeChar::Uint, 8) => counts = Some(values!(u64)),
        (TypeChar::Int, 1) => counts = Some(positive(values!(i8))?),
        (TypeChar::Int, 2) => counts = Some(positive(values!(i16))?),
        (TypeChar::Int, 4) => counts = Some(positive(values!(i32))?),
        (TypeChar::Int, 8) => counts = Some(positive(values!(i64))?),
        (TypeChar::Float, 4) => values = values!(f32).into_iter().map(f64::from).collect(),
        (TypeChar::Float, 8) => values = values!(f64),
        _ => {
            let reason = format!("type {kind} is not an integer or float of a known size");
            return Err(ParseError::content(reason));
        }
    }
    Ok(match counts {
        Some(counts) => {
            let counts = row_major(counts, windows, layers, experts, fortran);
            LoadHistory::from_counts(windows, layers, experts, counts)?
        }
        None => {
            let values = row_major(values, windows, layers, experts, fortran);
            LoadHistory::from_values(windows, layers, experts, values)?
        }
    })
}

/// Refuses headers the parser must not see: it takes time exponential in the depth of nesting, and multiplies
/// dimensions unchecked. An array of plain numbers has one dict, one shape and no list; numbers of at most 19
/// digits together have a product below 2^64.
fn screen(bytes: &[u8]) -> Result<(), ParseError> {
    let byte = |at: usize| bytes.get(at).copied().map(usize::from);
    let word = |at| Some(byte(at)? | byte(at + 1)? << 8);
    let (begin, length) = match byte(6) {
        Some(1) => (10, word(8)),
        _ => (12, word(8).zip(word(10)).map(|(low, high)| low | high << 16)),
    };
    let header = length.and_then(|length| bytes.get(begin..)?.get(..length));
    let header = header.ok_or_else(|| ParseError::syntax("not an npy file: the header is cut off"))?;
    if header.len() > MAX_HEADER {
        let reason = format!("the header has {} bytes, more than {MAX_HEADER}", header.len());
        return Err(ParseError::syntax(reason));
    }
    let count = |test: &dyn Fn(u8) -> bool| header.iter().filter(|&&b| test(b)).count();
    let plain = count(&|b| b == b'{') <= 1 && count(&|b| b == b'(') <= 1 && count(&|b| b == b'[') == 0;
    if !plain {
        return Err(ParseError::content("the type is not a plain number, or the header is damaged"));
    }
    let hexadecimal = header.windows(2).any(|pair| matches!(pair, [b'0', b'x' | b'X']));
    if hexadecimal || count(&|b| b.is_ascii_digit()) > 19 {
        return Err(ParseError::content("the shape is too large"));
    }
    Ok(())
}

fn widen<T: Into<u64>>(values: Vec<T>) -> Vec<u64> {
    values.into_iter().map(Into::into).collect()
}

fn positive<T: Copy + TryInto<u64> + std::fmt::Display>(values: Vec<T>) -> Result<Vec<u64>, ParseError> {
    let negative = |v: T| ParseError::content(format!("load {v} is negative"));
    values.into_iter().map(|v| v.try_into().map_err(|_| negative(v))).collect()
}

fn row_major<T: Copy>(
    values: Vec<T>,
    windows: usize,
    layers: usize,
    experts: usize,
    fortran: bool,
) -> Vec<T> {
    if !fortran || values.len() != windows * layers * experts {
        return values;
    }
    let at = |w: usize, l: usize, e: usize| values[(e * layers + l) * windows + w];
    (0..windows)
        .flat_map(|w| (0..layers).flat_map(move |l| (0..experts).map(move |e| (w, l, e))))
        .map(|(w, l, e)| at(w, l, e))
        .collect()
}

pub fn write(history: &LoadHistory) -> std::io::Result<Vec<u8>> {
    let full = [history.windows as u64, history.layers as u64, history.experts as u64];
    let shape = if history.windows == 1 { &full[1..] } else { &full[..] };
    match &history.counts {
        Some(counts) => write_array(shape, counts),
        None => write_array(shape, &history.values),
    }
}

fn write_array<T: npyz::AutoSerialize + Copy>(shape: &[u64], values: &[T]) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer =
        npyz::WriteOptions::<T>::new().default_dtype().shape(shape).writer(&mut bytes).begin_nd()?;
    writer.extend(values.iter().copied())?;
    writer.finish()?;
    Ok(bytes)
}
