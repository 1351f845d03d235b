#!/usr/bin/env bash
# Installs the locked packages into the conda environment that Snakemake has just made. Snakemake runs a copy of this
# file from the workflow's working directory (the root of the repository) with the new environment active. The lock's
# checksum stands below, so that a changed lock changes this file and Snakemake makes a new environment.
set -euo pipefail

lock=envs/requirements.lock
lock_sha256=1f36237413ba6fba6b34bc6bc5a4f8a76793461b34c806c196ccd8191a6fa3a7

fail() {
    echo "error: $1" >&2
    exit 1
}

[[ -n "${CONDA_PREFIX:-}" ]] || fail "CONDA_PREFIX is not set; run this through 'snakemake --sdm conda'"
[[ -f "$lock" && -f envs/uv.txt ]] || fail "no $lock or no envs/uv.txt in $PWD; run snakemake from the repository root"
python="$CONDA_PREFIX/bin/python"
found=$("$python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$lock")
[[ "$found" == "$lock_sha256" ]] || fail "$lock has sha256 $found, expected $lock_sha256; run 'make lock'"

installer=$(mktemp -d)
trap 'rm -rf "$installer"' EXIT
"$python" -m pip install --quiet --disable-pip-version-check --target "$installer" \
    --only-binary :all: --require-hashes --requirement envs/uv.txt
"$installer/bin/uv" pip install --quiet --python "$python" --compile-bytecode --require-hashes \
    --build-constraints "$lock" --requirement "$lock"

# The package itself is read from the clone in which a job runs, never from the one that happened to make this
# environment: clones that share a --conda-prefix share the environment. Activation happens in the job's directory.
mkdir -p "$CONDA_PREFIX/etc/conda/activate.d"
cat >"$CONDA_PREFIX/etc/conda/activate.d/resalign.sh" <<'HOOK'
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
HOOK
