#!/usr/bin/env bash
# Changes the code that judges, bounds and searches (`check`, `bound`, `mirror`, `replan`) in one place at a time, and tells
# which changes no test notices: src/.. with what was changed, in target/mutants/mutants.out/missed.txt.
#
#     tests/mutants.sh                # all of them: a day on two cores
#     tests/mutants.sh --shard 0/36   # a sample, spread over all files
#     tests/mutants.sh --file src/check.rs
#
# Arguments are those of `cargo mutants`. What is changed, and which changes are none, is in .cargo/mutants.toml.
# Exit codes: 0 every change is noticed; 1 a tool is missing; others are those of cargo-mutants (2 some are not, 3 some
# take too long, 4 the tests fail as they are).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo mutants --version >/dev/null 2>&1 || {
    echo "tests/mutants.sh: cargo-mutants is missing: cargo install cargo-mutants --locked" >&2
    exit 1
}
mkdir -p target/mutants

judge() { cargo mutants --sharding round-robin --no-default-features --output target/mutants "$@"; }

# First by the unit tests that are quick, which notice nearly all; then what is left by all that need no device.
rm -rf target/mutants/mutants.out
code=0
quick=(--skip no_plan_is_worse_than_greedy --skip a_larger_budget --skip more_assignments)
judge -C=--lib "$@" -- -- "${quick[@]}" || code=$?
[ "$code" -eq 2 ] || [ "$code" -eq 3 ] || exit "$code"
tests=(oracle cases combinations one_window shares rebalance replan_speeds)
judge --iterate --features files -C=--lib "${tests[@]/#/-C=--test=}" "$@"
