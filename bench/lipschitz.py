"""Seconds of Lipschitz bounds: LipSDP of ours beside clarabel's, and the product bound of PreAct ResNet-18.

    python bench/lipschitz.py [--clarabel] [--out bench/results/lipschitz.json]

Networks are trained as in row E6. --clarabel solves 10-50-50-1 by cvxpy and clarabel, too, which takes minutes. Each
time is the least of three (one for clarabel), as CPU and wall seconds on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch

from danskin.lipschitz import chain_of, eclipse_fast, lipsdp, lipsdp_by_solver, product_bound, read
from danskin.recipes.e6.cells import network

NETS = {
    "2-16-16-1": {"kind": "sine", "sizes": [2, 16, 16, 1], "steps": 400},
    "4-8-8-2": {"kind": "sine", "sizes": [4, 8, 8, 2], "steps": 400},
    "10-50-50-1": {"kind": "sine", "sizes": [10, 50, 50, 1], "steps": 400},
    "10-64-64-64-5": {"kind": "sine", "sizes": [10, 64, 64, 64, 5], "steps": 400},
    "784-128-128-10": {"kind": "sine", "sizes": [784, 128, 128, 10], "steps": 0},
}


def timed(call, times, by="cpu"):
    best = None
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        value = call().value
        found = {"value": value, "cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        best = found if best is None or found[by] < best[by] else best
    return best


def row_of(name, settings, clarabel):
    net, shape = network(settings, 0)
    chain = chain_of(read(net, torch.zeros(1, *shape, dtype=torch.float64)))
    row = {"network": name, "product": product_bound(net, shape).value}
    row["ECLipsE-Fast"] = timed(lambda: eclipse_fast(chain), 3)
    row["LipSDP-neuron"] = timed(lambda: lipsdp(chain, budget_s=60), 3 if chain.hidden < 250 else 1)
    if clarabel and chain.hidden <= 100:
        row["clarabel"] = timed(lambda: lipsdp_by_solver(chain), 1)
        row["above clarabel"] = row["LipSDP-neuron"]["value"] / row["clarabel"]["value"] - 1
    print(json.dumps(row), flush=True)
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--clarabel", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "lipschitz.json")
    words = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    rows = [row_of(name, settings, words.clarabel) for name, settings in NETS.items()]
    net, shape = network({"kind": "resnet18"}, 0)
    image = {"network": "preact_resnet18, 3x32x32", "product": timed(lambda: product_bound(net, shape), 5)}
    torch.set_num_threads(2)
    image["product, two threads"] = timed(lambda: product_bound(net, shape), 5, "wall")
    print(json.dumps(image), flush=True)
    found = {"torch": torch.__version__, "threads": 1, "load": load, "rows": [*rows, image]}
    words.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
