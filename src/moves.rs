//! The moves from one plan to another, and limits on them.
//!
//! A slot *moves* where its GPU receives an expert it does not hold yet: its weights must be transferred.
//! Exchanging slots of one GPU transfers nothing: what a GPU keeps stays in its slot.

mod transfers;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::plan::Placement;

pub(crate) use transfers::transfers;

/// Parts of a million.
const MILLION: u64 = 1_000_000;

/// The least gain of moving all slots, where few may move. (At a limit of 15 % half of it lifts next-window balancedness by .001
/// to .002 on the series of the benches; at 5 % the limit decides, and series at rest move half as much with the whole.)
const MIN_GAIN_PPM: u32 = 100_000;

/// Slots of all that are few, in millionths.
const FEW_MOVES_PPM: u32 = 50_000;

/// The most slots that may move.
///
/// ```
/// use eplb_wgpu::MaxMoves;
/// assert_eq!(MaxMoves::Slots(100).of(288), 100);
/// assert_eq!(MaxMoves::Ppm(150_000).of(288), 43); // 15 %, rounded down
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaxMoves {
    /// This many.
    Slots(usize),
    /// This many millionths of all slots in question.
    Ppm(u32),
}

impl MaxMoves {
    /// How many of `slots` slots that is.
    #[must_use]
    pub fn of(self, slots: usize) -> usize {
        match self {
            MaxMoves::Slots(most) => most,
            MaxMoves::Ppm(ppm) => {
                let part = slots as u128 * u128::from(ppm) / u128::from(MILLION);
                usize::try_from(part).unwrap_or(usize::MAX)
            }
        }
    }
}

/// How far a plan made from a previous one may move away from it: the one place where moves are bounded.
///
/// A minor version may add fields, each with a default that changes nothing: construct it with
/// `..MoveLimits::default()`, and later versions compile.
///
/// ```
/// use eplb_wgpu::{MaxMoves, MoveLimits};
/// let limits = MoveLimits { max_moves: Some(MaxMoves::Slots(100)), ..MoveLimits::default() };
/// assert_eq!(limits.max_moves_per_layer, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MoveLimits {
    /// The most slots that may move for balance, in all layers together: a hard bound. Slots that make a map valid move
    /// besides ([`Moves::repairs`]). `None`, the default: no bound.
    pub max_moves: Option<MaxMoves>,
    /// The most slots of a layer that may move for balance: a hard bound. `None`, the default: no bound.
    pub max_moves_per_layer: Option<MaxMoves>,
    /// The most rounds that the moves of a layer may take: a hard bound, as [`crate::LayerMoves::rounds`] counts them. In a
    /// round each GPU exchanges experts with at most one other. A layer may take as many as making it valid does.
    /// `None`, the default: no bound.
    pub max_rounds_per_layer: Option<usize>,
    /// The least gain of moving all slots of a layer, in millionths of the mean GPU; each moved slot must be
    /// worth its part of that. Any number; 0 where moves cost nothing. `None`, the default: 100,000; where
    /// [`MoveLimits::max_moves`] allows more than 5 % of all slots, as much less as that is more, down to 50,000.
    pub min_gain_ppm: Option<u32>,
    /// Layers whose balancedness (over all windows) is at least this many millionths are left untouched. `None`, the default:
    /// no layer is.
    pub skip_if_balanced_ppm: Option<u32>,
}

impl MoveLimits {
    /// Limits for a loop that plans at every window: at most 5 % of all slots move for balance at a step. What does
    /// not fit is left to the next.
    ///
    /// ```
    /// use eplb_wgpu::{MaxMoves, MoveLimits};
    /// assert_eq!(MoveLimits::each_window().max_moves, Some(MaxMoves::Ppm(50_000)));
    /// ```
    #[must_use]
    pub fn each_window() -> Self {
        Self { max_moves: Some(MaxMoves::Ppm(FEW_MOVES_PPM)), ..Self::default() }
    }

    /// The least gain, where there are this many slots in all layers. A caller who lets more slots move has moves that are
    /// worth less.
    pub(crate) fn min_gain(&self, slots: usize) -> u32 {
        let most = self.max_moves.map_or(0, |most| most.of(slots));
        let few = MaxMoves::Ppm(FEW_MOVES_PPM).of(slots).max(1);
        let by_limit = u64::from(MIN_GAIN_PPM) * few as u64 / most.max(few) as u64;
        self.min_gain_ppm.unwrap_or((by_limit as u32).max(MIN_GAIN_PPM / 2))
    }

    /// Whether a layer of this objective is left untouched; `even` is what an even spread would give.
    pub(crate) fn is_balanced(&self, even: u32, value: u32) -> bool {
        let enough = |ppm: u32| u64::from(even) * MILLION >= u64::from(value) * u64::from(ppm);
        self.skip_if_balanced_ppm.is_some_and(enough)
    }
}

