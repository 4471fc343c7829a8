"""Does `diagnose` raise false alarms, does it miss masked gradients, and what does it cost?

python bench/diagnose.py                  bench/results/diagnose.md, about twenty minutes on one core
python bench/diagnose.py --only attention  some networks only, without writing

A zoo of ordinary networks on real MNIST, Fashion-MNIST and CIFAR-10 (from $DANSKIN_DATA or a cache of the data), each
as it begins and after a little training, is asked `diagnose` and `evaluate`: no flag is wanted but near_chance.
The same behind a fault must be flagged. Costs are shares of the evaluation's own passes and seconds.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danskin import Linf, Verdict, diagnose, evaluate
from danskin.data import load, to_float
from danskin.evaluation.masking import Flag
from danskin.models import build

RESULT = Path(__file__).parent / "results" / "diagnose.md"
RADIUS = {"mnist": 0.1, "fashion_mnist": 0.1, "cifar10": 8 / 255}
SHAPE = {"mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
STEPS, POINTS = 100, 100


class Function(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[..., Tensor], *inner: nn.Module) -> None:
        super().__init__()
        self.function, self.inner = function, nn.ModuleList(inner)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        return self.function(x, *self.inner)


class Attention(nn.Module):
    """Patches of 4 x 4 as words, one block of attention, the mean over words."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        words = (shape[1] // 4) * (shape[2] // 4)
        self.embed = nn.Conv2d(shape[0], 32, 4, 4)
        self.place = nn.Parameter(0.02 * torch.randn(1, words, 32))
        self.block = nn.TransformerEncoderLayer(32, 4, 64, 0.1, "gelu", batch_first=True, norm_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.head(self.block(self.embed(x).flatten(2).mT + self.place).mean(1))


def convolutional(
    shape: tuple[int, ...], act: Callable[[], nn.Module], pool: Callable[[], nn.Module], norm: str
) -> nn.Module:
    """Two convolutions with pooling, and a linear layer."""
    norms = {
        "": lambda c, n: nn.Identity(),
        "batch": lambda c, n: nn.BatchNorm2d(c),
        "layer": lambda c, n: nn.LayerNorm((c, n, n)),
        "group": lambda c, n: nn.GroupNorm(4, c),
        "instance": lambda c, n: nn.InstanceNorm2d(c),
    }
    n = shape[1]
    return nn.Sequential(
        nn.Conv2d(shape[0], 16, 3, padding=1), norms[norm](16, n), act(), pool(),
        nn.Conv2d(16, 32, 3, padding=1), norms[norm](32, n // 2), act(), pool(),
        nn.Flatten(), nn.Linear(32 * (n // 4) ** 2, 10),
    )  # fmt: skip


def maxpool() -> nn.Module:
    """Of 2 x 2."""
    return nn.MaxPool2d(2)


def avgpool() -> nn.Module:
    """Of 2 x 2."""
    return nn.AvgPool2d(2)


def perceptron(shape: tuple[int, ...], act: Callable[[], nn.Module], *more: nn.Module) -> nn.Module:
    """Two hidden layers."""
    d = shape[0] * shape[1] * shape[2]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(d, 100), act(), *more, nn.Linear(100, 100), act(), *more, nn.Linear(100, 10)
    )


def strided(shape: tuple[int, ...]) -> nn.Module:
    """Convolutions that step over pixels."""
    n = -(-shape[1] // 4)
    return nn.Sequential(
        nn.Conv2d(shape[0], 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * n * n, 10),
    )  # fmt: skip


def pooled_first(shape: tuple[int, ...]) -> nn.Module:
    """Pooling before the activation: windows of constant background tie."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 144, 10)
    )  # fmt: skip


def maxout(shape: tuple[int, ...]) -> nn.Module:
    """The larger one of two linear functions, a hundred times."""
    pairs = Function(lambda z: z.view(len(z), 100, 2).amax(2))
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 200), pairs, nn.Linear(100, 10))


def standardized(x: Tensor, inner: nn.Module) -> Tensor:
    """Each image to mean 0 and standard deviation 1."""
    return inner((x - x.mean((1, 2, 3), True)) / x.std((1, 2, 3), keepdim=True))


def ranged(x: Tensor, inner: nn.Module) -> Tensor:
    """Each image to its own range: all black pixels share the minimum."""
    low, high = x.amin((1, 2, 3), True), x.amax((1, 2, 3), True)
    return inner((x - low) / (high - low))


def clamped(x: Tensor, inner: nn.Module) -> Tensor:
    """A clamp whose kinks are where the data is."""
    return inner(x.clamp(0, 1))


def quantized(x: Tensor, inner: nn.Module) -> Tensor:
    """Nothing done to the model: the inputs are black and white (see `examples`)."""
    return inner(x)


def signed_root(x: Tensor, inner: nn.Module) -> Tensor:
    """A root whose derivative is infinite at black pixels."""
    return inner(x.sqrt())


#: name -> (data, how it is made from the shape of an input)
ZOO: dict[str, tuple[str, Callable[[tuple[int, ...]], nn.Module]]] = {
    "conv-relu-maxpool": ("mnist", lambda s: convolutional(s, nn.ReLU, maxpool, "")),
    "conv-relu-maxpool fashion": ("fashion_mnist", lambda s: convolutional(s, nn.ReLU, maxpool, "")),
    "conv-relu-maxpool cifar": ("cifar10", lambda s: convolutional(s, nn.ReLU, maxpool, "")),
    "maxpool before relu": ("mnist", pooled_first),
    "overlapping maxpool": ("fashion_mnist", lambda s: convolutional(s, nn.ReLU, lambda: nn.MaxPool2d(3, 2, 1), "")),
    "conv-relu-avgpool": ("mnist", lambda s: convolutional(s, nn.ReLU, avgpool, "")),
    "relu6": ("mnist", lambda s: convolutional(s, nn.ReLU6, maxpool, "")),
    "leaky relu": ("fashion_mnist", lambda s: convolutional(s, lambda: nn.LeakyReLU(0.1), maxpool, "")),
    "gelu": ("cifar10", lambda s: convolutional(s, nn.GELU, avgpool, "")),
    "silu": ("mnist", lambda s: convolutional(s, nn.SiLU, maxpool, "")),
    "elu": ("fashion_mnist", lambda s: convolutional(s, nn.ELU, avgpool, "")),
    "batch norm": ("mnist", lambda s: convolutional(s, nn.ReLU, maxpool, "batch")),
    "batch norm cifar": ("cifar10", lambda s: convolutional(s, nn.ReLU, maxpool, "batch")),
    "layer norm": ("mnist", lambda s: convolutional(s, nn.ReLU, maxpool, "layer")),
    "layer norm cifar": ("cifar10", lambda s: convolutional(s, nn.GELU, avgpool, "layer")),
    "group norm": ("fashion_mnist", lambda s: convolutional(s, nn.ReLU, maxpool, "group")),
    "instance norm": ("mnist", lambda s: convolutional(s, nn.ReLU, maxpool, "instance")),
    "dropout": ("mnist", lambda s: perceptron(s, nn.ReLU, nn.Dropout(0.3))),
    "tanh": ("mnist", lambda s: perceptron(s, nn.Tanh)),
    "sigmoid": ("fashion_mnist", lambda s: perceptron(s, nn.Sigmoid)),
    "hard tanh": ("mnist", lambda s: perceptron(s, nn.Hardtanh)),
    "hard sigmoid, hard swish": ("fashion_mnist", lambda s: nn.Sequential(convolutional(s, nn.Hardswish, maxpool, ""))),
    "softplus": ("cifar10", lambda s: perceptron(s, nn.Softplus)),
    "linear": ("mnist", lambda s: nn.Sequential(nn.Flatten(), nn.Linear(784, 10))),
    "attention": ("mnist", Attention),
    "attention cifar": ("cifar10", Attention),
    "strided": ("fashion_mnist", strided),
    "strided cifar": ("cifar10", strided),
    "maxout": ("mnist", maxout),
    "clamped inputs": ("mnist", lambda s: Function(clamped, convolutional(s, nn.ReLU, maxpool, ""))),
    "hard tanh on inputs": ("mnist", lambda s: Function(lambda x, m: m(F.hardtanh(2 * x - 1)), strided(s))),
    "standardized per image": ("fashion_mnist", lambda s: Function(standardized, strided(s))),
    "scaled to its range": ("mnist", lambda s: Function(ranged, strided(s))),
    "root of inputs": ("mnist", lambda s: Function(signed_root, strided(s))),
    "small_cnn": ("mnist", lambda s: build("small_cnn", input_shape=s, classes=10)),
    "preact_resnet8 cifar": ("cifar10", lambda s: build("preact_resnet18", input_shape=s, classes=10, width=8)),
    "black and white inputs": ("mnist", lambda s: Function(quantized, convolutional(s, nn.ReLU, maxpool, ""))),
    "eight gray levels": ("fashion_mnist", lambda s: Function(quantized, convolutional(s, nn.ReLU, maxpool, ""))),
}  # fmt: skip


def examples(name: str, data: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x, y) to train on and (x, y) to judge on."""
    found = load(data)
    x, xt = to_float(found.x_train[:6400]), to_float(found.x_test[:POINTS])
    levels = {"black and white inputs": 1, "eight gray levels": 7}.get(name)
    if levels:
        x, xt = (x * levels).round() / levels, (xt * levels).round() / levels
    return x, found.y_train[:6400], xt, found.y_test[:POINTS]


def train(model: nn.Module, x: Tensor, y: Tensor, steps: int = STEPS) -> nn.Module:
    """A little."""
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for rows in torch.randint(len(x), (steps, 64)):
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return model.eval()


def share(verdict: Verdict) -> float:
    """The diagnosis' part of the evaluation's own passes."""
    own = sum(s.cost.forwards + 2 * s.cost.backwards for s in verdict.stages)
    cost = verdict.diagnosis.cost
    return (cost.forwards + 2 * cost.backwards) / own


def flags_of(flags: tuple[Flag, ...]) -> str:
    """Their names."""
    return ", ".join(flag.name for flag in flags) or "–"


def judged(model: nn.Module, x: Tensor, y: Tensor, radius: float) -> str:
    """A row of the table."""
    began = time.perf_counter()
    verdict = evaluate(model, (x, y), Linf(radius), "fast")
    seconds = time.perf_counter() - began
    look = verdict.diagnosis
    cells = [
        f"{len(y)}", f"{verdict.clean.hits}", f"{verdict.robust.hits}", flags_of(verdict.flags),
        f"{look.examples}, {look.attacked}", f"{100 * share(verdict):.1f} %",
        f"{100 * look.cost.seconds / (seconds - look.cost.seconds):.1f} %", f"{seconds:.1f} s",
    ]  # fmt: skip
    return " | ".join(cells)


def zoo(only: str, points: int, radius: float | None) -> list[str]:
    """Each network as it begins and after a little training."""
    rows = []
    for name, (data, make) in ZOO.items():
        if only not in name:
            continue
        x, y, xt, yt = examples(name, data)
        torch.manual_seed(0)
        model, r = make(SHAPE[data]).eval(), radius or RADIUS[data]
        for state in ("untrained", "trained"):
            if state == "trained":
                train(model.train(), x, y)
            found = flags_of(diagnose(model, xt, yt, Linf(r)))
            rows.append(f"| {name} | {state} | {found} | {judged(model, xt[:points], yt[:points], r)} |")
            print(rows[-1], flush=True)
    return rows


class Straight(torch.autograd.Function):
    """Rounding to eighths whose gradient pretends to be the identity."""

    @staticmethod
    def forward(ctx, x):
        """Round."""
        return (x * 8).round() / 8

    @staticmethod
    def backward(ctx, g):
        """Pretend."""
        return g


FAULTS: dict[str, tuple[str, Callable[[Tensor, nn.Module], Tensor]]] = {
    "softmax inside": ("probabilities", lambda x, m: m(x).softmax(1)),
    "logits times 1e4": ("zero_gradient", lambda x, m: 1e4 * m(x)),
    "rounding without gradient": ("zero_gradient", lambda x, m: m((x * 8).round() / 8)),
    "rounding with a pretended gradient": ("gradient_wrong", lambda x, m: m(Straight.apply(x))),
    "shattered": ("gradient_shattered", lambda x, m: m(x + 0.1 * torch.sin(500 * x))),
    "noise in the forward pass": ("random", lambda x, m: m(x + 0.1 * torch.randn_like(x))),
    "inputs expected in 0 to 255": ("scaled_otherwise", lambda x, m: m((x / 255 - 0.1307) / 0.3081)),
}


def faulty() -> list[str]:
    """The network that was once flagged for nothing, behind faults."""
    x, y, xt, yt = examples("", "mnist")
    torch.manual_seed(0)
    normal = Function(lambda x, m: m((x - 0.1307) / 0.3081), convolutional((1, 28, 28), nn.ReLU, maxpool, ""))
    model, rows = train(normal, x, y), []
    for name, (wanted, fault) in FAULTS.items():
        inner = model if "expected" not in name else model.inner[0]
        bad = Function(fault, inner).eval()
        verdict = evaluate(bad, (xt[:40], yt[:40]), Linf(0.1), "fast")
        found = flags_of(diagnose(bad, xt, yt, Linf(0.1)))
        rows.append(f"| {name} | {wanted} | {found} | {flags_of(verdict.flags)} |")
        print(rows[-1], flush=True)
    return rows


def large() -> list[str]:
    """Networks that are not toys: one of others, where $DANSKIN_MODELS has it, and an 18-layer residual network."""
    x, y, xt, yt = examples("", "cifar10")
    rows = []
    if folder := os.environ.get("DANSKIN_MODELS"):
        sys.path.insert(0, folder)
        network = importlib.import_module("loader").load("cifar_ak_resnet20")[0]
        rows.append(f"| cifar_ak_resnet20 | {judged(network, xt, yt, 8 / 255)} |")
        print(rows[-1], flush=True)
    torch.manual_seed(0)
    model = build("preact_resnet18", input_shape=(3, 32, 32), classes=10)
    train(model, x, y, 20)
    rows.append(f"| PreActResNet-18, 20 steps of training | {judged(model, xt[:8], yt[:8], 1 / 255)} |")
    print(rows[-1], flush=True)
    return rows


HEAD = "points | right | left | flags | looked at | passes | seconds | evaluation"


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="networks of the zoo with this in their name, and nothing written")
    parser.add_argument("--points", type=int, default=20, help="that an evaluation is asked about; diagnose has 100")
    parser.add_argument("--radius", type=float)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = zoo(options.only, options.points, options.radius)
    if options.only or options.radius:
        return
    heads = [
        f"| network | state | diagnose | {HEAD} |",
        "| fault | wanted | diagnose | evaluate |",
        f"| network | {HEAD} |",
    ]
    parts = [rows, faulty(), large()]
    titles = ["Ordinary networks", "The same behind faults", "Cost on networks that are not toys"]
    text = (
        "# Flags of `diagnose`, and what it costs\n\nWritten by `bench/diagnose.py`; suite `fast`, one thread, torch "
        f"{torch.__version__}. `diagnose` looks at 100 examples; an evaluation spends on it a fifteenth of its own "
        "passes while nothing is in doubt, and at least the some sixteen that two examples take: more than a tenth "
        "only where all of it is over in a tenth of a second. Looked at: examples, and those that attacks were tried "
        "on. Passes, seconds: shares of the evaluation's own. Evaluation: all of it.\n"
    )
    for title, head, part in zip(titles, heads, parts, strict=True):
        text += f"\n## {title}\n" + "\n".join([head, "|" + " --- |" * (head.count("|") - 1), *part]) + "\n"
    RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
