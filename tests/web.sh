#!/usr/bin/env bash
# The package for browsers and its pages in Chromium without a window: fingerprints, plans from a dropped file, the
# benchmark page and its record, devices that are refused or lost, and no adapter at all.
#
#     tests/web.sh
#
# Exit codes: 0 all is as it should be; 1 it is not; 3 what it needs cannot be had here.
#
# The CPU backend in wasm and WebGPU, which here is SwiftShader, a software driver and no GPU, make all the plans whose
# fingerprints are committed, and the page the whole suite. Pictures of the pages and their files are left in target/web-out. It needs rustup, Chromium, and Node.js 18 or later to drive it, and installs the last two by apt-get
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
"") ;;
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

bash web/build.sh target/web-package
mkdir -p "$out"
timeout 900 node tests/web/run.mjs target/web-package chromium "$out"

# What the pages have written is what the command reads.
eplb=(cargo run --locked --quiet --bin eplb --)
"${eplb[@]}" bench --collate "$out/bench.json" >/dev/null
"${eplb[@]}" check "$out/loads.json" "$out/plan.json" >/dev/null
printf 'the command reads the record and the plan of the pages\n'
