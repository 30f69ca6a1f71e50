//! Shared by the searches that take the GPUs of a node abreast, some at a time, so that compilers use vectors.

/// A GPU and its load in one window.
#[derive(Clone, Copy, Debug)]
pub struct Top {
    /// Which GPU.
    pub gpu: usize,
    /// Its load; -1 where there is none.
    pub load: i32,
}

/// The heaviest GPU, the lower of equals. `loads` is whole in `N`, and padded by -1.
#[inline(always)]
pub fn heaviest<const N: usize>(loads: &[i32]) -> Top {
    let mut most = [-1; N];
    for loads in loads.as_chunks::<N>().0 {
        for lane in 0..N {
            most[lane] = most[lane].max(loads[lane]);
        }
    }
    let mut top = Top { gpu: 0, load: -1 };
    for load in most {
        top.load = top.load.max(load);
    }
    while top.gpu + 1 < loads.len() && loads[top.gpu] != top.load {
        top.gpu += 1;
    }
    top
}

/// The three heaviest GPUs, the heaviest first.
#[inline(always)]
pub fn three_heaviest<const N: usize>(loads: &mut [i32]) -> [Top; 3] {
    let first = heaviest::<N>(loads);
    loads[first.gpu] = -1;
    let second = heaviest::<N>(loads);
    let load = std::mem::replace(&mut loads[second.gpu], -1);
    let third = heaviest::<N>(loads);
    loads[second.gpu] = load;
    loads[first.gpu] = first.load;
    [first, second, third]
}

/// Fills an array anew.
#[inline(always)]
pub fn refill<T: Clone>(array: &mut Vec<T>, len: usize, value: T) {
    array.clear();
    array.resize(len, value);
}
