#!/usr/bin/env bash
# Measures this machine's GPU: one JSON record on standard output, progress on standard error.
#
#     benches/gpu.sh [--short] [--device DEVICE] [--commit ID] [EPLB [PLANS [SUITE]]] >record.json
#
# It needs a driver, bash and three binaries, built elsewhere: EPLB is the `eplb` command, PLANS the benchmark `plans` and
# SUITE the tests of the library (`cargo build --release`, `cargo bench --bench plans --no-run`, `cargo test --release --lib
# --no-run`). Without them it takes target/release/eplb, and the newest plans-* and eplb_wgpu-* of target/release/deps, of the
# tree that it lies in; tests that are not there are left out. DEVICE is `gpu`, the first usable adapter, where none is
# said. The steps:
#
#   1. `eplb devices`: every adapter, with its kind, driver and limits;
#   2. `eplb check --fingerprints`: the plans of a fixed list of cases against what every device has to come to;
#   3. `eplb bench`: the record that `eplb bench --collate` joins with those of other machines: first plans and later ones,
#      stages by the device's clock;
#   4. `plans --only tunings`: other sizes of workgroups and of batches than those the device is given, in turns;
#   5. `plans --only starts`: one layer by 1 start to 65,536;
#   6. `plans --only devices`: times of `default`, `fast` and `thorough` on eight shapes, the first plan and later ones,
#      each beside the CPU backend and a plain greedy planner in the same run;
#   7. the tests `device::` of the library: each stage and whole plans against the CPU backend, and what a driver does wrong.
#
# --short: fewer and smaller rows, a part of the fingerprints and of the suite, for software drivers.
#
# It takes less than 8 minutes: what would take longer is left out, and the record says so. Every row has the device's
# name: a software driver is never taken for a GPU. Exit code 0 where every plan is as it has to be, 1 where one is not
# (the record is written), 2 where something is missing.
set -euo pipefail

# Seconds of each step. No row begins after the first number; one that has begun is given up after the second.
fingerprints_limit=100
bench_limit=60
declare -A begin=([tunings]=45 [starts]=45 [devices]=110)
declare -A limit=([tunings]=60 [starts]=60 [devices]=140)
# All of it: the device suite, which is the last, has what is left.
whole_limit=470

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf 'gpu.sh: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 2
}

short=false
device=gpu
commit=
paths=()
while [ $# -gt 0 ]; do
    case $1 in
    --short) short=true ;;
    --device | --commit)
        [ $# -gt 1 ] || fail "$1 needs a value"
        if [ "$1" = --device ]; then device=$2; else commit=$2; fi
        shift
        ;;
    -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    -*) fail "unknown option $1; see --help" ;;
    *) paths+=("$1") ;;
    esac
    shift
done
[ ${#paths[@]} -le 3 ] || fail "more than three binaries: ${paths[*]}"

# newest FILE...: the newest of those that can be run, or nothing.
newest() {
    local file found=
    for file in "$@"; do
        if [ -f "$file" ] && [ -x "$file" ] && { [ -z "$found" ] || [ "$file" -nt "$found" ]; }; then
            found=$file
        fi
    done
    printf '%s' "$found"
}

eplb=${paths[0]:-$here/target/release/eplb}
plans=${paths[1]:-$(newest "$here"/target/release/deps/plans-*)}
suite=${paths[2]:-$(newest "$here"/target/release/deps/eplb_wgpu-*)}
[ -n "$plans" ] || fail "no plans-* in $here/target/release/deps: run cargo bench --bench plans --no-run, or name it"
for binary in "$eplb" "$plans" ${suite:+"$suite"}; do
    [ -f "$binary" ] || fail "$binary is missing: build it (see --help), or name it"
    [ -x "$binary" ] || fail "$binary is not executable"
done
command -v timeout >/dev/null || fail "timeout (of coreutils) is missing"

# Mesa's device selection asks a Wayland display for its GPU, and complains aloud where there is none.
[ -n "${XDG_RUNTIME_DIR:-}" ] || export NODEVICE_SELECT=1

# quoted TEXT: TEXT as a JSON string.
quoted() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//[$'\001'-$'\037']/ }
    printf '"%s"' "$text"
}

# within SECONDS COMMAND...: its output in `found`, its exit code in `code`; 124 where it was cut short.
within() {
    code=0
    found=$(timeout "$@") || code=$?
}

began=$SECONDS
worst=0

# wrong WORDS...: goes on, to exit code 1.
wrong() {
    worst=1
    say "$*"
}

say "adapters"
devices=$("$eplb" devices --json) || fail "$eplb devices failed: does it run on this machine?"

say "fingerprints on $device, at most $fingerprints_limit s"
only=()
if $short; then only=(--only hierarchical --only slots); fi
within "$fingerprints_limit" "$eplb" check --fingerprints --device "$device" --json ${only[@]+"${only[@]}"}
fingerprints=$found
case $code in
0) ;;
1) wrong "fingerprints differ: see the record" ;;
124)
    wrong "fingerprints took more than $fingerprints_limit s"
    fingerprints='{"left_out":"out of time"}'
    ;;
