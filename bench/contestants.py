"""What bench/attacks.py runs: two models, bare passes, danskin, and its peers, all for the same ten steps."""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from measure import Call
from torch import Tensor, nn

from danskin.attacks import PGD
from danskin.minmax import L1, L2, Linf
from danskin.models import build

EPS, STEP, STEPS = 8 / 255, 2 / 255, 10
STUBS = Path(__file__).parent / "peers" / ".venv" / "stubs"


class NotInstalled(Exception):
    """A peer is not there."""


@dataclass(frozen=True)
class Workload:
    """A model and the size of its batch."""

    model: str
    shape: tuple[int, int, int]
    batch: int


WORKLOADS = {
    "small_cnn": Workload("small_cnn", (1, 28, 28), 256),
    "preact_resnet18": Workload("preact_resnet18", (3, 32, 32), 64),
}


@dataclass(frozen=True)
class Setup:
    """A model in eval mode, and examples it classifies correctly."""

    model: nn.Module
    x: Tensor
    y: Tensor


@lru_cache
def _plain(workload: Workload) -> Setup:
    torch.manual_seed(0)
    model = build(workload.model, input_shape=workload.shape, classes=10)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    model.eval().requires_grad_(False)
    x = torch.rand(workload.batch, *workload.shape)
    with torch.no_grad():
        return Setup(model, x, model(x).argmax(1))


@lru_cache
def setup(workload: Workload, treatment: str) -> Setup:
    """The same model and examples under a treatment; made once, parameters frozen unless "trainable"."""
    plain = _plain(workload)
    model, x = copy.deepcopy(plain.model), plain.x.clone()
    if treatment == "trainable":
        model.requires_grad_(True)
    elif treatment == "channels_last":
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    elif treatment == "compiled":
        model = torch.compile(model)  # type: ignore[assignment]
    return Setup(model, x, plain.y)


@dataclass(frozen=True)
class Contestant:
    """One row.

    Args:
        label: as in the table.
        make: (model, x, y) -> the call that is timed; it returns the attacked inputs, or None.
        treatment: the `setup` it gets.
        equal: the row it is compared with: bare passes that are treated alike.
        distribution: what must be installed for it.
    """

    label: str
    make: Callable[[nn.Module, Tensor, Tensor], Call]
    treatment: str = "frozen"
    equal: str = "bare"
    distribution: str | None = None


def _bare(
    context: Callable[[], Any] = nullcontext, forwards: int = STEPS
) -> Callable[[nn.Module, Tensor, Tensor], Call]:
    """Ten forward and backward passes, and forward passes without gradient up to `forwards`."""

    def make(model: nn.Module, x: Tensor, y: Tensor) -> Call:
        def call() -> None:
            for _ in range(STEPS):
                z = x.detach().requires_grad_()
                with context():
                    loss = F.cross_entropy(model(z), y, reduction="sum")
                torch.autograd.grad(loss, z)
            with torch.no_grad():
                for _ in range(forwards - STEPS):
                    model(x)

        return call

    return make


def _plain_loop(model: nn.Module, x: Tensor, y: Tensor) -> Call:
    """The steps and nothing else, in as few operations as there are: no start, no check, no best point, no verdict."""

    def call() -> Tensor:
        low, high = (x - EPS).clamp_(0, 1), (x + EPS).clamp_(0, 1)
        q = x.clone()
        for _ in range(STEPS):
            q.requires_grad_()
            (g,) = torch.autograd.grad(F.cross_entropy(model(q), y, reduction="sum"), q)
            q = q.detach().add_(g.sign_(), alpha=STEP).clamp_(low, high)
        with torch.no_grad():
            model(q)
        return q

    return call


def _bfloat16() -> Any:
    return torch.autocast("cpu", torch.bfloat16)


def _danskin(attack: PGD) -> Callable[[nn.Module, Tensor, Tensor], Call]:
    return lambda model, x, y: lambda: attack(model, x, y, seed=0).x


def _points(attack: PGD) -> Callable[[nn.Module, Tensor, Tensor], Call]:
    """The search alone, as training runs it: checked inputs, no verdict on the outcome."""
    return lambda model, x, y: lambda: attack.perturb(model, x, y, seed=0)


