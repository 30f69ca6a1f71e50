//! Arrays cross as bytes in native order: numpy makes and reads them without a copy of its own, and no version of
//! numpy's C interface is built in.

use pyo3::prelude::*;
use pyo3::types::PyByteArray;

/// The words of `bytes`, without a last one that is not whole.
pub fn words<const N: usize, T>(bytes: &[u8], read: fn([u8; N]) -> T) -> Vec<T> {
    let (words, _) = bytes.as_chunks::<N>();
    words.iter().map(|&word| read(word)).collect()
}

/// An array of i64, to be written to by its owner.
pub fn i64s(py: Python<'_>, values: impl ExactSizeIterator<Item = i64>) -> PyResult<Bound<'_, PyByteArray>> {
    array(py, values.map(i64::to_ne_bytes))
}

/// An array of f64.
pub fn f64s(py: Python<'_>, values: impl ExactSizeIterator<Item = f64>) -> PyResult<Bound<'_, PyByteArray>> {
    array(py, values.map(f64::to_ne_bytes))
}

/// Words as bytes, written where Python has them.
fn array(py: Python<'_>, words: impl ExactSizeIterator<Item = [u8; 8]>) -> PyResult<Bound<'_, PyByteArray>> {
    PyByteArray::new_with(py, words.len() * 8, |bytes| {
        for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word;
        }
        Ok(())
    })
}
