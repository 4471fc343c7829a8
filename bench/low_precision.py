"""What bfloat16 search with channels_last saves: bare passes, and `standard` with the same points, against float32.

    python bench/low_precision.py --models preact64 --points 8 --rounds 1
    python bench/low_precision.py --models cifar_resnet2b mnist_kw_0.1 --networks DIR --points 40 --rounds 3

preactN is a PreActResNet-18 of N channels (64: the usual one), trained for a few minutes against FGSM on CIFAR-10 and
kept in bench/.fleet; other names are networks of others (a folder with loader.py). Contestants take turns; seconds are
those of the processor, so that other work on the machine weighs less, and begin after compiling. Ratios pair two runs
of one round. Adds to results/low_precision.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from fleet import FOLDER
from measure import commit, machine
from torch import Tensor, nn

from danskin.attacks.autoattack import stages
from danskin.data import load, to_float
from danskin.evaluation import Verdict, evaluate, fastest, quicker
from danskin.minmax import L2, Linf
from danskin.models import build
from evaluation import NETWORKS

OUT = Path(__file__).resolve().parent / "results" / "low_precision"
BATCH = 250
RADIUS = 4 / 255  # of the networks trained here: a few survive
STEPS = {16: (400, 128), 64: (120, 64)}  # of training, and examples in each


def _auto(model: nn.Module, x: Tensor) -> dict[str, Any]:
    form = fastest(model, x[:32])
    print(f"auto: {form}", file=sys.stderr, flush=True)
    return {"precision": form.precision, "quick": form.of(model)}


#: Ways to search: settings of `evaluate`, for a model and inputs to time it on.
FORMS: dict[str, Callable[[nn.Module, Tensor], dict[str, Any]]] = {
    "float32": lambda model, x: {},
    "bfloat16": lambda model, x: {"precision": "bfloat16"},
    "bfloat16, channels_last": lambda model, x: {"quick": quicker(model, channels_last=True, precision="bfloat16")},
    "bfloat16, channels_last, compiled": lambda model, x: {
        "quick": quicker(model, channels_last=True, precision="bfloat16", compile=True)
    },
    "auto": _auto,
}


def trained(width: int) -> nn.Module:
    """A PreActResNet-18 trained against one large step."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"preact{width}.pt"
    torch.manual_seed(0)
    model = build("preact_resnet18", input_shape=(3, 32, 32), classes=10, width=width, normalize="cifar10")
    if not path.is_file():
        steps, batch = STEPS.get(width, (120, 64))
        data, model = load("cifar10"), model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
        for k in range(steps):
            rows, radius = torch.randint(20000, (batch,)), 8 / 255 * min(1.0, 2 * k / steps)
            x, y = to_float(data.x_train[rows]).contiguous(memory_format=torch.channels_last), data.y_train[rows]
            shift = torch.empty_like(x).uniform_(-radius, radius).requires_grad_()
            (slope,) = torch.autograd.grad(_loss(model, x + shift, y), shift)
            shift = (shift.detach() + 1.25 * radius * slope.sign()).clamp(-radius, radius)
            optimizer.zero_grad()
            _loss(model, x + shift, y).backward()
            optimizer.step()
            schedule.step()
        torch.save(model.to(memory_format=torch.contiguous_format).state_dict(), path)  # type: ignore[call-overload]
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def _loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return F.cross_entropy(model(x.clamp(0, 1)).float(), y)


def problem(name: str, args: argparse.Namespace) -> tuple[nn.Module, Tensor, Tensor, Any]:
    """(model, x, y, ball)."""
    if name.startswith("preact"):
        model, data, ball = trained(int(name.removeprefix("preact"))), "cifar10", Linf(RADIUS)
    else:
        sys.path.insert(0, str(args.networks))
        from loader import load as load_network  # type: ignore[import-not-found]

        model, facts = load_network(name)
        data, ball = NETWORKS[name.split("_")[0]], (L2 if "l2" in name else Linf)(float(facts.get("eps", 8 / 255)))
    test, some = load(data), slice(args.offset, args.offset + args.points)
    return model.requires_grad_(False), to_float(test.x_test[some]), test.y_test[some], ball


def passes(
    model: nn.Module, forms: dict[str, dict[str, Any]], x: Tensor, y: Tensor, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """CPU seconds of a forward pass, and of one with the gradient to the input, in each form."""
    out: dict[str, dict[str, list[float]]] = {name: {"forward": [], "step": []} for name in forms}
    for k in range(-1, rounds):
        for name, settings in forms.items():
            for kind, found in out[name].items():
                leaf, begun = x.clone().requires_grad_(kind == "step"), time.process_time()
                low = settings.get("precision") == "bfloat16"
                with torch.set_grad_enabled(kind == "step"), torch.autocast("cpu", torch.bfloat16, enabled=low):
                    logits = (settings.get("quick") or model)(leaf).float()
                if kind == "step":
                    torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), leaf)
                if k >= 0:
                    found.append(time.process_time() - begun)
    return out


