"""What one step of each training method costs, over the passes it cannot avoid.

    python bench/training.py                 # results/training.json and results/training.md
    python bench/training.py --rounds 3 --only ELLE

Each row is one call of an objective and backward(). It is divided by forward-equivalents times one bare forward pass,
where a forward-equivalent is the arithmetic of a forward pass (a backward pass to the input is one more, to input and
weights two), and, as that quotient also holds how fast this machine goes backward, by the same passes made bare.
Interleaved, median of the rounds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from measure import machine, paired_ratios, time_interleaved

from danskin.attacks import BETA, FGSM, NFGSM, PGD, RSFGSM
from danskin.minmax import Linf
from danskin.models import build
from danskin.regularizers import CURE, ELLE, ELLE_A, LLR, GradAlign
from danskin.training import (
    AWP,
    MART,
    TRADES,
    AdversarialTraining,
    BETATraining,
    DDi,
    FreeTraining,
    Objective,
    Regularized,
    StandardTraining,
)

BALL = Linf("8/255")
STEP = "2/255"
NOISY = {"start_noise": 0.001, "keep": "last"}
FAST = AdversarialTraining(FGSM(BALL))


def pgd(steps: int, **settings: object) -> PGD:
    return PGD(BALL, steps, STEP, **({"keep": "last"} | settings))


def beta(steps: int, **settings: object) -> BETA:
    return BETA(BALL, steps=steps, step=STEP, keep="value", **settings)


def regularized(*terms: object) -> Objective:
    return Regularized(FAST, terms)


#: Label: (objective, forward-equivalents, bare passes: forward, to the input, to the weights). A backward pass through
#: a gradient is counted by measured arithmetic: 6.1 forward passes for GradAlign.
ROWS: dict[str, tuple[Objective, float, tuple[int, int, int]]] = {
    "standard": (StandardTraining(), 3, (0, 0, 1)),
    "FGSM": (FAST, 5, (0, 1, 1)),
    "RS-FGSM": (AdversarialTraining(RSFGSM(BALL)), 5, (0, 1, 1)),
    "N-FGSM": (AdversarialTraining(NFGSM(BALL)), 5, (0, 1, 1)),
    "Free, a replay": (FreeTraining(BALL), 3, (0, 0, 1)),
    "GradAlign": (regularized(GradAlign(BALL, 0.2)), 11.1, (0, 1, 3)),
    "GradAlign, a quarter": (regularized(GradAlign(BALL, 0.2, share=0.25)), 6.5, (0, 1, 1)),
    "CURE with FGSM": (regularized(CURE(BALL, 1.0, detach=True)), 11.1, (0, 1, 3)),
    "CURE with FGSM, both gradients differentiated": (regularized(CURE(BALL, 1.0, 0.1)), 17, (0, 1, 5)),
    "ELLE": (regularized(ELLE(BALL, 1000.0)), 14, (0, 1, 4)),
    "ELLE, a quarter": (regularized(ELLE(BALL, 1000.0, share=0.25)), 7.3, (0, 1, 1)),
    "ELLE-A, weight 0": (regularized(ELLE_A(BALL, 4000.0)), 8, (3, 1, 1)),
    "LLR-2": (Regularized(StandardTraining(), (LLR(BALL, 4.0, steps=2),)), 15.1, (0, 2, 3)),
    "LLR-10": (Regularized(StandardTraining(), (LLR(BALL, 4.0, steps=10),)), 31.1, (0, 10, 3)),
    "PGD-10": (AdversarialTraining(pgd(10)), 23, (0, 10, 1)),
    "MART-10": (MART(pgd(10, **NOISY)), 26, (0, 10, 2)),
    "AT-AWP-10": (AWP(AdversarialTraining(pgd(10))), 26, (0, 10, 2)),
    "TRADES-10": (TRADES(pgd(10, **NOISY)), 27, (1, 10, 2)),
    "BETA-10": (BETATraining(beta(10)), 192, (9, 90, 1)),
    "BETA-10, first step shared": (BETATraining(beta(10, shared_first=True)), 184, (2, 90, 1)),
    "BETA-10, 3 classes": (BETATraining(beta(10, classes=3)), 67, (4, 30, 1)),
    "BETA-10 smooth": (BETATraining(beta(10), mu=10.0), 207, (9, 90, 9)),
    "DDi, 10 of PGD-7": (DDi(pgd(7), 10), 170, (0, 70, 10)),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=32, help="of PreActResNet-18; 64 is the published one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="rows with this in their name")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = build("preact_resnet18", input_shape=(3, 32, 32), classes=10, width=args.width)
    x, y = torch.rand(args.batch, 3, 32, 32), torch.randint(10, (args.batch,))
    weights = list(model.parameters())
    rows = {name: row for name, row in ROWS.items() if args.only in name}
    memories = {name: objective.begin() for name, (objective, _, _) in rows.items()}

    def zero() -> None:
        for p in weights:
            p.grad = None

    def step(name: str) -> Callable[[], object]:
        def call() -> None:
            zero()
            rows[name][0](model, x, y, seed=1, memory=memories[name]).backward()
            if name == "ELLE-A, weight 0":  # the same phase in every round
                memories[name] = rows[name][0].begin()

        return call

    def forward() -> None:
        with torch.no_grad():
            model(x)

    def to_input() -> None:
        leaf = x.clone().requires_grad_()
        for p in weights:
            p.requires_grad_(False)
        torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)
        for p in weights:
            p.requires_grad_(True)

    def to_weights() -> None:
        zero()
        F.cross_entropy(model(x), y).backward()

    def repeated(n: int, call: Callable[[], object]) -> Callable[[], object]:
        return lambda: [call() for _ in range(n)] and None

    model.train()
    calls = {name: step(name) for name in rows}
    bare = {"bare forward": forward, "bare to the input": to_input, "bare to the weights": to_weights}
    calls |= {name: repeated(3, call) for name, call in bare.items()}
    times = time_interleaved(calls, args.rounds, 1, 0, lambda name: None, lambda text: print(text, flush=True))
    unit = {name: [t / 3 for t in times[name]["cpu"]] for name in bare}
    out = {}
    for name, (_, equivalents, (f, i, w)) in rows.items():
        own = times[name]["cpu"]
        passes = [f * a + i * b + w * c for a, b, c in zip(*unit.values(), strict=True)]
        out[name] = {
            "equivalents": equivalents,
            "passes": [f, i, w],
            "over_equivalents": paired_ratios(own, [equivalents * t for t in unit["bare forward"]]),
            "over_passes": paired_ratios(own, passes),
            "over_standard": paired_ratios(own, unit["bare to the weights"]),
            "seconds": own,
        }
    ratio = {n: paired_ratios(unit[n], unit["bare forward"])["median"] for n in bare}
    report = {"machine": machine(), "settings": vars(args) | {"out": None}, "bare": ratio, "rows": out}
    args.out.mkdir(exist_ok=True)
    (args.out / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "training.md").write_text(markdown(report))
    print(markdown(report))


def markdown(report: dict) -> str:
    bare = report["bare"]
    settings = report["settings"]
    lines = [
        "# One training step of each method", "",
        f"PreActResNet-18 of width {settings['width']}, {settings['batch']} x 3x32x32, CPU seconds, "
        f"{settings['threads']} thread(s), median (min-max) of {settings['rounds']} interleaved rounds. Here a "
        f"bare pass to the input costs {bare['bare to the input']:.2f} bare forward passes (2 by arithmetic), "
        f"one to the weights {bare['bare to the weights']:.2f} (3 by arithmetic).", "",
        "| method | forward-equivalents | time ÷ (equivalents x bare forward) | time ÷ the same passes bare | "
        "time ÷ standard step |",
        "|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for name, row in report["rows"].items():
        a, b, c = (row[k] for k in ("over_equivalents", "over_passes", "over_standard"))
        lines.append(
            f"| {name} | {row['equivalents']:g} | {a['median']:.2f} ({a['min']:.2f}-{a['max']:.2f}) | "
            f"{b['median']:.2f} | {c['median']:.1f} |"
        )
    facts = {k: v for k, v in report["machine"].items() if k not in ("load_at_end",)}
    return "\n".join([*lines, "", ", ".join(f"{k}: {v}" for k, v in facts.items()), ""])


if __name__ == "__main__":
    main()
