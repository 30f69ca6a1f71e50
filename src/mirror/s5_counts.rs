//! Stage 5 where GPUs have two slots, the mirror of `shaders/s5_counts.wgsl`: search the replica counts alone.
//!
//! With two slots a GPU and none free the counts decide the placement: replicas in falling order, the heaviest with
//! the lightest, the next with the next lightest, and so on. No other placement of these counts has a lighter heaviest
//! GPU. This is the fold; what it comes to is its value. A GPU to which the fold gives one expert twice exchanges a
//! replica with another GPU ([`Tables::duplicates`]), and the value is the one after that.
//!
//! The search moves one replica from one expert to another, again and again, always by the move that leaves the least
//! excess over a target a little below the best value so far, even if that is more than there was (tabu search).
//! Experts that took part are left alone for some iterations, unless a move leaves less than any did at this target.
//!
//! The excess over a target `T` of all counts next to the present ones is had from one table ([`Tables::build`]):
//! - Expert by expert there is an event. A replica heavier than `T / 2` (the expert is heavy) needs a partner of at most
//!   `T` less its load; a replica of at most `T / 2` (light) is one for loads up to `T` less its own. So the event of a
//!   heavy expert lies at the load of a replica and counts `+ replicas`, that of a light one at `T` less that load and
//!   counts `- replicas`.
//! - Going down from the highest event, the sum of what they count (the surplus) is how many replicas lack a partner. The
//!   excess is the integral of the surplus, where it is positive, down to `T / 2`; it is 0 where the value is at most `T`.
//! - Another count of an expert removes its event and adds one elsewhere: between these the surplus is higher or lower by
//!   a number. The rows of the table have that integral down to each event for each such number from -7 to 8, so
//!   that the excess after a move is a sum of a few of its entries.
//!
//! Equal values are told apart by a hash and then by the expert or the place in the lists, so all orders are total. The
//! iterations are what `params.iterations` and `params.patience` count, and a larger budget repeats what a smaller one did.

mod fold;
mod moves;
mod order;
mod table;

use crate::mirror::candidate::{Candidate, Outcome};
use crate::mirror::rng;
use crate::params::Params;
use crate::plan::Stop;
use moves::index_of;
use table::{COLUMNS, Change};

#[cfg(feature = "gpu")]
pub use moves::INDEX;
pub use moves::{GAINERS, LOSERS};

/// A target is the best value less a part of it, 1 / 2^6 at first. After 2 iterations without a new best the part is
/// halved, down to 1 / 2^16: what is easier to reach has less room for a detour.
pub const FIRST_SHIFT: u32 = 6;
/// See [`FIRST_SHIFT`].
pub const LAST_SHIFT: u32 = 16;
/// See [`FIRST_SHIFT`].
pub const HALVED_AFTER: u32 = 2;

/// Until how many iterations later an expert that took part in a move may take part in another: 4 to 11, where there are
/// enough experts for that.
fn tenure(experts: usize, word: u32) -> u32 {
    (4 + (word & 7)).min(1 + experts as u32 / 4)
}

/// This search has an iteration for four of the other.
pub const PATIENCE_SHARE: u32 = 4;

/// Iterations without a new best after which the search ends.
pub fn patience(params: &Params) -> u32 {
    (params.patience / PATIENCE_SHARE).max(1)
}

/// Improves on a packed candidate, down to `stop_load` if it can. Afterwards `candidate.snapshot` is the result, the
/// packing itself if no counts are better, and `candidate.counts` has its counts.
pub fn search(
    params: &Params,
    key: u32,
    loads: &[u32],
    stop_load: u32,
    candidate: &mut Candidate,
    tables: &mut Tables,
) -> Outcome {
    let packed = candidate.max_load();
    let Candidate { counts, expert, snapshot, .. } = candidate;
    snapshot.clone_from(expert);
    tables.begin(loads, counts);
    let best = packed.min(tables.value(params, counts));
    let run =
        CountsRun { params, key, loads, stop_load, best, shift: FIRST_SHIFT, least: 0, idle: 0, slack: 0 };
    let outcome = tables.iterate(run, counts);
    counts.clone_from(&tables.best_counts);
    tables.begin(loads, counts);
    if outcome.max < packed {
        tables.fold(params, counts, snapshot);
    }
    outcome
}

