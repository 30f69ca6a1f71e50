//! The table of a target, and the excess after other counts by it: see [`super`].

use super::Tables;
use crate::loads::FIXED_TOTAL;

/// Numbers that are added to the surplus: a row has a column for each from -7 to 8. Others count as the nearest.
pub const COLUMNS: usize = 16;
/// The column for 0.
const ZERO: i32 = 7;

/// An event: where it lies, the row it lies at or below, and the number that it adds to the surplus.
#[derive(Clone, Copy, Default)]
pub struct Event {
    at: u32,
    row: usize,
    step: i32,
}

/// Another count of an expert: the event that goes and the one that comes, the higher first.
#[derive(Clone, Copy, Default)]
pub struct Change(pub [Event; 2]);

impl Tables {
    /// The excess over the target of the counts at hand.
    pub fn excess_now(&self) -> u32 {
        self.excess[self.order.len() + 1][ZERO as usize]
    }

    /// The table for a target.
    pub fn build(&mut self, counts: &[u32], target: u32) {
        let experts = self.order.len();
        self.target = target;
        self.half = target / 2;
        self.position.resize(experts + 2, 0);
        self.surplus.resize(experts + 2, 0);
        self.excess.resize(experts + 2, [0; COLUMNS]);
        // Above all loads, with no surplus.
        self.position[0] = FIXED_TOTAL;
        self.surplus[0] = 0;
        let (mut heavy, mut light, mut surplus) = (0, experts, 0);
        for row in 1..=experts {
            let (a, b) = (self.order[heavy] as usize, self.order[light - 1] as usize);
            let of_light = target.wrapping_sub(self.share[b]);
            let takes_light =
                self.share[b] <= self.half && (self.share[a] <= self.half || of_light >= self.share[a]);
            let e = if takes_light { b } else { a };
            let count = counts[e] as i32;
            self.position[row] = if takes_light { of_light } else { self.share[a] };
            surplus += if takes_light { -count } else { count };
            heavy += usize::from(!takes_light);
            light -= usize::from(takes_light);
            self.surplus[row] = surplus;
            self.row[e] = row as u32;
        }
        self.position[experts + 1] = self.half;
        self.surplus[experts + 1] = surplus;
        let mut sum = [0u32; COLUMNS];
        for row in 0..=experts {
            self.excess[row] = sum;
            let (length, least) = (self.position[row] - self.position[row + 1], self.surplus[row] - ZERO);
            for (sum, by) in sum.iter_mut().zip(0..) {
                *sum += length * (least + by).max(0) as u32;
            }
        }
        self.excess[experts + 1] = sum;
        self.index_rows();
    }

    /// The table that [`Tables::row_of`] looks up.
    fn index_rows(&mut self) {
        let experts = self.order.len();
        let places = (2 * experts).next_power_of_two().max(64);
        let span = self.position[1] - self.half;
        self.before_shift = (u32::BITS - span.leading_zeros()).saturating_sub(places.ilog2());
        self.before.clear();
        let mut row = 0;
        for place in 0..=span >> self.before_shift {
            while (self.position[1] - self.position[row + 1]) >> self.before_shift < place {
                row += 1;
            }
            self.before.push(row as u32);
        }
    }

    /// The lowest row at or above a position, which is above half the target.
    fn row_of(&self, at: u32) -> usize {
        if at > self.position[1] {
            return 0;
        }
        if at <= self.half {
            return self.order.len() + 1;
        }
        let mut row = self.before[((self.position[1] - at) >> self.before_shift) as usize] as usize;
        while self.position[row + 1] >= at {
            row += 1;
        }
        row
    }

    /// The event of an expert with this many replicas, each of this load.
    fn event(&self, share: u32, count: u32) -> Event {
        let is_heavy = share > self.half;
        let at = if is_heavy { share } else { self.target - share };
        Event { at, row: self.row_of(at), step: if is_heavy { count as i32 } else { -(count as i32) } }
    }

    /// The change of an expert's event with other replicas than it has.
    pub fn change(&self, counts: &[u32], e: usize, share: u32, count: u32) -> Change {
        let row = self.row[e] as usize;
        let step = if self.share[e] > self.half { -(counts[e] as i32) } else { counts[e] as i32 };
        let goes = Event { at: self.position[row], row, step };
        let comes = self.event(share, count);
        Change(if goes.at >= comes.at { [goes, comes] } else { [comes, goes] })
    }

    /// The excess down to an event with one surplus above it, less that with the surplus below it.
    fn difference(&self, event: &Event, above: i32, below: i32) -> u32 {
        let (cells, surplus) = (&self.excess[event.row], self.surplus[event.row]);
        let length = self.position[event.row] - event.at;
        let down_to = |by: i32| {
            let by = by.clamp(-ZERO, COLUMNS as i32 - 1 - ZERO);
            cells[(by + ZERO) as usize].wrapping_add(length.wrapping_mul((surplus + by).max(0) as u32))
        };
        down_to(above).wrapping_sub(down_to(below))
    }

    /// The excess after some events, from the highest to the lowest.
    pub fn excess_after(&self, events: impl Iterator<Item = Event>) -> u32 {
        let (mut excess, mut by) = (0u32, 0);
        for event in events {
            excess = excess.wrapping_add(self.difference(&event, by, by + event.step));
            by += event.step;
        }
        let by = by.clamp(-ZERO, COLUMNS as i32 - 1 - ZERO);
        excess.wrapping_add(self.excess[self.order.len() + 1][(by + ZERO) as usize])
    }
}

/// The events of two changes from the highest to the lowest; of equals those of the first are before.
pub fn merged(a: &Change, b: &Change) -> impl Iterator<Item = Event> {
    let (mut i, mut j) = (0, 0);
    std::iter::from_fn(move || {
        let takes_first = j == 2 || (i < 2 && a.0[i].at >= b.0[j].at);
        let event = if takes_first { a.0.get(i) } else { b.0.get(j) };
        i += usize::from(takes_first);
        j += usize::from(!takes_first);
        event.copied()
    })
}
