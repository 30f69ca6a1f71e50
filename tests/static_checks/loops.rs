//! Every loop of a shader ends. The engine has wgpu leave out the counters by which it would end them
//! (`src/engine/trusted.rs`), and this is the proof.

use eplb_wgpu::testing::ShaderUnit;

use crate::text::without_comments;

/// Loops that are no counting `for`, by their function and their head, and why each ends.
const PROVEN: &[(&str, &str, &str)] = &[
    (
        "keep_weighed",
        "while at > 0u && groups[kept_at(state, at - 1u) + KEPT_BOUND] > bound",
        "`at` falls by 1 in each turn",
    ),
    (
        "lightest_heaviest",
        "while doubles || low < high",
        "`high` doubles until all loads are at most `high`, when the node's experts fit, one replica each; loads are \
         below 2^31; then `high - low` halves in each turn",
    ),
    (
        "see",
        "while single_rank == passed_rank",
        "each turn passes one of `several` entries, and then there is none",
    ),
    ("pack_in_registers", "while item < params.end", "`item` rises by 1 in each turn, or the loop is left"),
    // The descent: a machine, which counts trips in each turn and stops when its fuel is spent.
    ("descend", "while ended == END_RUNNING && spent < params.fuel", DESCENT_FUEL),
    ("descend", "while phase == PHASE_SWAP && spent < params.fuel", DESCENT_FUEL),
    ("descend", "while phase == PHASE_PAIR && spent < params.fuel", DESCENT_FUEL),
    ("descend", "while phase == PHASE_SPLIT && ended == END_RUNNING && spent < params.fuel", DESCENT_FUEL),
];

const DESCENT_FUEL: &str =
    "`spent` rises in each turn, but in the one that makes the best swap, which leaves the phase";

/// A loop: its words up to the body, and the place where it lies.
struct Loop<'a> {
    line: usize,
    function: &'a str,
    /// Its function up to it.
    before: &'a str,
    head: &'a str,
    body: &'a str,
}

/// All loops of a text without comments.
fn loops(text: &str) -> Vec<Loop<'_>> {
    let mut found = Vec::new();
    for word in ["for", "while", "loop"] {
        for (at, _) in text.match_indices(word) {
            if !is_word(text, at, word.len()) {
                continue;
            }
            let Some(open) = text[at..].find('{').map(|open| at + open) else { continue };
            let before = text[..at].rfind("fn ").map_or("", |begin| &text[begin + 3..at]);
            found.push(Loop {
                line: text[..at].matches('\n').count() + 1,
                function: before.split('(').next().unwrap_or(""),
                before,
                head: text[at..open].trim(),
                body: &text[open..open + block_length(&text[open..])],
            });
        }
    }
    found
}

fn is_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_word(text: &str, at: usize, length: usize) -> bool {
    !text[..at].ends_with(|c| is_part(c) || c == '.') && !text[at + length..].starts_with(is_part)
}

/// Bytes up to the brace that closes the first one.
fn block_length(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at,
            '}' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// Names, of `a.b` the first.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(is_part(c) || c == '.'));
    words.filter(|word| !word.starts_with(|c: char| c.is_ascii_digit())).filter_map(|word| {
        let name = word.split('.').next();
        name.filter(|name| !name.is_empty())
    })
}

/// Whether a name, or a member of it, is given a value in a block.
fn is_assigned(block: &str, name: &str) -> bool {
    block.match_indices(name).filter(|(at, _)| is_word(block, *at, name.len())).any(|(at, _)| {
        let rest = block[at + name.len()..].trim_start_matches(|c| is_part(c) || c == '.').trim_start();
        let after = rest.trim_start_matches(['+', '-', '*', '/', '%', '&', '|', '^', '<', '>']);
        let operator = &rest[..rest.len() - after.len()];
        after.starts_with('=') && !after.starts_with("==") && !matches!(operator, "<" | ">")
    })
}

/// The fault in a `for` that should count towards a bound, if there is one.
fn fault_of_for(Loop { before, head, body, .. }: &Loop<'_>, globals: &[&str]) -> Option<String> {
    let parts = head.strip_prefix("for (var ").and_then(|rest| rest.strip_suffix(')'));
    let parts: Vec<&str> = parts.map_or_else(Vec::new, |parts| parts.split(';').map(str::trim).collect());
    let [begin, condition, step] = parts[..] else { return Some("is not of three parts".into()) };
    let counter = begin.split(' ').next().unwrap_or("");
    if is_assigned(body, counter) {
        return Some(format!("gives {counter} another value"));
    }
    // More conditions end it sooner.
    let condition = condition.split("&&").next().unwrap_or("").trim();
    if step == format!("{counter} &= {counter} - 1u") {
        let ends = condition == format!("{counter} != 0u");
        return (!ends).then(|| "takes bit after bit, but not to the last".into());
    }
    let by =
        step.strip_prefix(counter).and_then(|rest| rest.trim_start().strip_prefix("+= ")).unwrap_or("0u");
    let is_constant =
        by == "TEAM" || by.strip_suffix('u').is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n > 0));
    if !is_constant {
        return Some(format!("does not count by a constant: {step}"));
    }
    let Some((left, bound)) = condition.split_once('<') else { return Some("has no upper bound".into()) };
    if !names(left).eq([counter]) || bound.starts_with('=') {
        return Some("has no upper bound".into());
    }
    let is_local =
        |name: &str| before.contains(&format!("let {name} =")) || before.contains(&format!("{name}: "));
    let changes = |name: &&str| is_assigned(body, name) || (globals.contains(name) && !is_local(name));
    names(bound).find(changes).map(|name| format!("has a bound that may change, {name}"))
}

