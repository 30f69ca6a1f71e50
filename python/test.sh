#!/usr/bin/env bash
# Installs the wheel as a user does, into an environment of its own, and tests it there: pytest, then types.
#
#     bash python/test.sh [PYTEST-ARGUMENTS]
#
# PYTHON is the interpreter (python3). EPLB_TEST_TORCH=1 installs torch too (some gigabytes), and EPLB_ENGINES names a
# folder of unpacked engines: see tests/test_real_engines.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=$PWD/target/python-venv
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

pip install --quiet pytest mypy numpy ${EPLB_TEST_TORCH:+torch}
# Whatever was installed before, this tree is what is tested.
pip install --quiet --force-reinstall --no-deps ./python

# The tests' own folder, so that the package that is imported is the one installed.
cd python/tests
"$venv/bin/python" -m pytest "$@"
cd "$venv"
"$venv/bin/python" -m mypy --config-file "$OLDPWD/../pyproject.toml" -p eplb_wgpu
"$venv/bin/python" -m mypy.stubtest eplb_wgpu._core --mypy-config-file "$OLDPWD/../pyproject.toml"
