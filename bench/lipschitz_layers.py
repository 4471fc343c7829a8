"""What a training step of a 1-Lipschitz layer costs beside the plain layer, and beside orthogonium's.

    python bench/lipschitz_layers.py            # bench/results/lipschitz_layers.json and .md; about a minute

Forward and backward to weights and inputs, interleaved rounds, the median of process times (other work on the machine
does not count). One thread.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from danskin.lipschitz.layers import (
    Abs,
    AOLConv2d,
    AOLLinear,
    GroupSort,
    LinearSpline,
    OrthogonalConv2d,
    OrthogonalLinear,
    SpectralConv2d,
    SpectralLinear,
)

RESULTS = Path(__file__).parent / "results"
Make = Callable[[], nn.Module]


def orthogonium(name: str, *args: object, **options: object) -> nn.Module:
    """A layer of orthogonium; ImportError where it is not installed."""
    import orthogonium.layers as layers

    return getattr(layers, name)(*args, **options)  # type: ignore[no-any-return]


def groups() -> dict[str, tuple[Tensor, dict[str, Make]]]:
    """Inputs, and the layers to compare on them, the plain one first."""
    g = torch.Generator().manual_seed(0)
    vector, image = torch.randn(256, 256, generator=g), torch.randn(32, 32, 16, 16, generator=g)
    channels = torch.randn(256, 256, generator=g)
    conv = (32, 64, 3, 1, 1)
    return {
        "linear 256 to 256, batch 256": (
            vector,
            {
                "nn.Linear": lambda: nn.Linear(256, 256),
                "torch spectral_norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(256, 256)),
                "torch orthogonal": lambda: nn.utils.parametrizations.orthogonal(nn.Linear(256, 256)),
                "orthogonium OrthoLinear": lambda: orthogonium("OrthoLinear", 256, 256),
                "SpectralLinear power": lambda: SpectralLinear(256, 256),
                "SpectralLinear exact": lambda: SpectralLinear(256, 256, mode="exact"),
                "SpectralLinear bound": lambda: SpectralLinear(256, 256, mode="bound"),
                "OrthogonalLinear bjorck": lambda: OrthogonalLinear(256, 256),
                "OrthogonalLinear householder": lambda: OrthogonalLinear(256, 256, method="householder"),
                "OrthogonalLinear cayley": lambda: OrthogonalLinear(256, 256, method="cayley"),
                "AOLLinear": lambda: AOLLinear(256, 256),
            },
        ),
        "convolution 32 to 64, 3x3, 16x16 images, batch 32": (
            image,
            {
                "nn.Conv2d": lambda: nn.Conv2d(*conv),
                "orthogonium AdaptiveOrthoConv2d": lambda: orthogonium("AdaptiveOrthoConv2d", *conv),
                "SpectralConv2d power": lambda: SpectralConv2d(*conv, image_size=16),
                "SpectralConv2d bound": lambda: SpectralConv2d(*conv, image_size=16, mode="bound"),
                "OrthogonalConv2d bjorck": lambda: OrthogonalConv2d(*conv),
                "OrthogonalConv2d cayley": lambda: OrthogonalConv2d(*conv, method="cayley"),
                "AOLConv2d": lambda: AOLConv2d(*conv),
            },
        ),
        "activation of 256 channels, batch 256": (
            channels,
            {
                "nn.ReLU": nn.ReLU,
                "Abs": Abs,
                "GroupSort": lambda: GroupSort(2),
                "LinearSpline": lambda: LinearSpline(256),
            },
        ),
    }


def step(layer: nn.Module, x: Tensor) -> float:
    """Process seconds of a forward and a backward pass."""
    x = x.detach().requires_grad_()
    start = time.process_time()
    layer(x).sum().backward()
    return time.process_time() - start


def main() -> None:
    """Time everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    told: dict[str, dict[str, dict[str, float | str]]] = {}
    lines = ["# A training step of 1-Lipschitz layers", ""]
    for title, (x, makes) in groups().items():
        layers, missing = {}, {}
        for name, make in makes.items():
            torch.manual_seed(0)
            try:
                layers[name] = make().train()
            except ImportError as error:
                missing[name] = str(error)
        times: dict[str, list[float]] = {name: [] for name in layers}
        for k in range(rounds + 2):
            for name, layer in layers.items():
                seconds = step(layer, x)
                if k >= 2:
                    times[name].append(seconds)
        plain = statistics.median(next(iter(times.values())))
        told[title] = {}
        lines += [
            f"## {title}",
            "",
            "| layer | ms | times the plain one | certified constant, float64 |",
            "|---|--:|--:|--:|",
        ]
        for name, held in times.items():
            ms = 1e3 * statistics.median(held)
            constant = getattr(layers[name].double().eval(), "lipschitz", "-")
            shown = f"{constant:.9f}" if isinstance(constant, float) else "-"
            told[title][name] = {"ms": ms, "ratio": ms / plain / 1e3, "constant": constant}
            lines.append(f"| {name} | {ms:.2f} | {ms / plain / 1e3:.1f} | {shown} |")
        lines += [f"| {name} | not installed | | |" for name in missing] + [""]
    RESULTS.mkdir(exist_ok=True)
    note = f"torch {torch.__version__}, one thread, median process time of {rounds} rounds."
    (RESULTS / "lipschitz_layers.json").write_text(json.dumps({"note": note, "groups": told}, indent=1) + "\n")
    (RESULTS / "lipschitz_layers.md").write_text("\n".join([*lines, note]) + "\n")
    print("\n".join([*lines, note]))


if __name__ == "__main__":
    main()
