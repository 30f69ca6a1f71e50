//! Loads of several windows.

use std::sync::Arc;

use super::fixed::FIXED_TOTAL;
use super::layer_ids::check_same_layers;
use super::{Loads, MAX_WINDOWS, brief};
use crate::error::Error;

/// The windows that loads of several are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Windows {
    pub loads: Vec<Loads>,
    /// Shares of the objective, summing to at most [`FIXED_TOTAL`].
    pub weights: Vec<u32>,
    /// `[windows][layers][experts]`, each layer of a window summing to at most its weight.
    pub fixed: Vec<u32>,
}

impl Loads {
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
        let mut fixed = Vec::with_capacity(windows.len() * layers * experts);
        for (window, &weight) in windows.iter().zip(&weights) {
            for row in window.fixed.chunks_exact(experts) {
                let total: u64 = row.iter().map(|&load| u64::from(load)).sum();
                let scaled = |&load: &u32| (u64::from(load) * u64::from(weight) / total.max(1)) as u32;
                fixed.extend(row.iter().map(scaled));
            }
        }
        let len = layers * experts;
        let mut combined = vec![0; len];
        for window in fixed.chunks_exact(len) {
            combined.iter_mut().zip(window).for_each(|(sum, load)| *sum += load);
        }
        let values = weighted_mean(windows, &weights);
        let loads = windows.to_vec();
        let windows = Some(Arc::new(Windows { loads, weights, fixed }));
        Ok(Self {
            layers,
            experts,
            values,
            fixed: combined.into(),
            windows,
            layer_ids: first.layer_ids.clone(),
        })
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

    /// All windows together as one.
    pub(crate) fn as_one_window(&self) -> Self {
        Self { windows: None, ..self.clone() }
    }

    /// The loads of all windows in fixed point, `[windows][layers][experts]`, each scaled by its weight.
    pub(crate) fn fixed_windows(&self) -> &[u32] {
        self.windows.as_ref().map_or(&self.fixed, |w| &w.fixed)
    }
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
