//! How many tokens each expert of each layer received, and the fixed-point form the planner works on.

use std::sync::Arc;

use crate::error::Error;

/// Each layer's loads are scaled so that they sum to at most this.
///
/// One scale for all stages. At 2^28 the loads of blocked moves, five of which may add up, still fit `i32`. Scaling and
/// `floor(load / replicas)` round each replica by less than 2, so a GPU's load is off by less than 2 x slots of the layer
/// / 2^28 of the mean: 2.2e-6 with 288 slots, and 1.3e-4 at the limit of 16,384 slots, on 16,384 GPUs as on 64.
pub(crate) const FIXED_TOTAL: u32 = 1 << 28;

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

/// What loads of more than one window are made of.
#[derive(Clone, Debug, PartialEq)]
struct Windows {
    loads: Vec<Loads>,
    /// Shares of the objective, summing to at most [`FIXED_TOTAL`].
    weights: Vec<u32>,
    /// `[windows][layers][experts]`, each layer of a window summing to at most its weight.
    fixed: Vec<u32>,
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

    /// Loads of several windows or workloads, for one plan that suits them all: it minimises the weighted mean,
    /// over the windows, of the heaviest GPU's share of the window's load. Every window counts by its weight
    /// and not by its number of tokens. What these loads say as a whole ([`Loads::values`]) is the weighted
    /// mean of the windows, in tokens of the average window.
    ///
    /// One window gives exactly that window's loads.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is no window or more than [`MAX_WINDOWS`], where their shapes or the number
    /// of weights differ, where a window has windows itself, and for weights that are negative, not finite or
    /// all zero.
    ///
    /// ```
    /// use eplb_wgpu::Loads;
    /// let day = Loads::from_counts(1, 2, &[30, 10])?;
    /// let night = Loads::from_counts(1, 2, &[10, 30])?;
    /// let both = Loads::from_windows(&[day, night], &[1.0, 1.0])?;
    /// assert_eq!(both.windows().count(), 2);
    /// assert_eq!(both.layer(0), &[20.0, 20.0]);
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    pub fn from_windows(windows: &[Loads], weights: &[f64]) -> Result<Self, Error> {
        let Some(first) = windows.first().filter(|_| windows.len() <= MAX_WINDOWS) else {
            let rule = format!("is not between 1 and {MAX_WINDOWS}");
            return Err(Error::invalid("number of windows", windows.len(), rule));
        };
        if weights.len() != windows.len() {
            let rule = format!("is not the number of windows {}", windows.len());
            return Err(Error::invalid("number of weights", weights.len(), rule));
        }
        if let Some((i, w)) = weights.iter().enumerate().find(|(_, w)| !(w.is_finite() && **w >= 0.0)) {
            return Err(Error::invalid(
                format!("weight of window {i}:"),
                brief(*w),
                "is not a finite number, at least 0",
            ));
        }
        let total: f64 = weights.iter().sum();
        if !(total > 0.0 && total.is_finite()) {
            return Err(Error::invalid("sum of weights", brief(total), "is not a positive number"));
        }
        let (layers, experts) = (first.layers, first.experts);
        for (i, window) in windows.iter().enumerate() {
            if (window.layers, window.experts) != (layers, experts) {
                let shape = format!("{} layers x {} experts", window.layers, window.experts);
                let rule = format!("is not that of the first, {layers} layers x {experts} experts");
                return Err(Error::invalid(format!("shape of window {i}:"), shape, rule));
            }
            check_same_layers(&format!("layers of window {i}"), &window.layer_ids, &first.layer_ids)?;
            if window.windows.is_some() {
                return Err(Error::invalid(format!("window {i}"), "several windows", "is not one window"));
            }
        }
        if windows.len() == 1 {
            return Ok(first.clone());
        }
        let weights: Vec<u32> = weights.iter().map(|w| (w / total * f64::from(FIXED_TOTAL)) as u32).collect();
        let scale_layer = |(row, weight): (&[u32], u32)| -> Vec<u32> {
            let total: u64 = row.iter().map(|&load| u64::from(load)).sum();
            let scale = |&load: &u32| u64::from(load) * u64::from(weight) / total.max(1);
            row.iter().map(|load| scale(load) as u32).collect()
        };
        let fixed: Vec<u32> = windows
            .iter()
            .zip(&weights)
            .flat_map(|(window, &weight)| window.fixed.chunks_exact(experts).map(move |row| (row, weight)))
            .flat_map(scale_layer)
            .collect();
        let len = layers * experts;
        let mean = (0..len).map(|at| fixed.iter().skip(at).step_by(len).sum()).collect();
        let values = weighted_mean(windows, &weights);
        let loads = windows.to_vec();
        let windows = Some(Arc::new(Windows { loads, weights, fixed }));
        Ok(Self { layers, experts, values, fixed: mean, windows, layer_ids: first.layer_ids.clone() })
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

    /// The windows these loads are made of; the loads themselves where there is one.
    pub fn windows(&self) -> impl ExactSizeIterator<Item = &Loads> {
        let windows = self.windows.as_ref().map_or(std::slice::from_ref(self), |w| &w.loads);
        windows.iter()
    }

    /// The share of each window in the objective; they sum to 1.
    #[must_use]
    pub fn window_weights(&self) -> Vec<f64> {
        let weights: &[u32] = self.windows.as_ref().map_or(&[FIXED_TOTAL], |w| &w.weights);
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        weights.iter().map(|&w| f64::from(w) / total).collect()
    }

    /// The loads of all windows in fixed point, `[windows][layers][experts]`, each scaled by its weight.
    pub(crate) fn fixed_windows(&self) -> &[u32] {
        self.windows.as_ref().map_or(&self.fixed, |w| &w.fixed)
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
        self.values.chunks_exact(self.experts).filter(|row| row.iter().all(|&v| v == 0.0)).count()
    }
}

/// A number as it is read: 1e300 has 301 digits without an exponent.
fn brief(value: f64) -> String {
    if value.abs() < 1e16 { value.to_string() } else { format!("{value:?}") }
}

/// The mean of the windows by layer, each window scaled to the tokens of the average window.
fn weighted_mean(windows: &[Loads], weights: &[u32]) -> Arc<[f64]> {
    let (layers, experts) = (windows[0].layers, windows[0].experts);
    let mut mean = vec![0.0; layers * experts];
    for (layer, row) in mean.chunks_exact_mut(experts).enumerate() {
        let total = |window: &Loads| window.layer(layer).iter().sum::<f64>();
        let average = windows.iter().map(total).sum::<f64>() / windows.len() as f64;
        for (window, &weight) in windows.iter().zip(weights).filter(|(window, _)| total(window) > 0.0) {
            let weight = f64::from(weight) / f64::from(FIXED_TOTAL);
            let scale = weight * (average / total(window));
            for (sum, load) in row.iter_mut().zip(window.layer(layer)) {
                // Next to a window of usual size, one of tiny loads has a scale past all numbers; its shares have not.
                *sum +=
                    if scale.is_finite() { load * scale } else { load / total(window) * average * weight };
            }
        }
    }
    mean.into()
}

/// Layers numbered from 0.
fn numbered(layers: usize) -> Arc<[u32]> {
    (0..layers as u32).collect()
}

/// Checks that `ids` can be the numbers of this many layers.
pub(crate) fn check_layer_ids(layers: usize, ids: &[u32]) -> Result<(), Error> {
    if ids.len() != layers {
        let rule = format!("is not the number of layers {layers}");
        return Err(Error::invalid("number of layer ids", ids.len(), rule));
    }
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::invalid("layer id", pair[0], "is there twice")),
        None => Ok(()),
    }
}

