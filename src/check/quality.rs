//! The score of a plan: loads of GPUs and replicas, layer by layer, and what follows from them.

/// One layer of a plan, scored with the loads as given (not in fixed point). All loads are in the unit of
/// the given loads, usually tokens.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LayerQuality {
    /// Load of the busiest GPU; over its speed, relative to the fastest, where GPUs are of unequal speed, see
    /// [`Cluster::with_gpu_speeds`](crate::Cluster::with_gpu_speeds).
    pub max_gpu_load: f64,
    /// Mean load of a GPU; the total over the sum of speeds where these are unequal.
    pub mean_gpu_load: f64,
    /// Load of the heaviest replica.
    pub max_replica_load: f64,
    /// Mean load of a replica.
    pub mean_replica_load: f64,
    /// The load that no valid plan can go below; 0 until [`Quality::with_bounds`].
    pub lower_bound: f64,
    /// Slots that repeat an expert already on their GPU.
    pub same_gpu_duplicates: usize,
    /// Replicas outside the home of their group, see [`PlanOptions::max_foreign`](crate::PlanOptions::max_foreign).
    pub foreign_replicas: usize,
    /// The load that they serve.
    pub foreign_load: f64,
    /// The least load that a plan with as light a heaviest GPU serves outside the homes; 0 until [`Quality::with_least_foreign`].
    pub least_foreign_load: f64,
}

impl LayerQuality {
    /// `max GPU load / lower bound - 1`, at least 0; `None` for a layer without load.
    ///
    /// The mean GPU load is a lower bound too and stands in where [`LayerQuality::lower_bound`] is smaller,
    /// as it is before [`Quality::with_bounds`].
    #[must_use]
    pub fn gap(&self) -> Option<f64> {
        let bound = self.lower_bound.max(self.mean_gpu_load);
        (self.has_load() && bound > 0.0).then(|| (self.max_gpu_load / bound - 1.0).max(0.0))
    }

    /// Whether any expert of the layer has load.
    fn has_load(&self) -> bool {
        self.max_gpu_load > 0.0
    }
}

/// How good a plan is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Quality {
    /// Layer by layer.
    pub layers: Vec<LayerQuality>,
}

impl Quality {
    /// The same quality with a lower bound per layer, as [`crate::bound`] gives them. Layers
    /// beyond the end of `bounds` keep the bound they have.
    #[must_use]
    pub fn with_bounds(mut self, bounds: &[f64]) -> Self {
        for (layer, &bound) in self.layers.iter_mut().zip(bounds) {
            layer.lower_bound = bound;
        }
        self
    }

    /// The same quality with the least load that foreign replicas serve, layer by layer, as [`crate::bound::least_foreign_loads`] gives it.
    #[must_use]
    pub fn with_least_foreign(mut self, loads: &[f64]) -> Self {
        for (layer, &load) in self.layers.iter_mut().zip(loads) {
            layer.least_foreign_load = load;
        }
        self
    }

    /// Replicas outside the home of their group, all layers together.
    #[must_use]
    pub fn foreign_replicas(&self) -> usize {
        self.layers.iter().map(|l| l.foreign_replicas).sum()
    }

    /// The part of all load that replicas outside the home of their group serve, and the least part that any plan with as
    /// light heaviest GPUs serves there.
    #[must_use]
    pub fn foreign_shares(&self, gpus: usize) -> (f64, f64) {
        let total: f64 = self.layers.iter().map(|l| l.mean_gpu_load * gpus as f64).sum();
        let part = |load: f64| if total > 0.0 { (load / total).min(1.0) } else { 0.0 };
        let sum = |of: fn(&LayerQuality) -> f64| self.layers.iter().map(of).sum::<f64>();
        (part(sum(|l| l.foreign_load)), part(sum(|l| l.least_foreign_load)))
    }

    /// Sum over layers of the mean GPU load / sum over layers of the max GPU load: 1 is perfect. 1 where
    /// nothing has load.
    #[must_use]
    pub fn balancedness(&self) -> f64 {
        self.ratio_of_sums(|l| l.mean_gpu_load, |l| l.max_gpu_load)
    }

    /// [`Quality::balancedness`] over replicas instead of GPUs: sum of mean replica load / sum of heaviest
    /// replica load. It depends on the replica counts alone, not on where replicas sit.
    #[must_use]
    pub fn replica_balancedness(&self) -> f64 {
        self.ratio_of_sums(|l| l.mean_replica_load, |l| l.max_replica_load)
    }

    /// Max GPU load / mean GPU load of the layer where that is largest; 1 where nothing has load.
    #[must_use]
    pub fn max_over_mean(&self) -> f64 {
        // The mean of denormal loads can be 0.
        let loaded = self.layers.iter().filter(|l| l.mean_gpu_load > 0.0);
        loaded.map(|l| l.max_gpu_load / l.mean_gpu_load).fold(1.0, f64::max)
    }

