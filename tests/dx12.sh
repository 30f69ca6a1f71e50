#!/usr/bin/env bash
# The command on Direct3D 12, without Windows: an optimised Windows build under Wine, its fingerprints compared with
# the committed ones.
#
#     tests/dx12.sh
#
# Exit codes: 0 the plans are the committed ones; 1 they are not; 3 what it needs cannot be had here.
#
# The script runs Microsoft's HLSL compiler (d3dcompiler_47.dll, FXC) and Wine's vkd3d on Mesa's lavapipe: not Windows, and no
# GPU, though the adapter calls itself an integrated NVIDIA card, so that it gets the shaders as they are for GPUs. `auto`
# must not take it for one (`kind_of` in src/engine/device.rs says how it is told).
#
# Wine 10 is needed, of Debian 13 (Wine 8 refuses descriptor tables): it runs in a chroot, which is made once by
# debootstrap and kept in EPLB_DX12_CHROOT (~/.cache/eplb-wgpu/dx12 where that is not set; 1.5 GB). For that it must be
# root, by sudo where this is another user, on Debian or Ubuntu. FXC is in the npm package `webgpu`, which tests/tint
# pins; it is never committed, and none of our files ship it.
#
# DXC, the other compiler that wgpu knows, makes code of shader model 6 alone, and the vkd3d of Wine 10 says 5.1: with
# WGPU_DX12_COMPILER=dxc and its dxcompiler.dll wgpu takes no adapter ("device dx12 is not here; found: none").
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

chroot=${EPLB_DX12_CHROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/eplb-wgpu/dx12}
suite=trixie
packages=wine64,mesa-vulkan-drivers,libvulkan1,xvfb,xauth
target=x86_64-pc-windows-gnu
compiler=tests/tint/node_modules/webgpu/dist/win32-x64/d3dcompiler_47.dll
# Seconds that the planning may take.
limit=1500

say() { printf '\n-- %s (%d s so far)\n' "$*" "$SECONDS"; }

fail() {
    printf 'tests/dx12.sh: %s\n' "$*" >&2
    exit 1
}

# Where what the script needs cannot be had here, which is no fault of the plans.
lacks() {
    printf 'tests/dx12.sh: %s\n' "$*" >&2
    exit 3
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

case ${1:-} in
"") ;;
-h | --help)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
*) fail "unknown option $1; see --help" ;;
esac

# has COMMAND...: whether all are here.
has() {
    local command
    for command in "$@"; do
        command -v "$command" >/dev/null || return 1
    done
}

# debootstrap is in a folder that only root has in its path.
PATH=$PATH:/usr/sbin
command -v apt-get >/dev/null || lacks "needs Debian or Ubuntu, whose mirror the chroot is made from"
[ "$(id -u)" -eq 0 ] || has sudo || lacks "needs root or sudo: it makes a chroot"
if ! has debootstrap x86_64-w64-mingw32-gcc npm; then
    say "installing what is missing"
    # Package lists may be partly unreachable and still hold what is needed.
    as_root apt-get update -q || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        debootstrap gcc-mingw-w64-x86-64-win32 || lacks "cannot install debootstrap and gcc-mingw-w64-x86-64-win32"
    has npm || as_root apt-get install -y -q --no-install-recommends nodejs npm || lacks "cannot install npm"
fi
has rustup || lacks "needs rustup, to install Rust's target $target"
rustup target add "$target" || lacks "Rust's target $target cannot be had"

# The mirror of Debian that apt uses here, or Debian's own where this is no Debian.
mirror() {
    local found
    found=$(apt-get indextargets --format '$(CREATED_BY) $(ORIGIN) $(LABEL) $(REPO_URI)' |
        sed -n 's/^Packages Debian Debian //p')
    printf '%s' "${found:-http://deb.debian.org/debian}" | head -n 1
}