/// Refuses what is about other layers than the loads are.
pub(crate) fn check_same_layers(field: &str, found: &[u32], wanted: &[u32]) -> Result<(), Error> {
    if found == wanted {
        return Ok(());
    }
    let rule = format!("are not those of the loads, {}", shown_layers(wanted));
    Err(Error::invalid(field, shown_layers(found), rule))
}

/// `3, 4, 7`, or `0..58` where they follow each other.
fn shown_layers(ids: &[u32]) -> String {
    const MOST: usize = 8;
    let follow = ids.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1]));
    match ids {
        [first, .., last] if follow && ids.len() > 2 => format!("{first}..={last}"),
        _ if ids.len() > MOST => {
            let shown: Vec<String> = ids[..MOST].iter().map(u32::to_string).collect();
            format!("{}, … ({} layers)", shown.join(", "), ids.len())
        }
        _ => ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
    }
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

/// Scales one layer of counts: by a whole factor where the total allows, else by `FIXED_TOTAL / total`.
fn fixed_from_counts(row: &[u64]) -> Vec<u32> {
    let total: u128 = row.iter().map(|&c| u128::from(c)).sum();
    let limit = u128::from(FIXED_TOTAL);
    let scale = |count: u64| match total {
        0 => 0,
        t if t <= limit => u128::from(count) * (limit / t),
        t => u128::from(count) * limit / t,
    };
    row.iter().map(|&c| u32::try_from(scale(c)).unwrap_or(FIXED_TOTAL)).collect()
}

