//! Compares replica counts, and proves of a difference that it is a near-tie.

use std::fmt;

use approx::relative_eq;

/// Quotients closer than this, relatively, are not told apart by the float32 of the answers.
const NEAR: f64 = 1e-6;

/// The next replica could as well go to the one as to the other.
#[derive(Debug, PartialEq)]
pub struct NearTie {
    /// Who got it here: expert, and the load of its replicas before.
    ours: (usize, f64),
    /// Who got it in the answer.
    theirs: (usize, f64),
}

impl fmt::Display for NearTie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((ours, at), (theirs, other)) = (self.ours, self.theirs);
        write!(f, "expert {ours} at {at} for expert {theirs} at {other}")
    }
}

/// No difference, a proven near-tie, or what differs.
///
/// A near-tie of the rule "the next replica goes to the highest load per replica" shows as one expert with one
/// replica more and another with one less; before that replica both had the same load per replica, to within
/// [`NEAR`].
pub fn compare(loads: &[f64], ours: &[u32], theirs: &[u32]) -> Result<Option<NearTie>, String> {
    let differing: Vec<usize> = (0..loads.len()).filter(|&expert| ours[expert] != theirs[expert]).collect();
    let before = |expert: usize| (expert, loads[expert] / f64::from(ours[expert].min(theirs[expert])));
    let one_more = |more: &[u32], less: &[u32], expert: usize| more[expert] == less[expert] + 1;
    let (ours_more, theirs_more) = match differing[..] {
        [] => return Ok(None),
        [a, b] if one_more(ours, theirs, a) && one_more(theirs, ours, b) => (a, b),
        [a, b] if one_more(ours, theirs, b) && one_more(theirs, ours, a) => (b, a),
        _ => {
            let counts: Vec<_> = differing.iter().map(|&e| (e, loads[e], ours[e], theirs[e])).collect();
            return Err(format!("(expert, load, our replicas, theirs): {counts:?}"));
        }
    };
    let tie = NearTie { ours: before(ours_more), theirs: before(theirs_more) };
    let (a, b) = (tie.ours.1, tie.theirs.1);
    if relative_eq!(a, b, max_relative = NEAR) { Ok(Some(tie)) } else { Err(format!("no near-tie: {tie}")) }
}

#[test]
fn only_a_near_tie_excuses_a_difference() {
    let loads = [300.0, 200.0, 100.0, 100.00005];
    assert_eq!(compare(&loads, &[3, 2, 1, 1], &[3, 2, 1, 1]), Ok(None));
    let tie = compare(&loads, &[3, 2, 2, 1], &[3, 2, 1, 2]).unwrap().unwrap();
    assert_eq!(tie.to_string(), "expert 2 at 100 for expert 3 at 100.00005");
    assert_eq!(compare(&loads, &[3, 2, 1, 2], &[3, 2, 2, 1]).unwrap().unwrap().ours.0, 3);
    assert_eq!(compare(&loads, &[4, 2, 1, 1], &[3, 3, 1, 1]).unwrap().unwrap().theirs, (1, 100.0));
    // Not near: 300 / 2 is more than 200 / 2.
    assert!(compare(&loads, &[3, 2, 1, 1], &[2, 3, 1, 1]).is_err());
    // Two replicas moved, or one came from nowhere.
    assert!(compare(&loads, &[5, 2, 1, 1], &[3, 4, 1, 1]).is_err());
    assert!(compare(&loads, &[4, 2, 1, 1], &[3, 2, 1, 1]).is_err());
    assert!(compare(&loads, &[3, 2, 2, 2], &[3, 2, 1, 1]).is_err());
}
