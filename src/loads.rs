//! How many tokens each expert of each layer received, and the fixed-point form the planner works on.

mod fixed;
mod layer_ids;
mod windows;

use std::sync::Arc;

use fixed::{fixed_from_counts, fixed_from_floats};
use layer_ids::numbered;
use windows::Windows;

use crate::error::Error;

pub(crate) use fixed::FIXED_TOTAL;
#[cfg(feature = "files")]
pub(crate) use layer_ids::places;
pub(crate) use layer_ids::{check_layer_ids, check_same_layers};

/// The most experts a layer may have.
pub const MAX_EXPERTS: usize = 1 << 12;

/// The most layers in one call.
pub const MAX_LAYERS: usize = 1 << 16;

/// A float load may be at most 2^64, the range of a `u64` count.
const MAX_FLOAT_LOAD: f64 = 18_446_744_073_709_551_616.0;

/// The most windows of one [`Loads`].
pub const MAX_WINDOWS: usize = 16;

/// Below this, every whole `f64` is exact, so whole-number floats are taken as counts.
const EXACT_F64: f64 = 9_007_199_254_740_992.0;

/// Loads of a model: `[layers][experts]`, row-major. Cheap to clone.
///
/// The values are converted once to `u32` fixed point, each layer scaled by itself to a total of at most 2^28; from
/// there on the planner computes in integers only. A layer whose counts sum to at most 2^28 is scaled by a whole number, so ratios (and therefore ties) between its loads are exact.
///
/// ```
/// let loads = eplb_wgpu::Loads::from_counts(2, 3, &[10, 20, 30, 0, 0, 0])?;
/// assert_eq!((loads.layers(), loads.experts()), (2, 3));
/// assert_eq!(loads.layers_without_load(), 1);
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Loads {
    layers: usize,
    experts: usize,
    values: Arc<[f64]>,
    fixed: Arc<[u32]>,
    windows: Option<Arc<Windows>>,
    /// `[layers]`
    layer_ids: Arc<[u32]>,
}

impl Loads {
    /// Loads from counts, `layers x experts` of them, row by row.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a dimension is 0 or too large, or the number of counts is not their product.
    pub fn from_counts(layers: usize, experts: usize, counts: &[u64]) -> Result<Self, Error> {
        check_shape(layers, experts, counts.len())?;
        let fixed = counts.chunks_exact(experts).flat_map(fixed_from_counts).collect();
        let values = counts.iter().map(|&c| c as f64).collect();
        Ok(Self { layers, experts, values, fixed, windows: None, layer_ids: numbered(layers) })
    }

    /// Loads from `f64` values: finite, at least 0, at most 2^64. Whole numbers give exactly the plan that
    /// [`Loads::from_counts`] gives for the same counts.
    ///
    /// # Errors
    /// [`Error::Invalid`] as for counts, and for a value that is negative, not finite or out of range.
    pub fn from_f64(layers: usize, experts: usize, values: &[f64]) -> Result<Self, Error> {
        check_shape(layers, experts, values.len())?;
        if let Some(at) = values.iter().position(|v| !(*v >= 0.0 && *v <= MAX_FLOAT_LOAD)) {
            let (layer, expert, value) = (at / experts, at % experts, values[at]);
            let rule = match value {
                v if v.is_nan() || v.is_infinite() => "is not a finite number".to_string(),
                v if v < 0.0 => "is negative".to_string(),
                _ => "is larger than 2^64".to_string(),
            };
            return Err(Error::invalid(
                format!("load of layer {layer}, expert {expert}:"),
                brief(value),
                rule,
            ));
        }
        let whole = values.iter().all(|v| v.fract() == 0.0 && *v < EXACT_F64);
        if whole {
            let counts: Vec<u64> = values.iter().map(|&v| v as u64).collect();
            return Self::from_counts(layers, experts, &counts);
        }
        let fixed = values.chunks_exact(experts).flat_map(fixed_from_floats).collect();
        let layer_ids = numbered(layers);
        Ok(Self { layers, experts, values: values.into(), fixed, windows: None, layer_ids })
    }

    /// Loads from `f32` values; see [`Loads::from_f64`].
    ///
    /// # Errors
    /// As for [`Loads::from_f64`].
    pub fn from_f32(layers: usize, experts: usize, values: &[f32]) -> Result<Self, Error> {
        let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        Self::from_f64(layers, experts, &wide)
    }

    /// The same loads, of the model's layers with these numbers. A plan keeps them, and plan files too, so that a plan
    /// of some layers is not taken for one of others. Without this call the layers are numbered from 0.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is not one number a layer, or two are equal.
    ///
    /// ```
    /// use eplb_wgpu::Loads;
    /// let loads = Loads::from_counts(2, 2, &[3, 1, 2, 2])?;
    /// assert_eq!(loads.layer_ids(), [0, 1]);
    /// assert_eq!(loads.with_layer_ids(&[3, 4])?.layer_ids(), [3, 4]);
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    pub fn with_layer_ids(&self, ids: &[u32]) -> Result<Self, Error> {
        check_layer_ids(self.layers, ids)?;
        let layer_ids: Arc<[u32]> = ids.into();
        let mut loads = self.clone();
        if let Some(windows) = &mut loads.windows {
            for window in &mut Arc::make_mut(windows).loads {
                window.layer_ids = layer_ids.clone();
            }
        }
        loads.layer_ids = layer_ids;
        Ok(loads)
    }

