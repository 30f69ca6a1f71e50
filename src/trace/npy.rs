//! Loads as NumPy arrays of 2 or 3 dimensions and any integer or float type.

use std::io::{BufRead, BufReader};
use std::path::Path;

use npyz::{DType, NpyFile, Order, TypeChar, WriterBuilder};

use super::LoadHistory;
use super::files::MAX_FILE;
use super::history::{MAX_VALUES, check_shape};
use super::numbers::Numbers;
use crate::error::{Error, ParseError};

/// The most bytes a header may have: that of a plain array has some hundred, and the parser needs many times
/// as much memory.
const MAX_HEADER: usize = 1 << 10;

/// The numbers of an array, in the order of the file.
enum Values {
    Small(Vec<u32>),
    Counts(Vec<u64>),
    Signed(Vec<i64>),
    Floats(Vec<f64>),
}

/// An array, and whether its order is Fortran's.
struct Array {
    shape: Vec<usize>,
    fortran: bool,
    values: Values,
}

/// The loads of a file, value after value, without its bytes in memory; `None` where it must be read as a whole: it is
/// packed, or no plain file.
pub fn read_file(path: &Path) -> Option<Result<LoadHistory, ParseError>> {
    let file = std::fs::File::open(path).ok()?;
    let data = file.metadata().ok().filter(|data| data.is_file() && data.len() <= MAX_FILE)?;
    let mut file = BufReader::with_capacity(64 * MAX_HEADER, file);
    let is_plain = file.fill_buf().ok()?.starts_with(b"\x93NUMPY");
    is_plain.then(|| history(file, usize::try_from(data.len()).unwrap_or(usize::MAX)))
}

pub fn read(bytes: &[u8]) -> Result<LoadHistory, ParseError> {
    history(bytes, bytes.len())
}

/// The loads of a file of this many bytes.
fn history(file: impl BufRead, length: usize) -> Result<LoadHistory, ParseError> {
    let shaped = |shape: &[usize]| match *shape {
        [layers, experts] => Ok((1, layers, experts)),
        [windows, layers, experts] => Ok((windows, layers, experts)),
        _ => Err(ParseError::content(format!("shape {shape:?} does not have 2 or 3 dimensions"))),
    };
    // Before the values are put in order: an empty array may claim any number of layers.
    let check = |shape: &[usize], count: usize| {
        let (windows, layers, experts) = shaped(shape)?;
        Ok(check_shape(windows, layers, experts, count)?)
    };
    let Array { shape, fortran, values } = array(file, length, check)?;
    let (windows, layers, experts) = shaped(&shape)?;
    let numbers = match values {
        Values::Small(counts) => Numbers::Small(row_major(counts, windows, layers, experts, fortran)),
        Values::Counts(counts) => Numbers::of_counts(row_major(counts, windows, layers, experts, fortran)),
        Values::Signed(counts) => {
            Numbers::of_counts(row_major(positive(counts)?, windows, layers, experts, fortran))
        }
        Values::Floats(values) => Numbers::Values(row_major(values, windows, layers, experts, fortran)),
    };
    Ok(LoadHistory::new(windows, layers, experts, numbers)?)
}

/// The slots of a layer, and the rows of a map `[layers][slots]` of whole numbers.
pub(crate) fn rows(bytes: &[u8]) -> Result<(usize, Vec<i32>), ParseError> {
    let check = |shape: &[usize], _| match *shape {
        [layers, slots] if layers > 0 && slots > 0 => Ok(()),
        _ => Err(ParseError::content(format!("shape {shape:?} is not [layers][slots]"))),
    };
    let Array { shape, fortran, values } = array(bytes, bytes.len(), check)?;
    let (layers, slots) = (shape[0], shape[1]);
    let values: Vec<i64> = match values {
        Values::Signed(values) => values,
        Values::Small(values) => values.into_iter().map(Into::into).collect(),
        Values::Counts(values) => values.into_iter().map(|v| i64::try_from(v).unwrap_or(i64::MAX)).collect(),
        Values::Floats(_) => {
            return Err(ParseError::content("a map of floats: its entries are not whole numbers"));
        }
    };
    let values = row_major(values, 1, layers, slots, fortran);
    let entry = |(at, &value): (usize, &i64)| {
        let (layer, slot) = (at / slots, at % slots);
        let bad =
            |_| ParseError::content(format!("layer {layer}, slot {slot}: {value} is not an expert or -1"));
        i32::try_from(value).map_err(bad)
    };
    Ok((slots, values.iter().enumerate().map(entry).collect::<Result<_, _>>()?))
}

