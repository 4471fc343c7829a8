"""What it saves when glibc keeps freed memory, as the command line asks it to: whole runs of `danskin train`.

    python bench/allocator.py --rounds 3

Runs of the recipes with fewer examples and one epoch, in turns with the allocator as danskin sets it and as it comes
(an empty GLIBC_TUNABLES leaves it alone). Processor seconds of the whole command, start and report included, and its
largest resident size. Writes results/allocator.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from measure import commit, machine

OUT = Path(__file__).resolve().parent / "results" / "allocator"
SMALLER = ["trainer.epochs=1", "threads=1", "evaluation.curve_examples=10", "data.test=500"]
RUNS = {
    "digits": ["digits", "trainer.epochs=10", "threads=1"],
    "mnist": ["mnist", "data.train=6000", *SMALLER],
    "cifar10": ["cifar10", "data.train=4000", *SMALLER],
}


def run(words: list[str], kept: bool) -> tuple[float, float]:
    """(processor seconds, MiB) of one command."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    if not kept:
        environment["GLIBC_TUNABLES"] = ""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "danskin.cli", "train", *words, "--out", f"{folder}/run", "-q"]
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS))
    args = parser.parse_args()
    found = {}
    for name in args.runs:
        rows: dict[str, list[tuple[float, float]]] = {"kept": [], "as it comes": []}
        for k in range(args.rounds):
            for way in list(rows)[:: 1 - 2 * (k % 2)]:
                rows[way].append(run(RUNS[name], way == "kept"))
                print(name, way, rows[way][-1], file=sys.stderr, flush=True)
        found[name] = rows
    facts = {"date": str(date.today()), "commit": commit(OUT.parent.parent), "machine": machine()}
    OUT.with_suffix(".json").write_text(json.dumps(facts | {"commands": RUNS, "runs": found}, indent=1) + "\n")
    lines = [
        "| recipe | CPU s as it comes | kept | kept ÷ as it comes | MiB as it comes | kept |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, rows in found.items():
        ratio = [k[0] / c[0] for k, c in zip(rows["kept"], rows["as it comes"], strict=True)]
        (s, m), (t, n) = ([statistics.median(v) for v in zip(*rows[w], strict=True)] for w in ("as it comes", "kept"))
        spread = f"**{statistics.median(ratio):.2f}** ({min(ratio):.2f}-{max(ratio):.2f})"
        lines.append(f"| {name} | {s:.1f} | {t:.1f} | {spread} | {m:.0f} | {n:.0f} |")
    told = f"# Keeping freed memory\n\n{(__doc__ or '').splitlines()[0]}\n\n" + "\n".join(lines)
    cpu = f"{facts['machine']['cpu']}, {facts['date']}, {facts['commit']}"
    OUT.with_suffix(".md").write_text(f"{told}\n\nOne thread, {args.rounds} rounds. {cpu}.\n")


if __name__ == "__main__":
    main()
