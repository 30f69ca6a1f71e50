//! How a fixed number of slots is best spread over layers.

/// The most steps of the search: beyond, layers keep their equal share.
const MOST_STEPS: usize = 100_000_000;

/// For each layer one of the numbers `slots` (each one more than the last). They sum to at most `total`, and the sum of the
/// layers' times, which is returned too, is the least. `times` has, for each number of slots, the time of each layer. None where no choice fits.
pub fn best(slots: &[usize], times: &[&[f64]], total: usize) -> Option<(Vec<usize>, f64)> {
    let layers = times.first()?.len();
    let (least, choices) = (*slots.first()?, slots.len());
    // The slots that are left once every layer has the least; none can use more than the most.
    let spare = total.checked_sub(least * layers)?.min((choices - 1) * layers);
    if layers * (spare + 1) * choices > MOST_STEPS {
        return None;
    }
    // The least time of the layers so far with at most this many spare slots, and the choice of each.
    let mut sums = vec![0.0; spare + 1];
    let mut chosen: Vec<Vec<u16>> = Vec::with_capacity(layers);
    for layer in 0..layers {
        let mut next = vec![f64::INFINITY; spare + 1];
        let mut choice = vec![0u16; spare + 1];
        for used in 0..=spare {
            for (more, times) in times.iter().enumerate().take(used + 1) {
                let sum = sums[used - more] + times[layer];
                if sum < next[used] {
                    (next[used], choice[used]) = (sum, more as u16);
                }
            }
        }
        sums = next;
        chosen.push(choice);
    }
    let mut left = spare;
    let mut spread = vec![0; layers];
    for layer in (0..layers).rev() {
        let more = usize::from(chosen[layer][left]);
        spread[layer] = least + more;
        left -= more;
    }
    Some((spread, sums[spare]))
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    #[test]
    fn slots_go_where_they_save_most_and_no_choice_is_better() {
        // The first layer gains nothing, the second much from two more at once, the third a little from each.
        let times: [&[f64]; 3] = [&[1.0, 2.0, 1.5], &[1.0, 2.0, 1.3], &[1.0, 1.1, 1.2]];
        let (spread, time) = best(&[4, 5, 6], &times, 15).unwrap();
        assert_eq!(spread, [4, 6, 5]);
        assert_relative_eq!(time, 3.4, max_relative = 1e-12);
        for total in 12..=20 {
            let (_, found) = best(&[4, 5, 6], &times, total).unwrap();
            let mut least = f64::INFINITY;
            for choice in 0..27 {
                let more = [choice % 3, choice / 3 % 3, choice / 9];
                if 12 + more.iter().sum::<usize>() <= total {
                    least = least.min((0..3).map(|layer| times[more[layer]][layer]).sum());
                }
            }
            assert_relative_eq!(found, least, max_relative = 1e-12);
        }
        assert_eq!(best(&[4, 5, 6], &times, 11), None);
    }
}
