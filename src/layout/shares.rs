//! Where tables of shares lie in the device's buffers: tasks in `problem`, loads of GPUs in the arena, shares in `results`.

use super::words::{self, CONTROL_WORDS};
use super::{GpuParams, Layout, Parts};
use crate::shares::layer::Pair;
use crate::shares::task::{SCENARIOS, Task};

impl Layout {
    /// The layout of these tasks, which are all for a batch or all for the next window.
    pub fn of_shares(tasks: &[Task], is_batch: bool) -> Self {
        let most = |of: &dyn Fn(&Task) -> usize| tasks.iter().map(of).max().unwrap_or(0) as u64;
        let (replicas, rounds) = (most(&|task| task.have.len()), most(&|task| task.ends.len()));
        let (terms, loads) = (most(&|task| task.terms.len()), most(&|task| task.load.len()));
        let mut base =
            GpuParams { candidates: tasks.len() as u32, start_count: 1, nodes: 1, ..GpuParams::default() };
        base.replicas = replicas as u32;
        base.rounds = rounds as u32;
        base.gpus = (loads / if is_batch { 1 } else { SCENARIOS as u64 }) as u32;

        let mut task = Parts(u64::from(words::table::WORDS));
        base.at_rounds = task.take(rounds);
        base.at_pairs = task.take(most(&|task| task.pairs.len()) * u64::from(words::pair::WORDS));
        base.at_terms = task.take(terms * (u64::from(words::terms::WORDS) + SCENARIOS as u64));
        base.at_first_shares = task.take(replicas);
        base.at_first_loads = task.take(loads);
        base.task_words = task.take(0);

        let mut arena = Parts(0);
        base.at_control = arena.take(u64::from(CONTROL_WORDS));
        base.at_gpu_load = arena.take(loads);
        // Layers begin at lines of the cache.
        let words = arena.0.next_multiple_of(16);
        base.candidate_words = u32::try_from(words).unwrap_or(u32::MAX);
        let all = tasks.len() as u64;
        Self {
            base,
            problem_words: all * task.0,
            groups_words: 0,
            results_words: all * replicas,
            candidate_words: words,
            result_begin: 0,
        }
    }

    /// The words of a table's task in the problem buffer.
    pub fn shares_task(&self, task: &Task, out: &mut Vec<u32>) {
        let base = &self.base;
        let mut block = vec![0; base.task_words as usize];
        block[words::table::STILL] = task.still as u32;
        let mut put = |at: u32, words: &mut dyn Iterator<Item = u32>| {
            block[at as usize..].iter_mut().zip(words).for_each(|(out, word)| *out = word);
        };
        // Rounds beyond the last are empty.
        let end = task.pairs.len() as u32;
        let ends = task.ends.iter().copied().chain(std::iter::repeat(end)).take(base.rounds as usize);
        put(base.at_rounds, &mut { ends });
        let place = |expert: u32| task.terms.partition_point(|terms| terms.expert < expert) as u32;
        let pair = |pair: &Pair| {
            let ([first, second], [first_gpu, second_gpu]) = (pair.places, pair.gpus);
            [first, second, first_gpu, second_gpu, place(pair.expert)]
        };
        put(base.at_pairs, &mut task.pairs.iter().flat_map(pair));
        let two = |word: i64| [word as u32, (word >> 32) as u32];
        let terms = task.terms.iter().flat_map(|terms| {
            let numbers = [two(terms.even), two(terms.squares)].into_iter().flatten();
            numbers.chain(terms.loads.iter().map(|&load| load as u32))
        });
        put(base.at_terms, &mut { terms });
        put(base.at_first_shares, &mut task.have.iter().map(|&share| share as u32));
        put(base.at_first_loads, &mut task.load.iter().map(|&load| load as u32));
        out.extend(block);
    }
}