    /// Mean of [`LayerQuality::gap`] over the layers with load; 0 where there are none.
    #[must_use]
    pub fn mean_gap(&self) -> f64 {
        let gaps: Vec<f64> = self.layers.iter().filter_map(LayerQuality::gap).collect();
        if gaps.is_empty() { 0.0 } else { gaps.iter().sum::<f64>() / gaps.len() as f64 }
    }

    /// The largest [`LayerQuality::gap`]; 0 where nothing has load.
    #[must_use]
    pub fn worst_gap(&self) -> f64 {
        self.layers.iter().filter_map(LayerQuality::gap).fold(0.0, f64::max)
    }

    /// The layer with the largest gap, the lower of equals; `None` where nothing has load.
    #[must_use]
    pub fn worst_layer(&self) -> Option<usize> {
        let gaps = self.layers.iter().enumerate().filter_map(|(i, l)| Some((i, l.gap()?)));
        gaps.reduce(|worst, next| if next.1 > worst.1 { next } else { worst }).map(|(layer, _)| layer)
    }

    /// Slots that repeat an expert already on their GPU, all layers together.
    #[must_use]
    pub fn same_gpu_duplicates(&self) -> usize {
        self.layers.iter().map(|l| l.same_gpu_duplicates).sum()
    }

    /// Layers in which no expert has load, as a model's dense layers are recorded.
    #[must_use]
    pub fn layers_without_load(&self) -> usize {
        self.layers.iter().filter(|l| !l.has_load()).count()
    }

    fn ratio_of_sums(&self, mean: fn(&LayerQuality) -> f64, max: fn(&LayerQuality) -> f64) -> f64 {
        let (means, maxima) = self.layers.iter().fold((0.0, 0.0), |sum, l| (sum.0 + mean(l), sum.1 + max(l)));
        // Rounding can make the ratio larger than 1; with denormal loads, much larger.
        if maxima > 0.0 { (means / maxima).min(1.0) } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    fn layer(max: f64, mean: f64, bound: f64) -> LayerQuality {
        LayerQuality {
            max_gpu_load: max,
            mean_gpu_load: mean,
            max_replica_load: max / 2.0,
            mean_replica_load: mean / 4.0,
            lower_bound: bound,
            same_gpu_duplicates: 1,
            foreign_replicas: 0,
            foreign_load: 0.0,
            least_foreign_load: 0.0,
        }
    }

    #[test]
    fn quality_sums_over_layers_and_leaves_out_those_without_load() {
        let quality =
            Quality { layers: vec![layer(0.0, 0.0, 0.0), layer(15.0, 10.0, 0.0), layer(25.0, 20.0, 0.0)] };
        assert_relative_eq!(quality.balancedness(), 30.0 / 40.0);
        assert_relative_eq!(quality.replica_balancedness(), 7.5 / 20.0);
        assert_relative_eq!(quality.max_over_mean(), 1.5);
        assert_eq!((quality.same_gpu_duplicates(), quality.layers_without_load()), (3, 1));
        // Gaps are over the mean where there is no bound.
        assert_eq!(quality.worst_layer(), Some(1));
        assert_relative_eq!(quality.worst_gap(), 0.5);
        let bounded = quality.with_bounds(&[0.0, 12.0, 20.0]);
        assert_relative_eq!(bounded.layers[1].lower_bound, 12.0);
        assert_eq!(bounded.worst_layer(), Some(1), "the lower of equals");
        assert_relative_eq!(bounded.worst_gap(), 0.25);
        assert_relative_eq!(bounded.mean_gap(), 0.25);
    }

    #[test]
    fn nothing_loaded_is_perfectly_balanced() {
        for layers in [vec![], vec![layer(0.0, 0.0, 0.0)]] {
            let quality = Quality { layers };
            for ratio in [quality.balancedness(), quality.replica_balancedness(), quality.max_over_mean()] {
                assert_relative_eq!(ratio, 1.0);
            }
            assert_relative_eq!(quality.mean_gap(), 0.0);
            assert_relative_eq!(quality.worst_gap(), 0.0);
            assert_eq!(quality.worst_layer(), None);
        }
    }

    #[test]
    fn the_load_of_foreign_replicas_is_a_part_of_all() {
        let foreign = |replicas, load| LayerQuality {
            foreign_replicas: replicas,
            foreign_load: load,
            ..layer(15.0, 10.0, 0.0)
        };
        let quality = Quality { layers: vec![foreign(2, 6.0), foreign(3, 2.0), layer(0.0, 0.0, 0.0)] };
        let quality = quality.with_least_foreign(&[3.0, 1.0]);
        assert_eq!(quality.foreign_replicas(), 5);
        // 2 layers of 4 GPUs with 10 each.
        let (served, least) = quality.foreign_shares(4);
        assert_relative_eq!(served, 8.0 / 80.0);
        assert_relative_eq!(least, 4.0 / 80.0);
        let none = Quality { layers: vec![LayerQuality { foreign_load: 1.0, ..layer(0.0, 0.0, 0.0) }] };
        assert_eq!(none.foreign_shares(4), (0.0, 0.0));
    }
}