*) fail "$eplb check failed on device $device with exit code $code: is there a driver, and its loader (libvulkan)?" ;;
esac

say "the suite of eplb bench, at most $bench_limit s"
within "$bench_limit" "$eplb" bench --device "$device" --json
bench=$found
case $code in
0) ;;
124) bench='{"left_out":"out of time"}' && say "eplb bench took more than $bench_limit s" ;;
*) wrong "$eplb bench failed with exit code $code" && bench=${found:-null} ;;
esac

# The first line of `plans` says what the rows were measured with.
setting=null
rows=
cut=
for section in tunings starts devices; do
    say "$section, at most ${limit[$section]} s"
    arguments=(--only "$section" --device "$device" --seconds "${begin[$section]}" --json)
    if $short; then arguments+=(--short --share 0.1); fi
    within "${limit[$section]}" "$plans" "${arguments[@]}"
    case $code in
    0) ;;
    124) cut+=${cut:+,}$(quoted "$section") && say "a row did not end in time: the rows before it are in the record" ;;
    *) wrong "$plans --only $section failed on device $device with exit code $code" ;;
    esac
    case $found in *'"equal":false'*) wrong "a plan differs from the CPU backend's: see the record" ;; esac
    while IFS= read -r line; do
        case $line in
        '') ;;
        *'"table":'*) rows+=${rows:+,$'\n'}$line ;;
        *) setting=$line ;;
        esac
    done <<<"$found"
done

tested='{"left_out":"no binary of it"}'
if [ -n "$suite" ]; then
    suite_limit=$((whole_limit - SECONDS + began))
    say "the device suite, at most $suite_limit s"
    if $short; then export EPLB_TEST_SHORT=1; fi
    EPLB_TEST_DEVICE=$device within "$suite_limit" "$suite" device::
    case $code in
    0) ;;
    124) cut+=${cut:+,}$(quoted suite) && say "the device suite did not end in time" ;;
    *) wrong "the device suite failed: see the record" ;;
    esac
    tested="{\"exit_code\":$code,\"passed\":$(grep -c ' \.\.\. ok$' <<<"$found" || true),\"failed\":["
    failed=
    while IFS= read -r line; do
        case $line in *' ... FAILED') failed+=${failed:+,}$(quoted "${line% ... FAILED}") ;; esac
    done <<<"$found"
    tested+="$failed]}"
fi

cat <<END
{"format":"eplb-gpu/2","short":$short,"device":$(quoted "$device"),"commit":$(quoted "${commit:-unknown}"),
"system":$(quoted "$(uname -srm)"),"seconds":$((SECONDS - began)),"cut":[$cut],
"devices":$devices,
"fingerprints":$fingerprints,
"bench":$bench,
"suite":$tested,
"setting":$setting,
"rows":[
$rows
]}
END
exit "$worst"
