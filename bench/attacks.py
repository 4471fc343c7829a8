"""PGD-10 against ten bare forward and backward passes of the same model: danskin and its peers.

    bench/peers/.venv/bin/python bench/attacks.py --peers

See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from datetime import date
from pathlib import Path
from typing import Any

import contestants
import torch
import torch.nn.functional as F
from contestants import OURS, PEERS, STEPS, TRAINABLE_PEERS, WORKLOADS, Contestant, Workload, setup
from measure import (
    Call,
    Counter,
    commit,
    machine,
    paired_ratios,
    peak_above_start,
    peak_of_tensors,
    time_interleaved,
    version,
)

HERE = Path(__file__).resolve().parent
# glibc gives freed memory back to the system and faults it in again at the next pass. Whether it does depends on
# the history of the process, and costs a small model 20 % of a bare pass: keep the memory, for all rows alike.
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}
TARGETS = {"time": 1.05, "memory": 1.2}  # danskin PGD over the bare passes
TIMED = {
    "danskin PGD.perturb, keep=last": "ten passes, as the bare ones and the peers'",
    "danskin PGD": "the best of eleven points, and a verdict",
}


def say(text: str) -> None:
    """Progress, apart from the results."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def make(row: Contestant, workload: Workload, count: bool = False) -> tuple[Call, Counter | None]:
    """The call of a row, and the counter its model was wrapped in."""
    ready = setup(workload, row.treatment)
    counter = Counter(ready.model).eval() if count else None
    return row.make(counter or ready.model, ready.x, ready.y), counter


def counted(row: Contestant, workload: Workload) -> dict[str, Any]:
    """Passes per example, and what they found: the plain model's loss and errors, the largest shift."""
    call, counter = make(row, workload, count=True)
    found, plain = call(), setup(workload, "frozen")
    assert counter is not None
    facts: dict[str, Any] = {
        "forwards": counter.forwards / workload.batch,
        "backwards": counter.backwards / workload.batch,
        "calls": counter.calls,
    }
    if isinstance(found, torch.Tensor):
        with torch.no_grad():
            logits = plain.model(found)
        facts["loss"] = float(F.cross_entropy(logits, plain.y))
        facts["errors"] = float((logits.argmax(1) != plain.y).float().mean())
        facts["largest_shift"] = float((found - plain.x).abs().max())
    return facts


def untouched(row: Contestant, workload: Workload) -> None:
    """Every run starts from the model as it was made; some peers leave gradients or another mode behind."""
    model = setup(workload, row.treatment).model.eval()
    model.requires_grad_(row.treatment == "trainable")
    model.zero_grad(set_to_none=True)


def measure_times(workload: Workload, rows: list[Contestant], rounds: int, warmup: int, seed: int) -> dict[str, Any]:
    """Seconds, ratios and counts of all rows on one model."""
    results: dict[str, Any] = {}
    calls: dict[str, Call] = {}
    by_label = {row.label: row for row in rows}
    for row in rows:
        if row.distribution is not None and version(row.distribution) is None:
            results[row.label] = {"status": "not installed"}
            continue
        say(f"{workload.model}: count, {row.label}")
        try:
            results[row.label] = {"status": "ok", **counted(row, workload)}
            untouched(row, workload)
            calls[row.label], _ = make(row, workload)
        except Exception as error:  # a peer, or the compiler: said in the table, and the others go on
            traceback.print_exc()
            results[row.label] = {"status": f"failed: {type(error).__name__}: {str(error).strip().splitlines()[:1]}"}
    seconds = time_interleaved(
        calls,
        rounds,
        warmup,
        seed,
        before=lambda label: untouched(by_label[label], workload),
        say=lambda text: say(f"{workload.model}: {text}, load {os.getloadavg()[0]:.1f}"),
    )
    for label, clocks in seconds.items():
        result = results[label]
        result["seconds"] = clocks
        for name, under in (("ratio", "bare"), ("equal", by_label[label].equal)):
            if under in seconds:
                result[name] = {clock: paired_ratios(clocks[clock], seconds[under][clock]) for clock in clocks}
    return results


MEMORY_ROWS = ("bare", "danskin PGD", "danskin PGD, keep=last")