def suite(args: argparse.Namespace, ball: Any) -> Any:
    """The suite by name, or `standard` with a share of its steps and queries."""
    if args.budget == 1:
        return args.suite
    short = {}
    for name, attack in stages(ball).items():
        what = "queries" if name == "square" else "steps"
        short[name] = replace(attack, **{what: int(args.budget * getattr(attack, what))})
    return short


def told(verdict: Verdict, seconds: float) -> dict[str, Any]:
    """What is kept of one run."""
    cost = verdict.cost
    stages = {s.name: {"broken": s.broken, "seen": s.seen, "forwards": s.cost.forwards} for s in verdict.stages}
    return {
        "seconds": seconds,
        "robust": verdict.robust.hits,
        "broken_by": verdict.broken_by.tolist(),
        "units": cost.forwards + 2 * cost.backwards,
        "stages": stages,
    }


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Passes and verdicts of one model."""
    model, x, y, ball = problem(name, args)
    forms = {name: FORMS[name](model, x) for name in args.forms}
    bare = {str(n): passes(model, forms, x[:n], y[:n], args.passes) for n in sorted({4, min(64, len(x))})}  # compiles
    rows: dict[str, list[dict[str, Any]]] = {form: [] for form in args.forms}
    asked = suite(args, ball)
    for k in range(args.rounds):
        for form in args.forms[:: 1 - 2 * (k % 2)]:
            begun = time.process_time()
            verdict = evaluate(model, (x, y), ball, asked, seed=k, batch_size=BATCH, diagnostics=0, **forms[form])
            rows[form].append(told(verdict, time.process_time() - begun))
            last = rows[form][-1]
            print(f"{name}: {form}: {last['seconds']:.1f} s, {last['robust']} robust", file=sys.stderr, flush=True)
    with torch.no_grad():
        clean = int((model(x).argmax(1) == y).sum())
    facts = {"date": str(date.today()), "commit": commit(OUT.parent.parent), "machine": machine()}
    return {
        "suite": args.suite,
        "ball": repr(ball),
        "points": len(x),
        "clean": clean,
        "bare": bare,
        "rows": rows,
    } | facts


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| model | points, clean | search | robust | outcomes that differ | CPU s | of float32 | bare step, forward |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for key, found in results.items():
        base, widest = found["rows"]["float32"], max(found["bare"], key=int)
        for form, runs in found["rows"].items():
            pairs = list(zip(runs, base, strict=True))
            differ = sum(a != b for r, s in pairs for a, b in zip(_left(r), _left(s), strict=True))
            ratio = statistics.median(r["seconds"] / s["seconds"] for r, s in pairs)
            bare = [
                statistics.median(
                    a / b
                    for a, b in zip(
                        found["bare"][widest][form][kind], found["bare"][widest]["float32"][kind], strict=True
                    )
                )
                for kind in ("step", "forward")
            ]
            lines.append(
                f"| {key}, {found['ball']} | {found['points']}, {found['clean']} | {form} | "
                f"{'/'.join(str(r['robust']) for r in runs)} | {differ} | "
                f"{statistics.median(r['seconds'] for r in runs):.1f} | {ratio:.2f} | {bare[0]:.2f}, {bare[1]:.2f} |"
            )
    return "\n".join(lines)


def _left(run: dict[str, Any]) -> list[bool]:
    return [stage < 0 for stage in run["broken_by"]]


def main() -> None:
    """Measure, add and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["preact16"])
    parser.add_argument("--networks", type=Path, help="folder with loader.py, for networks of others")
    parser.add_argument("--points", type=int, default=40)
    parser.add_argument("--offset", type=int, default=0, help="first point of the test set")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--passes", type=int, default=9, help="rounds of bare passes")
    parser.add_argument("--suite", default="standard")
    parser.add_argument("--budget", type=float, default=1, help="share of the steps and queries of standard")
    parser.add_argument("--forms", nargs="+", default=["float32", "bfloat16, channels_last"], choices=list(FORMS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = OUT.with_suffix(".json")
    for name in args.models:
        found = measure(name, args)
        results = json.loads(path.read_text()) if path.is_file() else {}
        key = f"{name}, {args.suite}" + ("" if args.budget == 1 else f" x {args.budget:g}")
        results[key + (f", from point {args.offset}" if args.offset else "")] = found
        path.write_text(json.dumps(results, indent=1) + "\n")
        text = f"# Searching in bfloat16\n\n{(__doc__ or '').splitlines()[0]}\n\n{table(results)}\n\n"
        facts = "; ".join(sorted({f"{f['machine']['cpu']}, {f['date']}, {f['commit']}" for f in results.values()}))
        OUT.with_suffix(".md").write_text(f"{text}One thread. {facts}.\n")


if __name__ == "__main__":
    main()
