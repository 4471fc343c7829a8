"""Minimum-norm and decision-based attacks: how small a perturbation, and at what price, danskin and its peers find.

    bench/peers/.venv/bin/python bench/minimum_norm.py --networks MODELS --data DATA

Every row attacks the same examples of the same model, alone in its process' thread, with the same budget. Perturbations
are measured afterwards by the plain model: an example that it still classifies correctly counts as infinite.
"time / passes" divides the seconds by those of as many bare forward and backward passes of the same batch.
Without --networks only the digits model, trained here in a few seconds, is used.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from contestants import _stubs
from measure import Counter, commit, machine, version
from torch import Tensor, nn

from danskin.attacks.boundary import Boundary
from danskin.attacks.carlini_wagner import CarliniWagner
from danskin.attacks.ddn import DDN
from danskin.attacks.deepfool import DeepFool
from danskin.attacks.ead import EAD
from danskin.attacks.fmn import FMN
from danskin.attacks.hop_skip_jump import HopSkipJump
from danskin.data import load, to_float
from danskin.minmax import L1, L2, Linf
from danskin.models import build

HERE = Path(__file__).resolve().parent
ORDERS = {"linf": math.inf, "l2": 2, "l1": 1}
BALLS = {"linf": Linf(1.0), "l2": L2(8.0), "l1": L1(40.0)}
SETS = {"mnist": "mnist", "fashion": "fashion_mnist", "cifar": "cifar10"}
Attack = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]  # (model, x, y, images of other classes) -> points


@dataclass(frozen=True)
class Row:
    """One attack of one library.

    Args:
        group: rows of one group have the same budget and are compared with one another.
        norm: "linf", "l2" or "l1".
        library: whose.
        attack: (model, x, y, starts) -> perturbed inputs.
        slow: run on the digits model only.
    """

    group: str
    norm: str
    library: str
    attack: Attack
    slow: bool = False


def danskin(make: Callable[..., Any], norm: str, starts: bool = False, **options: Any) -> Attack:
    def attack(model: nn.Module, x: Tensor, y: Tensor, others: Tensor) -> Tensor:
        more = {"starts": others} if starts else {}
        return make(BALLS[norm], **options, **more)(model, x, y, seed=0).x

    return attack


def foolbox(name: str, starts: bool = False, **options: Any) -> Attack:
    def attack(model: nn.Module, x: Tensor, y: Tensor, others: Tensor) -> Tensor:
        import foolbox

        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        more = {"starting_points": nearest(model.model, x, y, others)} if starts else {}
        return getattr(foolbox.attacks, name)(**options).run(wrapped, x, y, **more)

    return attack


def adv_lib(name: str, **options: Any) -> Attack:
    def attack(model: nn.Module, x: Tensor, y: Tensor, others: Tensor) -> Tensor:
        with _stubs():
            import adv_lib.attacks
        return getattr(adv_lib.attacks, name)(model, x, y, **options)

    return attack


def torchattacks(name: str, **options: Any) -> Attack:
    def attack(model: nn.Module, x: Tensor, y: Tensor, others: Tensor) -> Tensor:
        import torchattacks

        return getattr(torchattacks, name)(model, **options)(x, y)

    return attack


def nearest(model: nn.Module, x: Tensor, y: Tensor, others: Tensor) -> Tensor:
    """For each example the nearest of `others` that the model takes for something else: not counted."""
    with torch.no_grad():
        guess = model(others).argmax(1)
    far = torch.cdist(x.flatten(1), others.flatten(1))
    return others[far.masked_fill(guess[None] == y[:, None], math.inf).argmin(1)]


ROWS = [
    Row("DeepFool, 50 steps", "l2", "danskin", danskin(DeepFool, "l2")),
    Row("DeepFool, 50 steps", "l2", "foolbox", foolbox("L2DeepFoolAttack")),
    Row("DeepFool, 50 steps", "l2", "adv-lib", adv_lib("df", steps=50, norm=2)),
    Row("DeepFool, 50 steps", "l2", "torchattacks", torchattacks("DeepFool"), slow=True),
    Row("DeepFool, 50 steps", "linf", "danskin", danskin(DeepFool, "linf")),
    Row("DeepFool, 50 steps", "linf", "foolbox", foolbox("LinfDeepFoolAttack")),
    Row("DeepFool, 50 steps", "linf", "adv-lib", adv_lib("df", steps=50, norm=math.inf)),
    Row("DDN, 100 steps", "l2", "danskin", danskin(DDN, "l2", steps=100)),
    Row("DDN, 100 steps", "l2", "foolbox", foolbox("DDNAttack", steps=100)),
    Row("DDN, 100 steps", "l2", "adv-lib", adv_lib("ddn", steps=100, levels=None)),
    *(
        row
        for norm, name in (("linf", "LInfFMNAttack"), ("l2", "L2FMNAttack"), ("l1", "L1FMNAttack"))
        for row in (
            Row("FMN, 100 steps", norm, "danskin", danskin(FMN, norm, steps=100)),
            Row("FMN, 100 steps", norm, "foolbox", foolbox(name, steps=100)),
            Row("FMN, 100 steps", norm, "adv-lib", adv_lib("fmn", steps=100, norm=ORDERS[norm])),
        )
    ),
    Row("C&W, 9 x 100 steps", "l2", "danskin", danskin(CarliniWagner, "l2", searches=9, steps=100)),
    Row("C&W, 9 x 100 steps", "l2", "foolbox", foolbox("L2CarliniWagnerAttack", binary_search_steps=9, steps=100)),
    Row(
        "C&W, 9 x 100 steps",
        "l2",
        "adv-lib",
        adv_lib("carlini_wagner_l2", binary_search_steps=9, max_iterations=100),
    ),
    Row("C&W, 9 x 100 steps", "l2", "torchattacks (no search)", torchattacks("CW", steps=900)),
    Row("EAD, 9 x 100 steps, rule l1", "l1", "danskin", danskin(EAD, "l1", searches=9, steps=100, rule="l1")),
    Row(
        "EAD, 9 x 100 steps, rule l1",
        "l1",
        "foolbox",
        foolbox("EADAttack", binary_search_steps=9, steps=100, decision_rule="L1"),
    ),
    Row(
        "EAD, 9 x 100 steps, rule l1",
        "l1",
        "torchattacks",
        torchattacks("EADL1", binary_search_steps=9, max_iterations=100, beta=0.01),
    ),
    Row("HopSkipJump, about 2000 queries", "l2", "danskin", danskin(HopSkipJump, "l2", True, queries=2000)),
    Row("HopSkipJump, about 2000 queries", "l2", "foolbox", foolbox("HopSkipJumpAttack", True, steps=9)),
    Row("HopSkipJump, about 2000 queries", "linf", "danskin", danskin(HopSkipJump, "linf", True, queries=2000)),
    Row(
        "HopSkipJump, about 2000 queries",
        "linf",
        "foolbox",
        foolbox("HopSkipJumpAttack", True, steps=9, constraint="linf"),
    ),
    Row("Boundary, about 2000 queries", "l2", "danskin", danskin(Boundary, "l2", True, queries=2000)),
    Row("Boundary, about 2000 queries", "l2", "foolbox", foolbox("BoundaryAttack", True, steps=1820)),
]


@dataclass(frozen=True)
class Workload:
    """A model in eval mode, examples it classifies correctly, and images to start decision-based attacks from."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    others: Tensor


