#!/usr/bin/env bash
# Builds what a release offers for the kind of machine that this runs on, and tries it as a user would, from the files:
# the wheel for Python in an environment of its own, and the command from its archive.
#
#     bash .github/release.sh [FOLDER]        # target/dist
#
# PYTHON is the interpreter (python3). On Linux both run wherever glibc is 2.17 or newer (manylinux2014): zig links them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=${1:-target/dist}
python=${PYTHON:-python3}
glibc=2.17
tools=(maturin==1.16.0 cargo-zigbuild==0.24.1 ziglang==0.15.2)

version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
of_wheel=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' python/Cargo.toml)
target=$(rustc -vV | sed -n 's/^host: //p')
case ${GITHUB_REF:-} in
    refs/tags/v*) tag=${GITHUB_REF#refs/tags/v} ;;
    *) tag=$version ;;
esac
if [ "$tag" != "$version" ] || [ "$of_wheel" != "$version" ]; then
    printf 'tag %s, Cargo.toml %s, python/Cargo.toml %s: a release has one version\n' "$tag" "$version" "$of_wheel" >&2
    exit 1
fi

# environment FOLDER: a new one, and where its programs are.
environment() {
    rm -rf "$1"
    "$python" -m venv "$1"
    if [ -d "$1/Scripts" ]; then bin=$1/Scripts; else bin=$1/bin; fi
    bin=$(cd "$bin" && pwd)
}

mkdir -p "$folder"
environment target/release-tools
tools_bin=$bin
"$tools_bin/python" -m pip --disable-pip-version-check install --quiet "${tools[@]}"
export PATH=$tools_bin:$PATH

# Small files: without debug information.
export CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=true

linked=()
built=target/$target/release
if [[ $target == *-linux-gnu ]]; then
    linked=(--zig --compatibility manylinux2014)
    cargo zigbuild --locked --release --target "$target.$glibc"
else
    cargo build --locked --release --target "$target"
fi
maturin build --locked --release --target "$target" --manifest-path python/Cargo.toml --out "$folder" ${linked[@]+"${linked[@]}"}

name=eplb-$version-$target
rm -rf "target/$name"
mkdir -p "target/$name"
cp README.md CHANGELOG.md LICENSE-* "target/$name/"
if [ -f "$built/eplb.exe" ]; then cp "$built/eplb.exe" "target/$name/"; else cp "$built/eplb" "target/$name/"; fi
"target/$name/eplb" man >"target/$name/eplb.1"
tar -C target -czf "$folder/$name.tar.gz" "$name"

# That it asks for no newer glibc than it is said to. (maturin looks at the wheel itself.)
if [[ $target == *-linux-gnu ]]; then
    newest=$(grep -aoE 'GLIBC_[0-9]+(\.[0-9]+)+' "target/$name/eplb" | sort -uV | tail -n 1)
    if [ "$(printf '%s\n' "$newest" "GLIBC_$glibc" | sort -V | tail -n 1)" != "GLIBC_$glibc" ]; then
        printf 'the command asks for %s, and was to run from GLIBC_%s on\n' "$newest" "$glibc" >&2
        exit 1
    fi
fi

# The command, from its archive.
rm -rf target/release-try
mkdir -p target/release-try
tar -C target/release-try -xzf "$folder/$name.tar.gz"
"target/release-try/$name/eplb" --version
"target/release-try/$name/eplb" check --fingerprints --device cpu

# The wheel, from its file, with its tests, which import nothing from this tree.
environment target/release-venv
wheels=("$folder"/eplb_wgpu-"$version"-*.whl)
"$bin/python" -m pip --disable-pip-version-check install --quiet "${wheels[@]}" pytest
(cd python/tests && "$bin/python" -m pytest -q)

ls -l "$folder"
