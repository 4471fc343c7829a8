"""Two processes against one: seconds of the same evaluation, start-up left out, and whether outcomes agree.

    python bench/processes.py --model mnist_trades --points 400 --rounds 3

Each process has one thread. Writes bench/results/processes.json.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from fleet import fleet
from measure import machine

from danskin.data import load
from danskin.evaluation import Verdict, evaluate
from danskin.minmax import Linf
from danskin.run.runtime import Runtime

OUT = Path(__file__).resolve().parent / "results" / "processes.json"


def work(model: str, points: int, suite: str) -> None:
    """One process: its shard, timed between two barriers; rank 0 prints seconds and outcomes."""
    torch.set_num_threads(1)
    runtime = Runtime.start("cpu")
    network, data, radius = fleet([model])[model]
    test = load(data)
    examples, shard = (test.x_test[:points], test.y_test[:points]), (runtime.rank, runtime.world)
    evaluate(network, (examples[0][:4], examples[1][:4]), Linf(radius), suite, diagnostics=0)
    runtime.barrier()
    begun = time.perf_counter()
    part = evaluate(network, examples, Linf(radius), suite, shard=shard, diagnostics=0, batch_size=128)
    parts = runtime.gather(part)
    if runtime.main:
        verdict = Verdict.merge(parts)
        print(json.dumps({"seconds": time.perf_counter() - begun, "broken_by": verdict.broken_by.tolist()}), flush=True)
    if dist.is_initialized():
        runtime.barrier()
    runtime.close()


def ask(world: int, args: argparse.Namespace) -> dict[str, Any]:
    """Start `world` processes and read what rank 0 says."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    words = [
        sys.executable,
        __file__,
        "--worker",
        "--model",
        args.model,
        "--points",
        str(args.points),
        "--suite",
        args.suite,
    ]
    common = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    if world > 1:
        common |= {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = [
        subprocess.Popen(words, env=common | {"RANK": str(r), "LOCAL_RANK": str(r)}, stdout=subprocess.PIPE, text=True)
        for r in range(world)
    ]
    outputs = [child.communicate()[0] for child in children]
    found: dict[str, Any] = json.loads(outputs[0].splitlines()[-1])
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mnist_trades")
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--suite", default="fast")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.model, args.points, args.suite)
        return
    rows = []
    for k in range(args.rounds):
        pair = {world: ask(world, args) for world in ((1, 2) if k % 2 == 0 else (2, 1))}
        same = pair[1]["broken_by"] == pair[2]["broken_by"]
        rows.append({"one": pair[1]["seconds"], "two": pair[2]["seconds"], "same_outcomes": same})
        print(rows[-1], flush=True)
    ratio = statistics.median(r["one"] / r["two"] for r in rows)
    result = {"model": args.model, "points": args.points, "suite": args.suite, "rounds": rows, "speed_up": ratio}
    OUT.write_text(json.dumps(result | {"machine": machine()}, indent=1) + "\n")
    print(f"two processes: {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