def workload(name: str, model: nn.Module, x: Tensor, y: Tensor, points: int, others: int = 40) -> Workload:
    model.eval().requires_grad_(False)
    with torch.no_grad():
        right = model(x).argmax(1) == y
    x, y = x[right], y[right]
    return Workload(name, model, x[:points], y[:points], x[points : points + others])


def digits(points: int) -> Workload:
    """A small CNN, 15 epochs of Adam on the embedded digits."""
    data = load("digits")
    x, y = to_float(data.x_train), data.y_train
    torch.manual_seed(0)
    model = build("small_cnn", input_shape=tuple(x.shape[1:]), classes=10)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(15):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return workload("small CNN, digits", model, to_float(data.x_test), data.y_test, points)


def shared(folder: Path, data: Path, name: str, points: int) -> Workload:
    sys.path.insert(0, str(folder))
    from loader import load as load_network  # type: ignore[import-not-found]

    network, _ = load_network(name)
    test = load(SETS[name.split("_")[0]], data)
    return workload(name, network, to_float(test.x_test[:300]), test.y_test[:300], points)


def bare(work: Workload) -> tuple[float, float]:
    """CPU seconds of a forward pass of the whole batch without a gradient, and of a backward pass more."""
    forward, both = [], []
    for _ in range(7):
        start = time.process_time()
        with torch.no_grad():
            work.model(work.x)
        forward.append(time.process_time() - start)
        start = time.process_time()
        z = work.x.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(work.model(z), work.y, reduction="sum"), z)
        both.append(time.process_time() - start)
    return statistics.median(forward), max(0.0, statistics.median(both) - statistics.median(forward))