/// Scales one layer of floats. The head-room of 2^12 keeps the rounded sum under `FIXED_TOTAL`; additions
/// and one multiplication in `f64` are the same on every machine.
fn fixed_from_floats(row: &[f64]) -> Vec<u32> {
    let largest = row.iter().copied().fold(0.0, f64::max);
    if largest == 0.0 {
        return vec![0; row.len()];
    }
    // Dividing by the largest first keeps denormal and huge loads alike in range.
    let total: f64 = row.iter().map(|v| v / largest).sum();
    let scale = f64::from(FIXED_TOTAL - (1 << 12)) / total;
    row.iter().map(|v| (v / largest * scale) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_stay_within_the_fixed_total() {
        let rows: [&[u64]; 5] =
            [&[1, 2, 3], &[u64::MAX, u64::MAX, 1], &[0, 0], &[1 << 30, 1], &[(1 << 29) + 1, 1 << 29]];
        for row in rows {
            let sum: u64 = fixed_from_counts(row).iter().map(|&f| u64::from(f)).sum();
            assert!(sum <= u64::from(FIXED_TOTAL), "{row:?} sums to {sum}");
            if row.iter().any(|&c| c > 0) {
                assert!(sum > u64::from(FIXED_TOTAL) / 2, "{row:?} loses precision: {sum}");
            }
        }
        for row in
            [vec![0.1; 1000], vec![f64::MIN_POSITIVE / 8.0, 0.0], vec![1e19, 0.5], vec![1.0 / 3.0; 4096]]
        {
            let sum: u64 = fixed_from_floats(&row).iter().map(|&f| u64::from(f)).sum();
            assert!(sum <= u64::from(FIXED_TOTAL) && sum > u64::from(FIXED_TOTAL) / 2, "{sum}");
        }
    }

    #[test]
    fn small_counts_keep_exact_ratios() {
        let fixed = fixed_from_counts(&[120, 240, 360]);
        assert_eq!(u64::from(fixed[0]) * 3, u64::from(fixed[2]));
        assert_eq!(fixed[0] * 2, fixed[1]);
    }

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
        assert_eq!(shown_layers(&[7, 1]), "7, 1");
        assert_eq!(
            shown_layers(&(0..20).map(|id| 2 * id).collect::<Vec<_>>()),
            "0, 2, 4, 6, 8, 10, 12, 14, … (20 layers)"
        );
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