/// The changes between two plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moves {
    /// Slots that hold another expert than before.
    pub changed_slots: usize,
    /// Slots whose GPU receives an expert it did not hold: the transfers.
    pub received: usize,
    /// Those of them that make valid what was not: an expert without a replica, a duplicate that can go, a group across
    /// nodes, a slot that is new.
    pub repairs: usize,
    /// Slots in all.
    pub slots: usize,
}

impl Moves {
    /// The moves from `old` to `new` on a cluster, all layers together.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the two differ in shape, or from the cluster's number of slots.
    ///
    /// ```
    /// use eplb_wgpu::{Cluster, Moves, Placement};
    /// let cluster = Cluster::new(4, 1, 1, 2)?;
    /// let old = Placement::new(3, 4, vec![0, 1, 2, 0])?;
    /// let new = Placement::new(3, 4, vec![1, 0, 2, 1])?; // a swap inside GPU 0, and expert 1 comes to GPU 1
    /// let moves = Moves::between(&cluster, &old, &new)?;
    /// assert_eq!((moves.changed_slots, moves.received), (3, 1));
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    pub fn between(cluster: &Cluster, old: &Placement, new: &Placement) -> Result<Self, Error> {
        check_same_shape(cluster, old, new.layers(), new.experts())?;
        let (old, new) = (old.physical_to_logical(), new.physical_to_logical());
        Ok(Self {
            changed_slots: old.iter().zip(new).filter(|(a, b)| a != b).count(),
            received: received(cluster.slots_per_gpu(), old, new),
            repairs: 0,
            slots: new.len(),
        })
    }

    /// Moved slots over all slots.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.slots == 0 { 0.0 } else { self.received as f64 / self.slots as f64 }
    }

    /// The bytes to transfer where an expert has this many.
    #[must_use]
    pub fn bytes(&self, expert_bytes: u64) -> u128 {
        self.received as u128 * u128::from(expert_bytes)
    }
}

/// Checks that `previous` can be the plan before one of these layers and experts on the cluster.
fn check_same_shape(
    cluster: &Cluster,
    previous: &Placement,
    layers: usize,
    experts: usize,
) -> Result<(), Error> {
    let fields = [
        ("layers of the previous plan", previous.layers(), layers, "layers"),
        ("experts of the previous plan", previous.experts(), experts, "experts"),
        ("slots of the previous plan", previous.slots(), cluster.num_slots(), "slots of the cluster"),
    ];
    for (field, found, wanted, of) in fields {
        if found != wanted {
            return Err(Error::invalid(field, found, format!("is not the number of {of}, {wanted}")));
        }
    }
    Ok(())
}

/// Slots whose GPU receives an expert: GPU by GPU, entries of `new` beyond those of `old`. What a free slot
/// (any value that is not in `old`) receives counts, unless it is free in `new`.
pub(crate) fn received<T: Copy + PartialEq + IsFree>(slots_per_gpu: usize, old: &[T], new: &[T]) -> usize {
    let gpus = old.chunks(slots_per_gpu).zip(new.chunks(slots_per_gpu));
    gpus.map(|(old, new)| {
        let filled = new.iter().filter(|e| !e.is_free()).count();
        filled - overlap(old, new)
    })
    .sum()
}

/// How many replicas two GPUs' lists have in common.
fn overlap<T: Copy + PartialEq + IsFree>(old: &[T], new: &[T]) -> usize {
    let mut taken = vec![false; old.len()];
    let mut common = 0;
    for expert in new.iter().filter(|e| !e.is_free()) {
        if let Some(at) = (0..old.len()).find(|&i| !taken[i] && old[i] == *expert) {
            taken[at] = true;
            common += 1;
        }
    }
    common
}

/// Entries of maps.
pub(crate) trait IsFree {
    /// Whether it stands for a free slot.
    fn is_free(&self) -> bool;
}

impl IsFree for i32 {
    fn is_free(&self) -> bool {
        *self < 0
    }
}

impl IsFree for u32 {
    fn is_free(&self) -> bool {
        *self == crate::params::FREE
    }
}

/// The replicas of `new` in an order in which those that `old` holds keep their slots.
pub(crate) fn in_place(old: &[u32], new: &[u32]) -> Vec<u32> {
    let mut rest = new.to_vec();
    let kept: Vec<Option<u32>> =
        old.iter().map(|expert| rest.iter().position(|e| e == expert).map(|at| rest.remove(at))).collect();
    let mut rest = rest.into_iter();
    kept.into_iter().map(|slot| slot.or_else(|| rest.next()).unwrap_or(crate::params::FREE)).collect()
}
