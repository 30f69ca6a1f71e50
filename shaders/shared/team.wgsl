// A team: the lanes of a workgroup, which share one candidate. Lane 0 leads.
//
// All lanes reach each barrier: a branch around one depends on uniforms alone, or on a word that the leader told.

override TEAM: u32 = 8u;         // lanes of a workgroup

var<private> lane: u32;
var<private> leads: bool;
var<workgroup> word_told: u32;
var<workgroup> sums_reported: array<u32, TEAM>;
var<workgroup> ranks_reported: array<vec2<u32>, TEAM>;

// Two words to compare choices by, the least is best: an amount, then what makes the order total.
const NO_RANK: vec2<u32> = vec2<u32>(NONE, NONE);

fn is_less(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.x < b.x || (a.x == b.x && a.y < b.y);
}

// Takes the queued candidate of this workgroup, if there is one. (One way out: of a return before the end Direct3D's
// compiler FXC says that it leaves the result unset, and the barriers after it in varying control flow.)
fn take_team(at: Invocation) -> bool {
    take_params();
    lane = at.lane;
    leads = lane == 0u;
    // Told, so that a compiler knows it as uniform: the struct it comes in holds the lane too.
    let place = told(workgroup_of(at));
    let is_queued = place < told(queued());
    if is_queued {
        take_candidate(queued_candidate(place));
    }
    return is_queued;
}

// The leader's word, for all lanes.
fn told(word: u32) -> u32 {
    if leads {
        word_told = word;
    }
    return workgroupUniformLoad(&word_told);
}

fn least_of_team(own: vec2<u32>) -> vec2<u32> {
    ranks_reported[lane] = own;
    workgroupBarrier();
    var least = NO_RANK;
    for (var i = 0u; i < TEAM; i += 1u) {
        least = select(least, ranks_reported[i], is_less(ranks_reported[i], least));
    }
    workgroupBarrier();
    return least;
}

fn most_of_team(own: u32) -> u32 {
    return ~least_of_team(vec2<u32>(~own, 0u)).x;
}

// (Not by `sums_reported`: naga 30 mixes up the types of two arrays of `TEAM` where the one of words is met first.)
fn sum_of_team(own: u32) -> u32 {
    ranks_reported[lane] = vec2<u32>(own, 0u);
    workgroupBarrier();
    var sum = 0u;
    for (var i = 0u; i < TEAM; i += 1u) {
        sum += ranks_reported[i].x;
    }
    workgroupBarrier();
    return sum;
}

// The sum over the lanes before this one.
fn sum_before(own: u32) -> u32 {
    sums_reported[lane] = own;
    workgroupBarrier();
    var sum = 0u;
    for (var i = 0u; i < TEAM; i += 1u) {
        sum += select(0u, sums_reported[i], i < lane);
    }
    workgroupBarrier();
    return sum;
}