def measure_memory(workload: Workload, threads: int, option: str = "--peak", repeats: int = 9) -> dict[str, Any]:
    """Peak memory above what was held before, each run in a process of its own.

    Args:
        workload: the model.
        threads: of torch.
        option: "--peak", or "--second-peak" for a row that has run once before, on one example.
        repeats: runs.
    """
    peaks: dict[str, list[int]] = {label: [] for label in MEMORY_ROWS}
    environment = {name: value for name, value in os.environ.items() if name not in KEEP_MEMORY}
    for _ in range(repeats):
        for label, found in peaks.items():
            say(f"{workload.model}: memory, {label}, {option}")
            command = [sys.executable, __file__, option, workload.model, label, "--threads", str(threads)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
            found.append(int(done.stdout))
    bare = statistics.median(peaks["bare"])
    return {label: {"bytes": found, "ratio": statistics.median(found) / bare} for label, found in peaks.items()}


def measure_tensors(workload: Workload) -> dict[str, Any]:
    """Peak bytes of the tensors alive at once; one run, for the number is the same in all."""
    peaks: dict[str, int] = {}
    for row in (row for row in OURS if row.label in MEMORY_ROWS):
        say(f"{workload.model}: tensors, {row.label}")
        peaks[row.label] = peak_of_tensors(make(row, workload)[0])
    return {label: {"bytes": [peak], "ratio": peak / peaks["bare"]} for label, peak in peaks.items()}


def print_peak(model: str, label: str, second: bool) -> None:
    """The run of one process of `measure_memory`: one gradient to load what is loaded lazily, then the row.

    With `second`, the row itself first runs on one example: then its own code is in memory too, as that of the bare
    passes is in either case.
    """
    workload = WORKLOADS[model]
    (row,) = (row for row in OURS if row.label == label)
    ready = setup(workload, row.treatment)
    z = ready.x[:1].clone().requires_grad_()
    torch.autograd.grad(F.cross_entropy(ready.model(z), ready.y[:1], reduction="sum"), z)
    if second:
        row.make(ready.model, ready.x[:1], ready.y[:1])()
    call, _ = make(row, workload)
    print(peak_above_start(call))


def spread(ratio: dict[str, Any]) -> str:
    """Median (min-max)."""
    return f"**{ratio['median']:.2f}** ({ratio['min']:.2f}–{ratio['max']:.2f})"


def line(row: Contestant, result: dict[str, Any]) -> str:
    """A row of the table."""
    if result["status"] != "ok":
        return f"| {row.label} | {result['status']} | | | | | |"
    passes = f"{result['forwards']:.4g} / {result['backwards']:.4g}"
    ratio, same = result.get("ratio"), row.equal == "bare"
    wall, cpu = (spread(ratio["wall"]), f"{ratio['cpu']['median']:.2f}") if ratio else ("–", "–")
    equal = "same" if same else spread(result["equal"]["wall"]) if "equal" in result else "–"
    loss = f"{result['loss']:.3f}" if "loss" in result else "–"
    return f"| {row.label} | {passes} | {wall} | {cpu} | {equal} | {loss} | {version_of(row)} |"


def version_of(row: Contestant) -> str:
    """The version of a peer."""
    return (version(row.distribution) or "") if row.distribution else ""


def sizes(peaks: dict[str, Any]) -> str:
    """Median peaks in MiB."""
    return ", ".join(f"{label} {statistics.median(peaks[label]['bytes']) / 2**20:.0f} MiB" for label in peaks)


def verdict(name: str, value: float, target: float) -> str:
    """Whether a target is met."""
    return f"- {name}: {value:.2f}, target ≤ {target:g}: {'met' if value <= target else '**missed**'}"


def markdown(report: dict[str, Any], rows: list[Contestant]) -> str:
    """The report for people."""
    at = report["machine"]
    text = [
        "# PGD-10 over ten bare forward and backward passes",
        "",
        f"danskin {report['commit']}, torch {at['torch']}, Python {at['python']}, {report['date']}. {at['cpu']}, "
        f"{at['cores']} cores, {at['threads']} thread(s), {', '.join(at['extensions'])}; "
        f"allocator: {report['allocator']}; load {at['load_at_start']:.1f} at the start and "
        f"{report['load_at_end']:.1f} at the end (1 is this benchmark itself).",
        "",
        f"Command: `{report['command']}`. How to read the columns: [bench/README.md](../README.md).",
    ]
    for name, result in report["models"].items():
        workload = WORKLOADS[name]
        text += [
            "",
            f"## {name}, {workload.batch} x {'x'.join(map(str, workload.shape))}, {result['rounds']} rounds",
            "",
            "| | forwards / backwards | time ÷ bare: median (min–max) | CPU time ÷ bare | time ÷ equally treated bare "
            "| loss found | version |",
            "|---|---|---|---|---|---|---|",
        ]
        text += [line(row, result["rows"][row.label]) for row in rows]
        text += [""]
        for label, what in TIMED.items():
            if "ratio" in (row := result["rows"].get(label, {})):
                text += [verdict(f"time, {label} ({what}) ÷ bare", row["ratio"]["wall"]["median"], TARGETS["time"])]
        if result["memory"]:
            tensors = result["memory_tensors"]
            name = "peak memory of tensors, danskin PGD ÷ bare"
            text += [verdict(name, tensors["danskin PGD"]["ratio"], TARGETS["memory"]), f"  ({sizes(tensors)})"]
            for key, what in (
                ("memory", "peak of the process above its start, allocator, code and scratch space included"),
                ("memory_second", "the same in a process that has attacked one example before"),
            ):
                text += [f"- {what}: {result[key]['danskin PGD']['ratio']:.2f} ({sizes(result[key])})"]
    return "\n".join(text) + "\n"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", default="11", help="rounds, one number or one per model (default: 11)")
    parser.add_argument("--warmup", type=int, default=1, help="rounds before these, dropped (default: 1)")
    parser.add_argument("--models", default=",".join(WORKLOADS), help="which models (default: all)")
    parser.add_argument("--peers", action="store_true", help="also time the peers")
    parser.add_argument("--trainable-peers", action="store_true", help="and once more on models with trainable weights")
    parser.add_argument("--only", default="", help="only rows with this text in their label, and the bare ones")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the order within a round")
    parser.add_argument(
        "--allocator", choices=("keep", "system"), default="keep", help="keep freed memory between passes (default)"
    )
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory measurement")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "attacks.json", help="JSON; .md goes beside it")
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "ROW"), help=argparse.SUPPRESS)
    parser.add_argument("--second-peak", nargs=2, metavar=("MODEL", "ROW"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    if options.peak or options.second_peak:
        return print_peak(*(options.peak or options.second_peak), second=bool(options.second_peak))
    if options.allocator == "keep" and any(name not in os.environ for name in KEEP_MEMORY):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**KEEP_MEMORY, **os.environ})  # read at start only
    models = options.models.split(",")
    rounds = [int(n) for n in options.rounds.split(",")]
    rounds = rounds * len(models) if len(rounds) == 1 else rounds
    unknown = [name for name in models if name not in WORKLOADS]
    if unknown or len(rounds) != len(models):
        sys.exit(f"--models: expected some of {', '.join(WORKLOADS)}, and as many --rounds; got {models} and {rounds}")
    rows = [*OURS, *PEERS, *TRAINABLE_PEERS]
    asked = [*OURS, *(PEERS if options.peers else ()), *(TRAINABLE_PEERS if options.trainable_peers else ())]
    asked = [row for row in asked if options.only in row.label or row.label.startswith("bare")]
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "commit": commit(HERE.parent),
        "command": " ".join(["python", "bench/attacks.py", *sys.argv[1:]]),
        "machine": machine(),
        "allocator": options.allocator,
        "steps": STEPS,
        "eps": contestants.EPS,
        "step": contestants.STEP,
        "models": {},
    }
    for name, n in zip(models, rounds, strict=True):
        workload = WORKLOADS[name]
        memory = {} if options.no_memory else measure_memory(workload, options.threads)
        second = {} if options.no_memory else measure_memory(workload, options.threads, "--second-peak")
        times = measure_times(workload, asked, n, options.warmup, options.seed)
        skipped = {row.label: {"status": "not run"} for row in rows if row not in asked}
        report["models"][name] = {"rounds": n, "rows": {**times, **skipped}, "memory": memory}
        report["models"][name]["memory_second"] = second
        report["models"][name]["memory_tensors"] = {} if options.no_memory else measure_tensors(workload)
        report["load_at_end"] = os.getloadavg()[0]
        text = markdown(report, rows)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
