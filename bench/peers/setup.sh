#!/usr/bin/env bash
# Makes bench/peers/.venv with torch (CPU build), danskin from this tree, and the peers it is timed against.
# A peer that cannot be installed is reported and left out; bench/attacks.py then says "not installed".
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

pip install --quiet --upgrade pip
pip install --quiet --constraint ../../constraints.txt torch numpy

# danskin, editable; a path file does the same while the tree has no metadata to build from
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if ! pip install --quiet --no-deps --editable ../.. 2>.venv/danskin.log; then
    echo "danskin: pip install -e failed (bench/peers/.venv/danskin.log); using a path to src instead" >&2
    (cd ../../src && pwd) >"$site/danskin-src.pth"
else
    rm -f "$site/danskin-src.pth"
fi

missing=0
each() { # one requirement at a time, so that one failure costs one peer
    local file=$1 line
    shift
    while read -r line; do
        line=${line%%#*}
        [ -n "${line// /}" ] || continue
        pip install --quiet --constraint ../../constraints.txt "$@" "${line// /}" || {
            echo "not installed: $line" >&2
            missing=1
        }
    done <"$file"
}
each requirements.txt
each requirements-no-deps.txt --no-deps

# adv-lib imports torchvision.models and visdom at the top of modules that its PGD does not use. These stand
# in for them. They are kept out of site-packages: bench/contestants.py shows them to adv-lib alone.
stubs=.venv/stubs
mkdir -p "$stubs/torchvision" "$stubs/visdom"
printf '"""Stands in for torchvision: adv_lib.distances.lpips imports it, PGD does not use it."""\n' \
    >"$stubs/torchvision/__init__.py"
printf '"""Empty."""\n' >"$stubs/torchvision/models.py"
printf '"""Stands in for visdom: adv_lib.utils.visdom_logger imports it, PGD does not use it."""\n' \
    >"$stubs/visdom/__init__.py"

.venv/bin/python - <<'PY'
import importlib.metadata as metadata
import torch
assert torch.version.cuda is None, f"torch: expected a CPU build, got CUDA {torch.version.cuda}; remove .venv"
for name in ("torch", "torchattacks", "foolbox", "adversarial-robustness-toolbox", "adv-lib"):
    try:
        print(f"{name:32s}{metadata.version(name)}")
    except metadata.PackageNotFoundError:
        print(f"{name:32s}not installed")
import danskin
print(f"{'danskin':32s}{danskin.__file__}")
PY
exit $missing
