"""Row E6: every bound of small networks beside the exact constant, and what is left for larger ones."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from danskin.data import load, to_float
from danskin.lipschitz import Lipschitz, lipschitz, lipschitz_lower, product_bound
from danskin.models import preact_resnet18
from danskin.recipes.sampling_study import number_of
from danskin.report.bounds import bounds_figure
from danskin.report.drawing import Drawn

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}
#: Columns from below to above; SeqLip and LiPopt are not ordered against LipSDP-layer and ECLipsE-Fast.
ORDER = ("search", "exact", "LipSDP-neuron", "LipSDP-layer", "ECLipsE-Fast", "product")
_SLACK = 1 + 1e-5  # LipSDP stops that near its optimum


def network(settings: Mapping[str, Any], seed: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A network of a case, and the shape of its inputs; weights come from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if settings["kind"] == "resnet18":
            return preact_resnet18(input_shape=(3, 32, 32), classes=10).eval(), (3, 32, 32)
        if settings["kind"] == "digits":
            return _digits(settings["steps"]), (1, 8, 8)
        return _sine(settings), (settings["sizes"][0],)


def _sine(settings: Mapping[str, Any]) -> nn.Module:
    """A fully connected network, trained on sin(3 sum x + k) by Adam."""
    sizes, layers = settings["sizes"], []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b, dtype=torch.float64), _ACTIVATIONS[settings.get("activation", "relu")]()]
    net = nn.Sequential(*layers[:-1])
    x = torch.randn(512, sizes[0], dtype=torch.float64)
    wanted = torch.stack([torch.sin(3 * x.sum(1) + k) for k in range(sizes[-1])], 1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(settings["steps"]):
        optimizer.zero_grad()
        (net(x) - wanted).square().mean().backward()
        optimizer.step()
    return net.eval()


def _digits(steps: int) -> nn.Module:
    """A convolutional network for the built-in digits."""
    data = load("digits")
    x, y = to_float(data.x_train), data.y_train
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(steps):
        at = torch.randint(len(x), (128,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[at].view(-1, 1, 8, 8)), y[at]).backward()
        optimizer.step()
    return net.eval()


def cell(settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The numbers of one network."""
    net, shape = network(settings, seed)
    if settings["kind"] == "resnet18":
        return _large(net, shape)
    methods = ["search", "lipsdp", "lipsdp-layer", "eclipse-fast", "product"]
    methods += ["lipopt"] if settings["norm"] == "inf" else ["seqlip"] if settings["kind"] == "sine" else []
    methods += ["regions"] if settings["exact"] else []
    found = lipschitz(net, shape, norm=settings["norm"], methods=methods, budget_s=settings["budget"], seed=seed)
    return _told(found, settings["exact"])


def _told(found: Lipschitz, exact: bool) -> dict[str, Any]:
    """Bounds as multiples of the exact constant, or of LipSDP-neuron where that is not to be had."""
    values, seconds = {}, {}
    for bound in found.bounds:
        name = bound.method.split("-")[0] if bound.method.startswith("LiPopt") else bound.method
        name = "exact" if name == "regions" else name
        if name == "exact" and bound.kind == "lower":
            continue
        values[name], seconds[name] = bound.value, bound.seconds
    closed = exact and found["regions"].value <= found.lower.value * _SLACK
    base = "exact" if closed else "LipSDP-neuron"
    if exact and not closed:
        values.pop("exact")
    order = [values[name] for name in ORDER if name in values]
    numbers = {f"{base} (absolute)": values[base]}
    numbers |= {name: values[name] / values[base] for name in sorted(values, key=lambda n: values[n]) if name != base}
    numbers |= {f"seconds, {name}": seconds[name] for name in ("LipSDP-neuron", "exact") if name in values}
    ordered = all(a <= b * _SLACK for a, b in itertools.pairwise(order))
    return {"numbers": numbers, "shares": {"in order": float(ordered)}}


def _large(net: nn.Module, shape: tuple[int, ...]) -> dict[str, Any]:
    product = product_bound(net, shape)
    lower = lipschitz_lower(net, torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)), steps=10)
    numbers = {"quotient": lower.value, "product": product.value, "seconds, product": product.seconds}
    return {"numbers": numbers, "shares": {"in order": float(lower.value <= product.value)}}


def draw(result: Mapping[str, Any]) -> list[Drawn]:
    """A panel for each case: bounds as multiples of the best known constant."""
    cases: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for case, methods in result["configs"].items():
        for method in methods:
            found = [(c, number_of(result, case, method, c)) for c in result["columns"][case]]
            shown = [
                (c, float(n["mean"]))
                for c, n in found
                if n is not None and "seconds" not in c and "absolute" not in c and n["unit"] == "number"
            ]
            if any(c == "ECLipsE-Fast" for c, _ in shown):
                cases.setdefault(case, {})[result["methods"][method]] = shown
    return bounds_figure(cases)
