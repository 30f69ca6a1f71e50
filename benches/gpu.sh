#!/usr/bin/env bash
# Measures this machine's GPU: one JSON record on standard output, progress on standard error.
#
#     benches/gpu.sh [--short] [--device DEVICE] [--commit ID] [EPLB [PLANS]] >record.json
#
# It needs a driver, bash and the two binaries, built elsewhere: EPLB is the `eplb` command and PLANS the benchmark
# `plans` (`cargo build --release`, `cargo bench --bench plans --no-run`). Without them it takes target/release/eplb
# and the newest target/release/deps/plans-* of the tree that it lies in. The steps:
#
#   1. `eplb devices`: every adapter, with its kind, driver and limits;
#   2. `eplb check --fingerprints` on DEVICE (`gpu`, the first usable adapter, where none is said): the plans of a
#      fixed list of cases against what every device has to come to;
#   3. `plans --only devices`: times of `default`, `fast` and `thorough` on eight shapes, each beside the CPU backend
#      and a plain greedy planner in the same run. --short: two presets on three small shapes.
#
# It takes less than 8 minutes: what would take longer is left out, and the record says so. Every row has the
# adapter's name and kind: a software driver is never taken for a GPU. Exit code 0 where every plan is as it has to
# be, 1 where one is not (the record is written), 2 where something is missing.
set -euo pipefail

# Seconds of each step; a row that has begun is finished within the second limit or given up.
fingerprint_limit=120
rows_begin=180
rows_limit=330

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
[ ${#paths[@]} -le 2 ] || fail "more than two binaries: ${paths[*]}"

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
[ -n "$plans" ] || fail "no plans-* in $here/target/release/deps: run cargo bench --bench plans --no-run, or name it"
for binary in "$eplb" "$plans"; do
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

began=$SECONDS
worst=0

say "adapters"
devices=$("$eplb" devices --json) || fail "$eplb devices failed: does it run on this machine?"

say "fingerprints on $device, at most $fingerprint_limit s"
code=0
fingerprints=$(timeout "$fingerprint_limit" "$eplb" check --fingerprints --device "$device" --json) || code=$?
case $code in
0) ;;
1) worst=1 && say "fingerprints differ: see the record" ;;
124)
    worst=1
    say "fingerprints took more than $fingerprint_limit s"
    fingerprints='{"left_out":"out of time"}'
    ;;
*) fail "$eplb check failed on device $device with exit code $code: is there a driver, and its loader (libvulkan)?" ;;
esac

say "plans on $device, at most $rows_limit s"
arguments=(--only devices --device "$device" --seconds "$rows_begin" --json)
if $short; then arguments+=(--short --share 0.1); fi
code=0
lines=$(timeout "$rows_limit" "$plans" "${arguments[@]}") || code=$?
cut=false
case $code in
0) ;;
124) cut=true && say "a row did not end within $rows_limit s: the rows before it are in the record" ;;
*) fail "$plans failed on device $device with exit code $code" ;;
esac
case $lines in *'"equal":false'*) worst=1 && say "a plan differs from the CPU backend's: see the record" ;; esac

# The first line says what the rows were measured with.
setting=null
rows=
while IFS= read -r line; do
    case $line in
    '') ;;
    *'"table":'*) rows+=${rows:+,$'\n'}$line ;;
    *) setting=$line ;;
    esac
done <<<"$lines"

cat <<END
{"format":"eplb-gpu/1","short":$short,"device":$(quoted "$device"),"commit":$(quoted "${commit:-unknown}"),
"system":$(quoted "$(uname -srm)"),"seconds":$((SECONDS - began)),"cut":$cut,
"devices":$devices,
"fingerprints":$fingerprints,
"setting":$setting,
"rows":[
$rows
]}
END
exit "$worst"
