#!/usr/bin/env bash
# The package for browsers and its pages in Chromium without a window: fingerprints, plans from a dropped file, the
# benchmark page and its record, devices that are refused or lost, and no adapter at all. And the pages of `eplb report`.
#
#     tests/web.sh            all of it
#     tests/web.sh report     the pages of `eplb report` alone, in half a minute
#
# Exit codes: 0 all is as it should be; 1 it is not; 3 what it needs cannot be had here.
#
# The CPU backend in wasm and WebGPU, which here is SwiftShader, a software driver and no GPU, make all the plans whose
# fingerprints are committed, and the page the whole suite. Pictures of the pages and their files are left in
# target/web-out. It needs rustup, Chromium, and Node.js 18 or later to drive it, and installs the last two by apt-get
# where they are missing; nothing comes from npm.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=target/web-out

lacks() {
    printf 'tests/web.sh: %s\n' "$*" >&2
    exit 3
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

case ${1:-} in
"" | report) ;;
*)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac

if ! command -v chromium >/dev/null || ! command -v node >/dev/null; then
    command -v apt-get >/dev/null || lacks "needs chromium and node"
    # Package lists may be partly unreachable and still hold what is needed.
    as_root apt-get update -q || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium nodejs ||
        lacks "cannot install chromium and nodejs"
fi

mkdir -p "$out"
eplb=(cargo run --locked --quiet --bin eplb --)

# Pages by the command, of generated loads: one plan, a plan from another one, a replay and advice, and single charts.
make_reports() {
    local to=$1 shape=(--replicas 160 --gpus 32 --nodes 4 --groups 8 --device cpu)
    "${eplb[@]}" generate --layers 6 --experts 64 --windows 6 --drift 0.3 --out "$to/small.npy"
    "${eplb[@]}" plan "$to/small.npy" --replicas 80 --gpus 16 --device cpu --out "$to/small.json"
    "${eplb[@]}" report "$to/small.npy" "$to/small.json" -o "$to/plan.html" --svg "$to/charts"
    "${eplb[@]}" generate --layers 94 --experts 128 --windows 8 --drift 0.4 --family zipf:1.1 --out "$to/large.npy"
    "${eplb[@]}" plan "$to/large.npy" --window 0 "${shape[@]}" --preset fast --out "$to/old.json"
    "${eplb[@]}" plan "$to/large.npy" --window 7 --previous "$to/old.json" --max-moves 30% --device cpu --out "$to/new.json"
    "${eplb[@]}" report "$to/large.npy" "$to/old.json" "$to/new.json" --expert-bytes 9MiB -o "$to/moves.html"
    "${eplb[@]}" replay "$to/small.npy" --replicas 80 --gpus 16 --device cpu --json >"$to/replay.json"
    "${eplb[@]}" advise "$to/small.npy" --gpus 16 --nodes 1,2 --groups 4 --device cpu --json >"$to/advice.json"
    "${eplb[@]}" report --replay "$to/replay.json" --advice "$to/advice.json" -o "$to/replay.html"
}

rm -rf "$out/reports"
mkdir "$out/reports"
make_reports "$out/reports" >"$out/reports/said.txt"
timeout 300 node tests/web/report.mjs "$out/reports" chromium "$out"
[ "${1:-}" != report ] || exit 0

bash web/build.sh target/web-package
timeout 900 node tests/web/run.mjs target/web-package chromium "$out"

# The command reads what the pages have written.
"${eplb[@]}" bench --collate "$out/bench.json" >/dev/null
"${eplb[@]}" check "$out/loads.json" "$out/plan.json" >/dev/null
printf 'the command reads the record and the plan of the pages\n'