def _torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Call:
    import torchattacks

    attack = torchattacks.PGD(model, eps=EPS, alpha=STEP, steps=STEPS, random_start=True)
    return lambda: attack(x, y)


def _foolbox(model: nn.Module, x: Tensor, y: Tensor) -> Call:
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS, random_start=True)
    return lambda: attack.run(wrapped, x, y, epsilon=EPS)


def _art(model: nn.Module, x: Tensor, y: Tensor) -> Call:
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model,
        nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=10,
        clip_values=(0, 1),
        device_type="cpu",
    )
    attack = ProjectedGradientDescent(
        classifier,
        norm=np.inf,
        eps=EPS,
        eps_step=STEP,
        max_iter=STEPS,
        num_random_init=1,
        batch_size=len(x),
        verbose=False,
    )
    images, labels = x.numpy(), y.numpy()
    return lambda: torch.from_numpy(attack.generate(images, labels))


@contextmanager
def _stubs() -> Iterator[None]:
    """Stand-ins for torchvision and visdom where they are not installed, seen inside this block only."""
    missing = [name for name in ("torchvision", "visdom") if importlib.util.find_spec(name) is None]
    if missing:
        sys.path.insert(0, str(STUBS))
    try:
        yield
    finally:
        if missing:
            sys.path.remove(str(STUBS))
        for name in missing:
            for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
                del sys.modules[module]


def _adv_lib(model: nn.Module, x: Tensor, y: Tensor) -> Call:
    with _stubs():
        from adv_lib.attacks import pgd_linf
    return lambda: pgd_linf(model, x, y, ε=EPS, steps=STEPS, absolute_step_size=STEP)


def _pgd(**options: Any) -> PGD:
    return PGD(Linf("8/255"), steps=STEPS, step="2/255", random_start=True, **options)


OURS = [
    Contestant("bare", _bare()),
    Contestant("bare, again", _bare()),
    Contestant("bare, and an 11th forward", _bare(forwards=STEPS + 1)),
    Contestant("plain loop, and an 11th forward", _plain_loop),
    Contestant("danskin PGD", _danskin(_pgd(keep="best"))),
    Contestant("danskin PGD, keep=last", _danskin(_pgd(keep="last"))),
    Contestant("danskin PGD.perturb, keep=last", _points(_pgd(keep="last"))),
    Contestant("danskin PGD, trainable model", _danskin(_pgd(keep="best")), "trainable"),
    Contestant("danskin PGD l2", _danskin(PGD(L2(0.5), steps=STEPS, step=0.1, keep="best"))),
    Contestant("danskin PGD l1", _danskin(PGD(L1(12.0), steps=STEPS, step=3.0, keep="best"))),
    Contestant("bare, channels_last", _bare(), "channels_last", "bare, channels_last"),
    Contestant("danskin PGD, channels_last", _danskin(_pgd(keep="best")), "channels_last", "bare, channels_last"),
    Contestant("bare, bfloat16", _bare(_bfloat16), "frozen", "bare, bfloat16"),
    Contestant("danskin PGD, bfloat16", _danskin(_pgd(keep="best", precision="bfloat16")), "frozen", "bare, bfloat16"),
    Contestant("bare, compiled", _bare(), "compiled", "bare, compiled"),
    Contestant("danskin PGD, compiled", _danskin(_pgd(keep="best")), "compiled", "bare, compiled"),
]

PEERS = [
    Contestant("torchattacks PGD", _torchattacks, distribution="torchattacks"),
    Contestant("foolbox LinfPGD.run", _foolbox, distribution="foolbox"),
    Contestant("ART ProjectedGradientDescent", _art, distribution="adversarial-robustness-toolbox"),
    Contestant("adv-lib pgd_linf", _adv_lib, distribution="adv-lib"),
]
TRAINABLE_PEERS = [
    Contestant(f"{peer.label}, trainable model", peer.make, "trainable", peer.equal, peer.distribution)
    for peer in PEERS
]
