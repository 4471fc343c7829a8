"""Peak memory of `evaluate` against the size of the data set: what the library holds, and what the allocator keeps.

    python bench/verdict_memory.py

Each run is a process of its own: the highest resident size during the evaluation minus that before it, and the sizes
of all living tensors at the end of each stage, without the data. Three ways to run it: as it is; so that the C library
gives freed memory back (MALLOC_TRIM_THRESHOLD_=0 MALLOC_MMAP_THRESHOLD_=65536); and so that besides the convolutions
prepared for batches of other sizes are forgotten (ONEDNN_PRIMITIVE_CACHE_CAPACITY=1 LRU_CACHE_CAPACITY=1). Writes
results/verdict_memory.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from measure import machine

from danskin.attacks import APGD
from danskin.data import load
from danskin.evaluation import evaluate
from danskin.minmax import Linf
from danskin.models import build

OUT = Path(__file__).resolve().parent / "results" / "verdict_memory.json"
MIB = 2**20
TRIM = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
WAYS = {
    "as it is": {},
    "freed memory returned": TRIM,
    "and no prepared convolutions": TRIM | {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1", "LRU_CACHE_CAPACITY": "1"},
}


def resident(key: str) -> float:
    """VmRSS or VmHWM in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def living() -> float:
    """MiB in all storages of living tensors."""
    gc.collect()
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in gc.get_objects():
            if isinstance(each, torch.Tensor):
                storage = each.untyped_storage()
                found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values()) / MIB


def work(n: int, batch_size: int, suite: str) -> None:
    """One process: evaluate n examples and say what it took."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, ball = build("small_cnn", input_shape=(1, 28, 28), classes=10).eval(), Linf(0.02)
    test = load("mnist")
    x = test.x_test[:n].clone()
    with torch.no_grad():  # labels are the predictions, so that most examples survive
        y = torch.cat([model(part.float() / 255).argmax(1) for part in x.split(500)])
    attacks: Any = [APGD(ball, steps=10, stop=True)] if suite == "apgd" else suite
    evaluate(model, (x[:8], y[:8]), ball, attacks, diagnostics=0, batch_size=batch_size)
    held: list[float] = []
    before = living()
    Path("/proc/self/clear_refs").write_text("5")
    base = resident("VmRSS")
    verdict = evaluate(
        model, (x, y), ball, attacks, diagnostics=0, batch_size=batch_size,
        progress=lambda event: held.append(living() - before) if event["state"] == "done" else None,
    )  # fmt: skip
    found = {"peak": resident("VmHWM") - base, "end": resident("VmRSS") - base, "tensors_between_stages": max(held)}
    print(json.dumps(found | {"robust": verdict.robust.hits}))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", nargs="+", type=int, default=[1000, 4000, 10000])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--suite", default="apgd", help="apgd (10 steps), or a suite by name")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.batch_size, args.suite)
        return
    rows = []
    for way, settings in WAYS.items():
        for n in args.examples:
            words = [sys.executable, __file__, "--worker", str(n), "--batch-size", str(args.batch_size)]
            words, environment = [*words, "--suite", args.suite], os.environ | {"OMP_NUM_THREADS": "1"} | settings
            out = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
            rows.append({"way": way, "examples": n, "suite": args.suite} | json.loads(out.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    known = json.loads(OUT.read_text())["rows"] if OUT.is_file() else []
    kept = [row for row in known if row["suite"] != args.suite]
    found = {"batch_size": args.batch_size, "rows": kept + rows, "machine": machine()}
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