def run(row: Row, work: Workload, passes: tuple[float, float], rounds: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"group": row.group, "norm": row.norm, "library": row.library}
    seconds = []
    try:
        for _ in range(rounds):
            work.model.requires_grad_(False)
            counter = Counter(work.model).eval()
            start = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = row.attack(counter, work.x.clone(), work.y.clone(), work.others)
            seconds.append(time.process_time() - start)
    except Exception as error:  # a peer's own: said in the table, and the others go on
        traceback.print_exc()
        return facts | {"status": f"failed: {type(error).__name__}: {str(error)[:80]}"}
    n, found = len(work.x), found.detach()
    with torch.no_grad():
        wrong = work.model(found).argmax(1) != work.y
    norms = torch.linalg.vector_norm((found - work.x).flatten(1), ORDERS[row.norm], dim=1)
    norms = torch.where(wrong, norms, math.inf).sort().values
    cost = counter.forwards / n * passes[0] + counter.backwards / n * passes[1]
    return facts | {
        "status": "ok",
        "success": float(wrong.float().mean()),
        "median": float(norms[n // 2 - 1 : n // 2 + 1].mean()),
        "quarter": float(norms[n // 4]),
        "three_quarters": float(norms[3 * n // 4]),
        "forwards": counter.forwards / n,
        "backwards": counter.backwards / n,
        "calls": counter.calls,
        "seconds": min(seconds),
        "over_passes": min(seconds) / cost,
    }


def against_best(rows: list[dict[str, Any]]) -> None:
    """The median over that of the best peer of the same group and norm."""
    for row in rows:
        peers = [
            r["median"]
            for r in rows
            if (r["group"], r["norm"]) == (row["group"], row["norm"]) and r["library"] != "danskin" and "median" in r
        ]
        if row["library"] == "danskin" and peers and "median" in row:
            row["over_best_peer"] = row["median"] / min(peers)


def number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "-"


def markdown(report: dict[str, Any]) -> str:
    about = report["machine"]
    text = [
        "# Minimum-norm and decision-based attacks",
        "",
        f"{report['date']}, commit {report['commit']}, `{report['command']}`, {about['cpu']}, "
        f"{about['threads']} thread, torch {about['torch']}; "
        + ", ".join(f"{k} {v}" for k, v in report["versions"].items())
        + ".",
        "",
        "Median norm of the perturbations (an example not broken counts as infinite), share broken, passes per "
        "example, sequential calls, CPU seconds, and these over the seconds of as many bare passes of the whole batch.",
    ]
    for name, result in report["models"].items():
        text += ["", f"## {name}, {result['points']} examples", ""]
        text += [
            "| attack | norm | library | median | / best peer | broken | forwards | backwards | calls | seconds "
            "| time / passes |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for r in result["rows"]:
            head = f"| {r['group']} | {r['norm']} | {r['library']} "
            if r["status"] != "ok":
                text.append(head + f"| {r['status']} | | | | | | | |")
                continue
            best = f"{r['over_best_peer']:.3f}" if "over_best_peer" in r else ""
            text.append(
                head + f"| {number(r['median'])} | {best} | {100 * r['success']:.0f} % | {r['forwards']:.0f} "
                f"| {r['backwards']:.0f} | {r['calls']} | {r['seconds']:.2f} | {r['over_passes']:.2f} |"
            )
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, help="folder with loader.py; default: digits only")
    parser.add_argument("--names", nargs="*", default=["mnist_kw_0.1"])
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--points", type=int, default=64)
    parser.add_argument("--network-points", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1, help="the least of so many times is reported (default: 1)")
    parser.add_argument("--only", default="", help="only rows with this text in group, norm or library")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "minimum_norm.json", help=".md goes beside it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "commit": commit(HERE.parent),
        "command": " ".join(["python", "bench/minimum_norm.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": {name: version(name) for name in ("foolbox", "adv-lib", "torchattacks")},
        "models": {},
    }
    works = [digits(options.points)]
    if options.networks:
        works += [shared(options.networks, options.data, name, options.network_points) for name in options.names]
    for k, work in enumerate(works):
        passes, rows = bare(work), []
        for row in ROWS:
            if options.only not in f"{row.group} {row.norm} {row.library}" or (row.slow and k):
                continue
            rows.append(run(row, work, passes, options.rounds))
            print(work.name, {k: v for k, v in rows[-1].items() if k != "status" or v != "ok"}, file=sys.stderr)
        against_best(rows)
        report["models"][work.name] = {
            "points": len(work.x),
            "forward_seconds": passes[0],
            "backward_seconds": passes[1],
            "rows": rows,
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(markdown(report), encoding="utf-8")
    print(markdown(report))


if __name__ == "__main__":
    main()
