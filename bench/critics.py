"""How much of exact W1 critics certify on 8 Gaussians against N(0, I/4), 1,024 points of each, and in what time.

    python bench/critics.py [--steps 1000] [--out bench/results/critics.json]

Beside it, how long the other distances take on the same points, and the exact distance itself. One thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch

from danskin.critics import MMD, AdamAscent, EnergyDistance, NetworkDistance, NeuralDual, lipschitz_critic
from danskin.data.toys import gaussians_8
from danskin.transport import wasserstein

CRITICS = (("cayley", "abs"), ("bjorck", "abs"), ("cayley", "group_sort"), ("cayley", "spline"), ("cayley", "relu"))


def timed(call):
    """What a call returns, wall seconds and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "critics.json")
    words = parser.parse_args()
    torch.set_num_threads(1)
    x, y = gaussians_8(1024)[0], 0.5 * torch.randn(1024, 2, generator=torch.Generator().manual_seed(0))
    exact, wall, cpu = timed(lambda: wasserstein(x, y).bracket.value)
    rows = [{"what": "exact W1 (network simplex)", "value": exact, "wall_seconds": wall, "cpu_seconds": cpu}]
    for linear, activation in CRITICS:
        dual = NeuralDual(lipschitz_critic(2, linear=linear, activation=activation), AdamAscent(words.steps))
        low, wall, cpu = timed(lambda dual=dual: dual.lower_bound(x, y))
        row = {"what": f"certified: {linear}, {activation}", "value": low, "of_exact": low / exact}
        rows.append(row | {"wall_seconds": wall, "cpu_seconds": cpu})
        print(rows[-1], flush=True)
    others = {"network distance, width 16": NetworkDistance(), "MMD": MMD(), "energy distance": EnergyDistance()}
    for name, distance in others.items():
        value, wall, cpu = timed(lambda distance=distance: float(distance.value(x, y)))
        rows.append({"what": name, "value": value, "wall_seconds": wall, "cpu_seconds": cpu})
        print(rows[-1], flush=True)
    found = {"torch": torch.__version__, "processor": platform.processor(), "threads": 1, "steps": words.steps}
    words.out.write_text(json.dumps(found | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
