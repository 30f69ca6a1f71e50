//! Loads as NumPy arrays of 2 or 3 dimensions and any integer or float type.

use std::io::{BufRead, BufReader};
use std::path::Path;

use npyz::{DType, NpyFile, Order, TypeChar, TypeStr, WriterBuilder};

use super::LoadHistory;
use super::files::MAX_FILE;
use super::history::check_shape;
use super::numbers::{MAX_VALUES, Numbers};
use crate::error::{Error, ParseError};

/// The most bytes a header may have: that of a plain array has some hundred, and the parser needs many times
/// as much memory.
const MAX_HEADER: usize = 1 << 10;

/// A number of an array.
enum Value {
    Count(u64),
    Negative(i64),
    Float(f64),
}

/// An array whose shape is checked, and whose numbers are not yet read.
struct Array<R: BufRead> {
    file: NpyFile<R>,
    kind: TypeStr,
    shape: Vec<usize>,
    /// The number of its numbers.
    count: usize,
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
    let array = Array::open(file, length, check)?;
    let (windows, layers, experts) = shaped(&array.shape)?;
    let is_fortran = array.is_fortran();
    let mut numbers = array.numbers();
    array.read(|value| {
        match value {
            Value::Count(count) => numbers.push_count(count),
            Value::Float(value) => numbers.push_value(value),
            Value::Negative(value) => {
                return Err(ParseError::content(format!("load {value} is negative")));
            }
        }
        Ok(())
    })?;
    if is_fortran {
        numbers = numbers.in_order(row_major(windows, layers, experts));
    }
    Ok(LoadHistory::new(windows, layers, experts, numbers)?)
}

/// The slots of a layer, and the rows of a map `[layers][slots]` of whole numbers.
pub(crate) fn rows(bytes: &[u8]) -> Result<(usize, Vec<i32>), ParseError> {
    let check = |shape: &[usize], _| match *shape {
        [layers, slots] if layers > 0 && slots > 0 => Ok(()),
        _ => Err(ParseError::content(format!("shape {shape:?} is not [layers][slots]"))),
    };
    let array = Array::open(bytes, bytes.len(), check)?;
    let (layers, slots, is_fortran) = (array.shape[0], array.shape[1], array.is_fortran());
    let mut values = Vec::with_capacity(array.count);
    array.read(|value| {
        values.push(match value {
            Value::Negative(value) => value,
            Value::Count(count) => i64::try_from(count).unwrap_or(i64::MAX),
            Value::Float(_) => {
                return Err(ParseError::content("a map of floats: its entries are not whole numbers"));
            }
        });
        Ok(())
    })?;
    if is_fortran {
        values = row_major(1, layers, slots).map(|at| values[at]).collect();
    }
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

impl<R: BufRead> Array<R> {
    /// The array of a file of this many bytes. Its shape is checked, with the number of values, before memory is taken.
    fn open(
        mut bytes: R,
        length: usize,
        check: impl Fn(&[usize], usize) -> Result<(), ParseError>,
    ) -> Result<Self, ParseError> {
        screen(bytes.fill_buf().map_err(|error| ParseError::not("an npy file", error))?)?;
        let file = NpyFile::new(bytes).map_err(|error| ParseError::not("an npy file", error))?;
        let size = |&n: &u64| usize::try_from(n).unwrap_or(usize::MAX);
        let shape: Vec<usize> = file.shape().iter().map(size).collect();
        let count = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        let count = count.filter(|&n| n <= MAX_VALUES);
        let count = count.ok_or_else(|| ParseError::content(format!("shape {shape:?} is too large")))?;
        let DType::Plain(kind) = file.dtype() else {
            let reason = format!("type {} is not a number", file.dtype().descr());
            return Err(ParseError::content(reason));
        };
        check(&shape, count)?;
        let data = count.saturating_mul(size(&kind.size_field()));
        if data > length {
            return Err(ParseError::damaged(format!(
                "truncated: shape {shape:?} needs {data} bytes of data, the file has {length}"
            )));
        }
        Ok(Self { file, kind, shape, count })
    }

    /// Whether the order of its numbers is Fortran's.
    fn is_fortran(&self) -> bool {
        self.file.order() == Order::Fortran
    }

    /// Room for its numbers.
    fn numbers(&self) -> Numbers {
        match self.kind.type_char() {
            TypeChar::Float => Numbers::Values(Vec::with_capacity(self.count)),
            _ => Numbers::Small(Vec::with_capacity(self.count)),
        }
    }

    /// Hands over its numbers one by one, in the order of the file.
    fn read(self, mut take: impl FnMut(Value) -> Result<(), ParseError>) -> Result<(), ParseError> {
        let Self { file, kind, .. } = self;
        let not = |error| ParseError::not("an npy file", error);
        let truncated = |error: std::io::Error| ParseError::damaged_by("truncated or damaged", error);
        let signed = |value: i64| u64::try_from(value).map_or(Value::Negative(value), Value::Count);
        macro_rules! each {
            ($type:ty, $value:expr) => {
                file.data::<$type>()
                    .map_err(not)?
                    .try_for_each(|value| take($value(value.map_err(truncated)?.into())))
            };
        }
        match (kind.type_char(), kind.size_field()) {
            (TypeChar::Uint, 1) => each!(u8, Value::Count),
            (TypeChar::Uint, 2) => each!(u16, Value::Count),
            (TypeChar::Uint, 4) => each!(u32, Value::Count),
            (TypeChar::Uint, 8) => each!(u64, Value::Count),
            (TypeChar::Int, 1) => each!(i8, signed),
            (TypeChar::Int, 2) => each!(i16, signed),
            (TypeChar::Int, 4) => each!(i32, signed),
            (TypeChar::Int, 8) => each!(i64, signed),
            (TypeChar::Float, 2) => each!(half::f16, Value::Float),
            (TypeChar::Float, 4) => each!(f32, Value::Float),
            (TypeChar::Float, 8) => each!(f64, Value::Float),
            _ => {
                let reason = format!("type {kind} is not an integer or float of a known size");
                Err(ParseError::content(reason))
            }
        }
    }
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

/// Where an array in Fortran's order has the numbers of the order of rows.
fn row_major(windows: usize, layers: usize, experts: usize) -> impl Iterator<Item = usize> {
    let of_layer = move |w, l| (0..experts).map(move |e| (e * layers + l) * windows + w);
    (0..windows).flat_map(move |w| (0..layers).flat_map(move |l| of_layer(w, l)))
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