# One at a time: a second run waits for the first.
mkdir -p "$(dirname "$chroot")"
exec 9>"$chroot.lock"
flock 9
# Of what the chroot is made; another list makes another chroot.
recipe="$suite $packages"
if [ "$(cat "$chroot/made" 2>/dev/null)" != "$recipe" ]; then
    say "making the chroot $chroot"
    # A folder there that this script did not make is not its to remove.
    [ ! -e "$chroot" ] || [ -e "$chroot/made" ] || fail "$chroot is there, and no chroot of this script"
    # It gets its name when it is whole.
    as_root rm -rf --one-file-system "$chroot.part" "$chroot"
    as_root debootstrap --variant=minbase "$suite" "$chroot.part" "$(mirror)" || lacks "debootstrap failed"
    as_root chroot "$chroot.part" env DEBIAN_FRONTEND=noninteractive sh -c "
        apt-get update -q && apt-get install -y -q --no-install-recommends ${packages//,/ } && apt-get clean" ||
        lacks "the packages of the chroot cannot be installed: ${packages//,/ }"
    printf '%s\n' "$recipe" | as_root tee "$chroot.part/made" >/dev/null
    as_root mv "$chroot.part" "$chroot"
fi

if [ ! -e "$compiler" ]; then
    say "fetching FXC"
    npm ci --prefix tests/tint --ignore-scripts --no-audit --no-fund || lacks "the npm package webgpu cannot be had"
    [ -e "$compiler" ] || fail "the npm package webgpu has no $compiler"
fi

say "building"
# Without debug information, which only takes time here.
CARGO_PROFILE_RELEASE_DEBUG=false cargo build --locked --release --target "$target" --bin eplb

work=$chroot/eplb
as_root mkdir -p "$work"
as_root cp "${CARGO_TARGET_DIR:-target}/$target/release/eplb.exe" "$compiler" "$work"
as_root tee "$work/run.sh" >/dev/null <<'INSIDE'
# run.sh ARGUMENTS...: the command, its output in the files `out` and `errors`.
cd /eplb
export HOME=/eplb WINEPREFIX=/eplb/prefix WINEDEBUG=-all WINEDLLOVERRIDES="d3dcompiler_47=n;mscoree,mshtml="
export WGPU_BACKEND=dx12 WGPU_DX12_COMPILER=fxc VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json
exec xvfb-run -a /usr/lib/wine/wine64 eplb.exe "$@" >out 2>errors
INSIDE

# under_wine ARGUMENTS...: the command in the chroot. In namespaces of its own, with which all that it mounts ends and all
# that Wine leaves running. (Such a process keeps pipes open; so the output goes to files.)
under_wine() {
    local code=0
    as_root unshare --mount --pid --fork --kill-child --mount-proc="$chroot/proc" sh -c \
        'mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"' "$chroot" timeout "$limit" bash /eplb/run.sh "$@" || code=$?
    cat "$work/out"
    [ $code -eq 0 ] || {
        cat "$work/errors" >&2
        return $code
    }
}

say "Wine's vkd3d on lavapipe, with Microsoft's FXC; not Windows"
as_root unshare --mount --pid --fork true || lacks "namespaces are not allowed here"
under_wine devices || lacks "no adapter of Direct3D 12 under Wine"
grep -q '^auto takes: CPU backend' "$work/out" || fail "auto takes this adapter for a GPU"
say "fingerprints"
under_wine check --fingerprints --device dx12 ||
    fail "the plans are not the committed ones, or not this device's"
# What fingerprints do not hold: plans from one that runs, and tables of shares.
say "plans over time and tables of shares"
under_wine generate --windows 3 --layers 2 --experts 32 --drift 0.2 --out loads.npy || fail "no loads could be made"
under_wine plan loads.npy --window 0 --replicas 40 --gpus 8 --device cpu --out plan.json || fail "no plan could be made"
# same ARGUMENTS...: whether the CPU backend and the device come to the same fingerprint.
same() {
    local device found=()
    for device in cpu dx12; do
        under_wine "$@" --json --device "$device" >/dev/null || fail "$1 failed on $device"
        found+=("$(grep -o '"fingerprint":"[0-9a-f]*"' "$work/out")")
    done
    printf '%s: %s\n' "$*" "${found[1]}"
    [ -n "${found[0]}" ] && [ "${found[0]}" = "${found[1]}" ] || fail "$*: the CPU backend has ${found[0]}"
}
same plan loads.npy --window 2 --previous plan.json --fallback never
same plan loads.npy --strategy scenarios --previous plan.json --fallback never
same split loads.npy plan.json
same split loads.npy plan.json --batch
say "done"