/// A call, and where its search is.
struct CountsRun<'a> {
    params: &'a Params,
    key: u32,
    loads: &'a [u32],
    stop_load: u32,
    /// The best value so far.
    best: u32,
    /// The part by which the target is below it.
    shift: u32,
    /// The least excess over this target so far.
    least: u32,
    /// Iterations since the best value was found.
    idle: u32,
    /// Iterations since that or since the target was raised.
    slack: u32,
}

impl CountsRun<'_> {
    fn target(&self) -> u32 {
        self.best - 1 - (self.best >> self.shift)
    }

    /// Whether the search ends after this many iterations.
    fn end(&self, iterations: u32) -> Option<Stop> {
        if self.best <= self.stop_load {
            Some(Stop::BoundReached)
        } else if self.idle >= patience(self.params) {
            Some(Stop::NoMoveLeft)
        } else {
            (iterations == self.params.iterations).then_some(Stop::BudgetSpent)
        }
    }
}

/// All that the search remembers, kept from candidate to candidate for its memory alone.
#[derive(Default)]
pub struct Tables {
    /// Load of one replica of each expert, with one replica more, and with one less.
    share: Vec<u32>,
    more: Vec<u32>,
    fewer: Vec<u32>,
    /// Experts by falling share, ties to the lower.
    order: Vec<u32>,
    /// Until which iteration each expert is left alone.
    tabu: Vec<u32>,
    /// Counts of the best value.
    best_counts: Vec<u32>,
    /// The target, and its half.
    target: u32,
    half: u32,
    /// The row of each expert's event.
    row: Vec<u32>,
    /// Where each row lies, falling: above all, then the events, then half the target.
    position: Vec<u32>,
    /// The surplus below each row.
    surplus: Vec<i32>,
    /// The excess down to each row, if the surplus were larger by -7 to 8.
    excess: Vec<[u32; COLUMNS]>,
    /// Rows whose position, less the highest and shifted, is below each number: see [`Tables::row_of`].
    before: Vec<u32>,
    before_shift: u32,
    /// The change of each expert's event with one replica less, and with one more.
    changes: [Vec<Change>; 2],
}

impl Tables {
    /// The search itself, from the counts at hand.
    fn iterate(&mut self, mut run: CountsRun<'_>, counts: &mut [u32]) -> Outcome {
        let mut iteration = 0;
        let mut is_new = true;
        let end = loop {
            if let Some(end) = run.end(iteration) {
                break end;
            }
            self.build(counts, run.target());
            if is_new {
                run.least = self.excess_now();
            }
            iteration += 1;
            let word = rng::draw(run.key, rng::COUNT_MOVES + iteration);
            let gainers = self.list::<true, GAINERS>(run.params, counts, word);
            let losers = self.list::<false, LOSERS>(run.params, counts, word);
            if gainers[0] == u64::MAX || losers[0] == u64::MAX {
                break Stop::NoMoveLeft;
            }
            let best = self.best_move(iteration, word, run.least, &losers, &gainers);
            if best < u64::MAX {
                let pair = index_of(best);
                let (x, y) = (index_of(losers[pair / GAINERS]), index_of(gainers[pair % GAINERS]));
                counts[x] -= 1;
                counts[y] += 1;
                self.tabu[x] = iteration + tenure(counts.len(), word);
                self.tabu[y] = iteration + tenure(counts.len(), word >> 3);
                for e in [x, y] {
                    self.weigh(run.loads, counts, e);
                    self.reorder(e);
                }
                run.least = run.least.min((best >> 32) as u32);
            }
            is_new = self.judge(&mut run, counts);
        };
        Outcome { max: run.best, end }
    }

    /// After a move: whether its counts are the best, and what to aim at next. Returns whether that is new.
    fn judge(&mut self, run: &mut CountsRun<'_>, counts: &[u32]) -> bool {
        let value = self.value(run.params, counts);
        run.idle += 1;
        run.slack += 1;
        if value < run.best {
            (run.best, run.idle, run.slack) = (value, 0, 0);
            self.best_counts.copy_from_slice(counts);
            return true;
        }
        let raises = run.slack >= HALVED_AFTER && run.shift < LAST_SHIFT;
        if raises {
            run.shift += 1;
            run.slack = 0;
        }
        raises
    }
}