/// Variables that any function may change; the copy of the uniform block, `params`, is made once.
fn globals(text: &str) -> Vec<&str> {
    let declared = text.split("var<").skip(1).filter(|rest| !rest.starts_with("uniform"));
    let names = declared.filter_map(|rest| names(rest.split_once('>')?.1).next());
    let is_changed = is_assigned(&text.replacen("params = dispatched;", "", 1), "params");
    names.filter(|&name| name != "params" || is_changed).collect()
}

/// Loops that may not end.
pub fn check(unit: &ShaderUnit) -> Vec<String> {
    let text = without_comments(&unit.source);
    let globals = globals(&text);
    let mut complaints = Vec::new();
    for found in loops(&text) {
        let Loop { line, function, head, .. } = found;
        let fault = if head.starts_with("for") {
            fault_of_for(&found, &globals)
        } else {
            let is_proven = PROVEN.iter().any(|&(of, known, _)| of == function && known == head);
            (!is_proven).then(|| "is not among those proven".into())
        };
        complaints.extend(fault.map(|fault| format!("line {line}: in {function}, {head} {fault}")));
    }
    complaints
}

mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fixture::{fails, passes, with};

    #[test]
    fn every_loop_ends() {
        crate::over_all(check);
    }

    #[test]
    fn no_proof_is_of_a_loop_that_is_gone() {
        let mut there = BTreeSet::new();
        for unit in eplb_wgpu::testing::shaders() {
            let text = without_comments(&unit.source);
            there.extend(loops(&text).iter().map(|l| (l.function.to_string(), l.head.to_string())));
        }
        for (function, head, _) in PROVEN {
            assert!(there.iter().any(|(f, h)| f == function && h == head), "{function}: {head}");
        }
    }

    /// The fixture with a loop.
    fn looping(text: &str) -> ShaderUnit {
        with("workgroupBarrier();", &format!("workgroupBarrier(); {text}"))
    }

    /// The same where lanes have a copy of the uniform block.
    fn copying(text: &str) -> ShaderUnit {
        let mut unit = looping(&format!("params = dispatched; {text}"));
        unit.source = unit.source.replacen("var<uniform> params", "var<uniform> dispatched", 1);
        unit.source = unit.source.replacen("fn share", "var<private> params: Params;\nfn share", 1);
        unit
    }

    #[test]
    fn counting_loops_pass() {
        passes(check);
        for good in [
            "for (var i = 0u; i < 4u; i += 1u) { partial[i] = 0u; }",
            "for (var i = lane; i < params.slots && partial[i] == 1u; i += 2u) { if i == 3u { continue; } }",
            "for (var i = 0u; i + 1u < min(params.slots, 8u); i += 1u) { let j = i <= 3u || i >= 4u; }",
            "for (var bits = lane; bits != 0u; bits &= bits - 1u) { partial[0] += bits; }",
        ] {
            assert_eq!(check(&looping(good)), Vec::<String>::new(), "{good}");
        }
    }

    #[test]
    fn loops_that_may_not_end_are_found() {
        for (bad, reason) in [
            ("while lane < 4u { }", "is not among those proven"),
            ("loop { break; }", "is not among those proven"),
            ("for (var i = 0u; i < 4u; i += lane) { }", "does not count by a constant"),
            ("for (var i = 0u; i < 4u; i += 0u) { }", "does not count by a constant"),
            ("for (var i = 0u; i < 4u; i += 1u) { i -= 1u; }", "gives i another value"),
            ("for (var i = 0u; i < 4u; i += 1u) { i >>= 1u; }", "gives i another value"),
            ("for (var i = 4u; i > 0u; i += 1u) { }", "has no upper bound"),
            ("for (var i = 0u; i <= 4u; i += 1u) { }", "has no upper bound"),
            ("var n = 4u; for (var i = 0u; i < n; i += 1u) { n += 1u; }", "may change, n"),
            ("for (var i = 0u; i < partial[0]; i += 1u) { share(i, i); }", "may change, partial"),
            ("for (var i = 1u; i != 2u; i &= i - 1u) { }", "not to the last"),
        ] {
            fails(check, &looping(bad), reason);
        }
        let counted = "for (var i = 0u; i < params.slots; i += 1u) { }";
        assert_eq!(check(&copying(counted)), Vec::<String>::new());
        fails(check, &copying(&format!("params.slots += 1u; {counted}")), "may change, params");
        fails(check, &copying(&format!("params = dispatched; {counted}")), "may change, params");
    }
}