/// The file of such a map.
pub(crate) fn of_rows(slots: usize, rows: &[i32]) -> Result<Vec<u8>, Error> {
    let shape = [(rows.len() / slots.max(1)) as u64, slots as u64];
    write_array(&shape, rows).map_err(|error| Error::invalid("npy file", "", error.to_string()))
}

/// The array of a file. Its shape is checked, with the number of values, before memory is taken.
fn array(
    mut bytes: impl BufRead,
    length: usize,
    check: impl Fn(&[usize], usize) -> Result<(), ParseError>,
) -> Result<Array, ParseError> {
    screen(bytes.fill_buf().map_err(|error| ParseError::not("an npy file", error))?)?;
    let file = NpyFile::new(bytes).map_err(|error| ParseError::not("an npy file", error))?;
    let shape: Vec<usize> = file.shape().iter().map(|&n| usize::try_from(n).unwrap_or(usize::MAX)).collect();
    let count = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    let count = count.filter(|&n| n <= MAX_VALUES);
    let count = count.ok_or_else(|| ParseError::content(format!("shape {shape:?} is too large")))?;
    let DType::Plain(kind) = file.dtype() else {
        let reason = format!("type {} is not a number", file.dtype().descr());
        return Err(ParseError::content(reason));
    };
    let size = usize::try_from(kind.size_field()).unwrap_or(usize::MAX);
    check(&shape, count)?;
    let data = count.saturating_mul(size);
    if data > length {
        return Err(ParseError::damaged(format!(
            "truncated: shape {shape:?} needs {data} bytes of data, the file has {length}"
        )));
    }
    let fortran = file.order() == Order::Fortran;
    let truncated = |error: std::io::Error| ParseError::damaged_by("truncated or damaged", error);
    macro_rules! values {
        ($kind:ident, $type:ty) => {
            Values::$kind(file.into_vec::<$type>().map_err(truncated)?.into_iter().map(Into::into).collect())
        };
    }
    let values = match (kind.type_char(), size) {
        (TypeChar::Uint, 1) => values!(Small, u8),
        (TypeChar::Uint, 2) => values!(Small, u16),
        (TypeChar::Uint, 4) => Values::Small(file.into_vec().map_err(truncated)?),
        (TypeChar::Uint, 8) => Values::Counts(file.into_vec().map_err(truncated)?),
        (TypeChar::Int, 1) => values!(Signed, i8),
        (TypeChar::Int, 2) => values!(Signed, i16),
        (TypeChar::Int, 4) => values!(Signed, i32),
        (TypeChar::Int, 8) => Values::Signed(file.into_vec().map_err(truncated)?),
        (TypeChar::Float, 2) => values!(Floats, half::f16),
        (TypeChar::Float, 4) => values!(Floats, f32),
        (TypeChar::Float, 8) => Values::Floats(file.into_vec().map_err(truncated)?),
        _ => {
            let reason = format!("type {kind} is not an integer or float of a known size");
            return Err(ParseError::content(reason));
        }
    };
    Ok(Array { shape, fortran, values })
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

fn positive(values: Vec<i64>) -> Result<Vec<u64>, ParseError> {
    let negative = |v: i64| ParseError::content(format!("load {v} is negative"));
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
    match history.numbers.counts(0..history.numbers.len()) {
        Some(counts) => write_array(shape, &counts),
        None => write_array(shape, &history.values()),
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
