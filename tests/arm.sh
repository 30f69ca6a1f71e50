#!/usr/bin/env bash
# The CPU backend on 64-bit Arm, as the ranks on Grace hosts run it: fingerprints of an optimised build for
# aarch64 Linux, compared with the committed ones.
#
#     tests/arm.sh
#
# Exit codes: 0 the plans are the committed ones; 1 they are not; 3 what it needs cannot be had here.
#
# This is qemu's user mode, which translates the program's instructions: not Arm hardware. It shows that the code
# which the compiler makes for Arm, NEON included, comes to the same plans; it says nothing about time.
# On Debian and Ubuntu it installs what is missing (a cross linker, Arm's C library, qemu), and Rust's target by rustup.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=aarch64-unknown-linux-gnu
# Where Debian's cross compiler has Arm's C library and its loader.
libraries=/usr/aarch64-linux-gnu

fail() {
    printf 'tests/arm.sh: %s\n' "$*" >&2
    exit 1
}

# Where what the script needs cannot be had here, which is no fault of the plans.
lacks() {
    printf 'tests/arm.sh: %s\n' "$*" >&2
    exit 3
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

has_packages() {
    command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64 >/dev/null &&
        [ -e "$libraries/lib/ld-linux-aarch64.so.1" ]
}

if ! has_packages; then
    command -v apt-get >/dev/null || lacks "needs aarch64-linux-gnu-gcc, Arm's C library and qemu-aarch64: please install them"
    # Package lists may be partly unreachable and still hold what is needed.
    as_root apt-get update -q || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user || lacks "cannot install gcc-aarch64-linux-gnu and qemu-user"
    has_packages || lacks "gcc-aarch64-linux-gnu and qemu-user are installed, and still something is missing"
fi
command -v rustup >/dev/null || lacks "needs rustup, to install Rust's target $target"
rustup target add "$target" || lacks "Rust's target $target cannot be had"

# Without `gpu`: there is no driver to ask. Without debug information, which only takes time here.
CARGO_PROFILE_RELEASE_DEBUG=false CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    cargo build --locked --release --target "$target" --no-default-features --features cli --bin eplb

printf '\nqemu-aarch64 %s, not hardware:\n' "$(qemu-aarch64 --version | sed -n 's/.*version \([^ ]*\).*/\1/p')"
for threads in 1 2; do
    printf -- '-- %s thread(s)\n' "$threads"
    RAYON_NUM_THREADS=$threads qemu-aarch64 -L "$libraries" "${CARGO_TARGET_DIR:-target}/$target/release/eplb" \
        check --fingerprints --device cpu || fail "the fingerprints are not the committed ones"
done
