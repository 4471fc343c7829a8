"""1,000 starts in one batch beside a loop over them, for every solver of the zoo: seconds for each.

    python bench/games.py [--starts 1000] [--steps 200] [--loop 20] [--out bench/results/games.json]

The loop is timed on a few starts and scaled: it is linear in their number. Same solver, same steps, same numbers: the
batch's rows are checked against the loop's.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch

from danskin.games import Forsaken, MatrixGame
from danskin.minmax import SOLVERS


def run(saddle, solver, z, steps):
    """Seconds, and where it ends."""
    began = time.perf_counter()
    with torch.no_grad():
        state = solver.begin(saddle, z)
        for _ in range(steps):
            state = solver.step(saddle, state)
    return time.perf_counter() - began, state.z


def measure(name, starts, steps, loop):
    game = MatrixGame("random") if name.startswith("mirror") else Forsaken()
    saddle, solver, z = game.saddle(), SOLVERS[name](), game.starts(starts)
    run(saddle, solver, z[:2], 5)  # warm
    batch, ends = min((run(saddle, solver, z, steps) for _ in range(3)), key=lambda found: found[0])
    alone = [run(saddle, solver, z[i : i + 1], steps) for i in range(loop)]
    gap = max(float((end - ends[i]).abs().max()) for i, (_, end) in enumerate(alone))
    each = min(seconds for seconds, _ in alone)
    row = {
        "solver": name, "game": type(game).__name__, "starts": starts, "steps": steps, "batch_seconds": batch,
        "loop_seconds": each * starts, "speedup": each * starts / batch, "microseconds_per_step": 1e6 * batch / steps,
        "largest_difference": gap,
    }  # fmt: skip
    print(f"{name:20s} batch {batch:7.3f} s   loop {each * starts:8.1f} s   {row['speedup']:6.0f}x   differ {gap:.1e}")
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--starts", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--loop", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "games.json")
    words = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(name, words.starts, words.steps, words.loop) for name in SOLVERS]
    found = {"torch": torch.__version__, "processor": platform.processor(), "threads": 1, "rows": rows}
    words.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
