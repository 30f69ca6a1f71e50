#!/usr/bin/env bash
# Runs every test, and the device suite on every adapter of this machine.
#
# Where no adapter is found it installs a software Vulkan driver on Debian and Ubuntu, and elsewhere says what
# to install. EPLB_ALLOW_NO_ADAPTER=1 goes without: only what needs no device is tested then.
# The adapters that passed are left in target/tested-adapters, one a line: backend, a tab, name.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

passed=target/tested-adapters

say() { printf '\n== %s\n' "$*"; }

fail() {
    printf 'tests/run.sh: %s\n' "$*" >&2
    exit 1
}

# apt-get as root, by sudo where this is another user. Fails where neither will do.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else return 1; fi
}

# install WHAT PACKAGE...: installs packages on Debian and Ubuntu, else says what is missing.
install() {
    local what=$1
    shift
    command -v apt-get >/dev/null || fail "$what is missing, and there is no apt-get to install it: please do"
    say "installing $what: $*"
    # Package lists may be partly unreachable and still hold what is needed.
    as_root apt-get update -q || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" ||
        fail "$what cannot be installed: as root, apt-get install $*"
}

# Lines of `adapter <index> <backend> <name> <remark>`, tab-separated; see tests/device/adapters.rs.
adapters() {
    EPLB_ALLOW_NO_ADAPTER=1 cargo test --locked --quiet --test device -- --exact --nocapture \
        adapters::every_adapter_is_listed | grep $'^adapter\t' || true
}

usable() { grep -v $'\tunusable: ' <<<"$1" | grep $'^adapter\t' || true; }

command -v cargo >/dev/null || fail "cargo is missing: https://rustup.rs"
command -v cc >/dev/null || install "a linker for Rust" gcc libc6-dev

# Mesa's device selection asks a Wayland display for its GPU, and complains aloud where there is none.
[ -n "${XDG_RUNTIME_DIR:-}" ] || export NODEVICE_SELECT=1

say "building"
cargo test --locked --no-run

found=$(adapters)
if [ -z "$(usable "$found")" ] && [ "${EPLB_ALLOW_NO_ADAPTER:-}" != 1 ]; then
    install "a Vulkan driver (Mesa's software driver will do)" mesa-vulkan-drivers libvulkan1
    found=$(adapters)
    [ -n "$(usable "$found")" ] || fail "no adapter is found even so; see WGPU_BACKEND and vulkaninfo"
fi

say "adapters"
printf '%s\n' "${found:-none}"

mkdir -p "$(dirname "$passed")"
: >"$passed"
rest=$(usable "$found")
first=${rest%%$'\n'*}

# suite ADAPTER-LINE CARGO-ARGUMENTS...: the tests with this adapter as the device of the device suite.
suite() {
    local index backend name
    IFS=$'\t' read -r _ index backend name _ <<<"$1"
    shift
    local short=${EPLB_TEST_SHORT:-}
    # SwiftShader is ten times slower than the other software drivers; on GL, llvmpipe compiles for minutes.
    case $name in *SwiftShader*) short=1 ;; esac
    case $backend in gl) short=1 ;; esac
    EPLB_TEST_DEVICE=$index EPLB_TEST_SHORT=$short cargo test --locked "$@"
    printf '%s\t%s\n' "$backend" "$name" >>"$passed"
}

# The whole plans and single stages are among the unit tests, which see the inside.
device_suite() {
    suite "$1" --test device
    suite "$1" --lib device::
}

if [ -z "$first" ]; then
    say "every test that needs no device"
    cargo test --locked
else
    say "every test, on $(cut -f 3,4 <<<"$first")"
    suite "$first"
    while IFS= read -r line; do
        [ "$line" != "$first" ] || continue
        say "the device suite, on $(cut -f 3,4 <<<"$line")"
        device_suite "$line" </dev/null
    done <<<"$rest"
fi

say "passed${first:+ on}"
cat "$passed"