    /// The numbers that the layers have in the model, `[layers]`.
    #[must_use]
    pub fn layer_ids(&self) -> &[u32] {
        &self.layer_ids
    }

    /// Number of layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Number of logical experts in a layer.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// The loads of one layer as given, `[experts]`.
    ///
    /// # Panics
    /// Where `layer` is not below [`Loads::layers`].
    #[must_use]
    pub fn layer(&self, layer: usize) -> &[f64] {
        &self.values[layer * self.experts..(layer + 1) * self.experts]
    }

    /// All loads as given, `[layers][experts]`.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// All loads in fixed point, `[layers][experts]`; each layer sums to at most [`FIXED_TOTAL`].
    pub(crate) fn fixed(&self) -> &[u32] {
        &self.fixed
    }

    /// Some of the layers, which are there, in this order; each with the fixed-point loads that it has among the others.
    pub(crate) fn select_layers(&self, layers: &[usize]) -> Self {
        fn cut<T: Copy>(all: &[T], experts: usize, layers: &[usize]) -> Vec<T> {
            layers.iter().flat_map(|layer| &all[layer * experts..(layer + 1) * experts]).copied().collect()
        }
        let windows = self.windows.as_ref().map(|windows| {
            let per_window = windows.fixed.chunks_exact(self.layers * self.experts);
            Arc::new(Windows {
                loads: windows.loads.iter().map(|window| window.select_layers(layers)).collect(),
                weights: windows.weights.clone(),
                fixed: per_window.flat_map(|window| cut(window, self.experts, layers)).collect(),
            })
        });
        Self {
            layers: layers.len(),
            experts: self.experts,
            values: cut(&self.values, self.experts, layers).into(),
            fixed: cut(&self.fixed, self.experts, layers).into(),
            windows,
            layer_ids: layers.iter().map(|&layer| self.layer_ids[layer]).collect(),
        }
    }

    /// Layers whose loads are all zero, as a model's dense layers are recorded.
    #[must_use]
    pub fn layers_without_load(&self) -> usize {
        (0..self.layers).filter(|&layer| !self.has_load(layer)).count()
    }

    pub(crate) fn has_load(&self, layer: usize) -> bool {
        self.layer(layer).iter().any(|&v| v > 0.0)
    }
}

/// A number as it is read: 1e300 has 301 digits without an exponent.
pub(crate) fn brief(value: f64) -> String {
    if value.abs() < 1e16 { value.to_string() } else { format!("{value:?}") }
}

fn check_shape(layers: usize, experts: usize, len: usize) -> Result<(), Error> {
    for (field, value, most) in [("layers", layers, MAX_LAYERS), ("experts", experts, MAX_EXPERTS)] {
        if value == 0 || value > most {
            return Err(Error::invalid(field, value, format!("is not between 1 and {most}")));
        }
    }
    if layers * experts != len {
        let rule = format!("is not layers {layers} x experts {experts} = {}", layers * experts);
        return Err(Error::invalid("number of loads", len, rule));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_floats_are_counts() {
        let counts = Loads::from_counts(1, 3, &[5, 7, 11]).unwrap();
        assert_eq!(counts, Loads::from_f64(1, 3, &[5.0, 7.0, 11.0]).unwrap());
        assert_eq!(counts, Loads::from_f32(1, 3, &[5.0, 7.0, 11.0]).unwrap());
    }

    #[test]
    fn layers_keep_their_numbers() {
        let loads = |ids: &[u32]| {
            let counts = vec![1; ids.len()];
            Loads::from_counts(ids.len(), 1, &counts).unwrap().with_layer_ids(ids)
        };
        let windows = [loads(&[3, 4, 5]).unwrap(), loads(&[3, 4, 5]).unwrap()];
        let both = Loads::from_windows(&windows, &[1.0, 2.0]).unwrap();
        assert_eq!(both.layer_ids(), [3, 4, 5]);
        let moved = both.with_layer_ids(&[9, 2, 5]).unwrap();
        assert!(moved.windows().all(|window| window.layer_ids() == [9, 2, 5]));
        assert_eq!(
            both.windows().next().unwrap().layer_ids(),
            [3, 4, 5],
            "clones share nothing that changes"
        );
        let said = |error: Error| error.to_string();
        let other = [loads(&[3, 4, 5]).unwrap(), loads(&[4, 5, 6]).unwrap()];
        assert_eq!(
            Loads::from_windows(&other, &[1.0, 1.0]).map_err(said),
            Err("layers of window 1 4..=6 are not those of the loads, 3..=5".into())
        );
        assert_eq!(loads(&[1, 2, 1]).map_err(said), Err("layer id 1 is there twice".into()));
    }

    #[test]
    fn bad_values_name_their_place() {
        let error = Loads::from_f64(2, 2, &[1.0, 2.0, -3.5, 0.0]).unwrap_err().to_string();
        assert_eq!(error, "load of layer 1, expert 0: -3.5 is negative");
        for bad in [f64::NAN, f64::INFINITY, 1e30] {
            assert!(Loads::from_f64(1, 2, &[0.5, bad]).is_err(), "{bad}");
        }
        assert!(Loads::from_counts(0, 2, &[]).is_err());
        assert!(Loads::from_counts(2, 2, &[1, 2, 3]).is_err());
    }
}
