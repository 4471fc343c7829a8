"""Does torch.compile of a weight shift pay? Clone, shift and restore of all weights, as loops of torch and compiled.

python bench/compiled_shift.py     # results/compiled_shift.md
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from measure import commit, machine, paired_ratios, time_interleaved
from torch import Tensor
from torch.nn import functional as F

from danskin.minmax import lists
from danskin.minmax.weight_balls import AllWeights
from danskin.models import build

WORKLOADS = {"small_cnn": ((1, 28, 28), 256, 50), "preact_resnet18": ((3, 32, 32), 32, 3)}
RHO = 0.05


def plain(weights: list[Tensor], g: list[Tensor], saved: list[Tensor]) -> None:
    """What `danskin.optim` does around the second pass."""
    kept = [w.clone() for w in weights]
    torch._foreach_add_(weights, AllWeights(RHO).lmo(g, weights))
    torch._foreach_copy_(weights, kept)


def fused(weights: list[Tensor], g: list[Tensor], saved: list[Tensor]) -> None:
    """The same, for the compiler: the copy goes into memory that is kept, and norm, copy and shift may be one loop."""
    length = torch.stack([t.square().sum() for t in g]).sum().sqrt()
    for w, t, s in zip(weights, g, saved, strict=True):
        s.copy_(w)
        w.add_(t * (RHO / length))


def back(weights: list[Tensor], saved: list[Tensor]) -> None:
    """Restore."""
    torch._foreach_copy_(weights, saved)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    words = parser.parse_args()
    torch.set_num_threads(1)
    info = machine()
    lines = [
        "# torch.compile of a weight shift",
        "",
        f"{info['cpu']}, {info['cores']} cores, 1 thread, torch {info['torch']}, danskin "
        f"{commit(Path(__file__).parent.parent)}. Norm of the gradient, copy of the weights, shift and restore, "
        f"without the passes between; median of {words.rounds} interleaved rounds (min-max of the ratio), CPU time.",
        "",
        "| model | weights | as it is, ms | compiled, ms | compiled / as it is | saved, of a SAM step |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, (shape, batch, repeats) in WORKLOADS.items():
        torch.manual_seed(0)
        model = build(name, input_shape=shape, classes=10).train()
        weights = list(model.parameters())
        x, y = torch.rand(batch, *shape), torch.randint(0, 10, (batch,))

        def gradient() -> None:
            model.zero_grad()  # noqa: B023
            F.cross_entropy(model(x), y).backward()  # noqa: B023

        gradient()
        g = [torch.empty_like(w).copy_(w.grad) for w in weights if w.grad is not None]
        saved = [torch.empty_like(w) for w in weights]
        compiled = torch.compile(fused)

        def call(shift: Callable[..., None], restore: bool, n: int = repeats) -> Callable[[], None]:
            def run() -> None:
                with torch.no_grad():
                    for _ in range(n):
                        shift(weights, g, saved)  # noqa: B023
                        if restore:
                            back(weights, saved)  # noqa: B023

            return run

        before = [w.detach().clone() for w in weights]
        with torch.no_grad():
            compiled(weights, g, saved)
            expected = torch._foreach_add(before, AllWeights(RHO).lmo(g, before))
            worst = max(float((a - b).abs().max()) for a, b in zip(weights, expected, strict=True))
            assert worst < 1e-6 and lists.norm(torch._foreach_sub([w.detach() for w in weights], before)) > RHO / 2
            back(weights, saved)
        seconds = time_interleaved(
            {"plain": call(plain, False), "compiled": call(compiled, True), "gradient": gradient},
            words.rounds,
            2,
            0,
            lambda _: None,
            print,
        )
        ms = {k: statistics.median(v["cpu"]) * 1e3 for k, v in seconds.items()}
        ratio = paired_ratios(seconds["compiled"]["cpu"], seconds["plain"]["cpu"])
        gain = (ms["plain"] - ms["compiled"]) / repeats / (2 * ms["gradient"])
        lines.append(
            f"| {name} | {sum(w.numel() for w in weights):,} | {ms['plain'] / repeats:.2f} | "
            f"{ms['compiled'] / repeats:.2f} | {ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f}) | "
            f"{gain:.2%} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    (Path(__file__).parent / "results" / "compiled_shift.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
