#!/usr/bin/env bash
# Makes the package for browsers and its pages: wasm, JavaScript, types.
#
#     web/build.sh [FOLDER]
#
# Exit codes: 0 made, in FOLDER (target/web-package where none is named); 1 not; 3 what it needs cannot be had here.
#
# It installs Rust's target wasm32-unknown-unknown by rustup where that is missing. `wasm-bindgen` the command is not
# needed: web/build/ is a program of the same code, of the version that Cargo.lock has. The pages ask for nothing but
# their own files: any server of files will do, as `python3 -m http.server`. Browsers have WebGPU on https and on localhost.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${1:-target/web-package}
target=wasm32-unknown-unknown
built=${CARGO_TARGET_DIR:-target}/$target/web/eplb_wgpu.wasm

if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    command -v rustup >/dev/null && rustup target add "$target" || {
        printf 'web/build.sh: the target %s of Rust cannot be had\n' "$target" >&2
        exit 3
    }
fi
cargo build --locked --quiet --profile web --target "$target" -p eplb-wgpu-web
mkdir -p "$out"
# Its own code is run for some seconds alone, but that is much faster optimised.
cargo run --locked --quiet --release -p eplb-wgpu-web-build -- "$built" "$out"
cp web/pages/* "$out"
printf '%s: %s bytes of wasm, %s packed by gzip\n' "$out" \
    "$(wc -c <"$out/eplb_wgpu_bg.wasm")" "$(gzip -9c "$out/eplb_wgpu_bg.wasm" | wc -c)"
