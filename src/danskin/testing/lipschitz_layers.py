"""What every layer with a certified Lipschitz constant owes its user, as functions for anyone's layer."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from danskin.callables import constant_weights
from danskin.testing.expect import expect, expect_close, expect_same

Make = Callable[[], nn.Module]
_PAIRS, _ASCENT, _STEPS = 64, 40, 5
_NUDGE = 1e-5


class LipschitzLayerCase:
    """A layer in float64, and inputs for it.

    Args:
        make: a new layer, the same but for its random start; with `lipschitz`, or `constant` says it.
        input_shape: of one example.
        constant: that the layer promises; default: its own `lipschitz`, asked again after every change.
        seed: of weights and data.
    """

    def __init__(
        self, make: Make, input_shape: tuple[int, ...], *, constant: float | None = None, seed: int = 0
    ) -> None:
        self.make, self.input_shape, self.constant, self.seed = make, input_shape, constant, seed
        self.name = type(self.layer()).__name__

    def layer(self, other: int = 0) -> nn.Module:
        """The same one every time; `other` for other weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + other)
            return self.make().double()

    def bound(self, layer: nn.Module) -> float:
        """What quotients may reach."""
        return self.constant if self.constant is not None else float(layer.lipschitz)  # type: ignore[arg-type]

    def inputs(self, n: int, k: int = 0) -> Tensor:
        """(n, *input_shape) normal numbers."""
        generator = torch.Generator().manual_seed(1000 * self.seed + k)
        return torch.randn((n, *self.input_shape), generator=generator, dtype=torch.float64)

    def trained(self, layer: nn.Module, steps: int = _STEPS, rate: float = 0.3) -> nn.Module:
        """The layer after rough steps of SGD on a loss that pulls everywhere."""
        layer.train()
        parameters = [p for p in layer.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=rate, momentum=0.5) if parameters else None
        for k in range(steps):
            y = layer(self.inputs(8, 10 + k))
            loss = ((y - torch.sin(3 * y.detach() + k)) ** 2).mean()
            if optimizer is not None:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return layer.eval()


def _norms(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def largest_quotient(layer: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, steps: int = _ASCENT) -> float:
    """The largest |f(x) - f(y)| / |x - y| over pairs, and over what a search makes of them; less what may be rounding.

    The search moves y to x + |y - x| times the direction that J^T (f(x) - f(y)) points to: power iteration for a
    linear layer, steepest ascent of the quotient for others.
    """
    best = 0.0
    for _ in range(steps + 1):
        y = y.detach().requires_grad_()
        first, second = layer(x), layer(y)
        apart, length = first - second, _norms(x - y)
        rounding = 32 * torch.finfo(x.dtype).eps * (_norms(first) + _norms(second) + _norms(x) + _norms(y))
        best = max(best, float(((_norms(apart) - rounding) / length).detach().max()))
        (pull,) = torch.autograd.grad(0.5 * apart.square().sum(), y)
        size = _norms(pull)
        shape = (-1, *[1] * (x.ndim - 1))
        unit = pull / size.clamp_min(1e-300).view(shape)
        y = torch.where((size > 0).view(shape), x + length.detach().view(shape) * unit, y.detach())
    return best


def quotients_stay_below(case: LipschitzLayerCase) -> None:
    """Of pairs near and far, and of a search from them, before and after training steps."""
    for layer in (case.layer().eval(), case.trained(case.layer()), case.trained(case.layer(1), rate=30.0)):
        most = case.bound(layer)
        expect(math.isfinite(most), f"{case.name}: expected a finite constant, got {most}")
        for scale in (1e-3, 1.0, 30.0):
            x = case.inputs(_PAIRS) * 2
            y = x + scale * case.inputs(_PAIRS, 1)
            found = largest_quotient(layer, x, y)
            expect(
                found <= most * (1 + 1e-9),
                f"{case.name}: expected quotients of at most {most:.12g}, got {found:.12g} at distance {scale}",
            )


def evaluation_changes_nothing(case: LipschitzLayerCase) -> None:
    """In eval mode a call changes no buffer, and the same input gives the same output; also where weights are held."""
    layer, x = case.trained(case.layer()), case.inputs(4)
    kept = copy.deepcopy(layer.state_dict())
    first, second = layer(x), layer(x)
    expect_same(second, first, f"{case.name}: the same input again in eval mode")
    with constant_weights(), torch.no_grad():
        held = [layer(x) for _ in range(2)]
    for again in held:
        # decompositions without vectors round otherwise
        expect_close(again, first, 1e-12, f"{case.name}: with weights held constant")
    expect_same(held[0], held[1], f"{case.name}: twice with weights held constant")
    for name, value in layer.state_dict().items():
        expect_same(value, kept[name], f"{case.name}.{name} after calls in eval mode")


def saving_and_loading_restores(case: LipschitzLayerCase) -> None:
    """A fresh layer with the saved state is the old one, bit for bit; so is what it exports; and it trains on alike."""
    layer, x = case.trained(case.layer()), case.inputs(4)
    other = case.layer(1)
    other.eval()
    other(x)  # what a layer may keep from here would be stale
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    expect_same(other(x), layer(x), f"{case.name}: outputs after load_state_dict")
    if hasattr(layer, "export"):
        expect_same(other.export()(x), layer.export()(x), f"{case.name}: exported after load_state_dict")  # type: ignore[operator]
    expect_same(case.trained(other)(x), case.trained(layer)(x), f"{case.name}: trained on after load_state_dict")


def exports_are_equal(case: LipschitzLayerCase) -> None:
    """`export()` gives a layer with the outputs of eval mode, after all that is done to layers, and changes nothing."""
    x, trained = case.inputs(4), case.trained(case.layer())
    loaded = case.layer(1)
    loaded(x)  # what a layer may keep from here would be stale
    loaded.load_state_dict(trained.state_dict())
    called = copy.deepcopy(trained).train()
    called(x)
    file = io.BytesIO()
    torch.save(trained, file)
    file.seek(0)
    ways = {
        "new": case.layer(),
        "trained": trained,
        "loaded": loaded,
        "copied": copy.deepcopy(trained),
        "moved to float32 and back": copy.deepcopy(trained).float().double(),
        "called in training mode": called,
        "saved whole": torch.load(file, weights_only=False),
    }
    for how, layer in ways.items():
        layer.train()
        exported = layer.export()
        expect(layer.training, f"{case.name}: expected export() to leave training mode on")
        wanted = layer.eval()(x).detach()
        expect_close(exported(x), wanted, 1e-12, f"{case.name}: exported, {how}, against its own")
        if how in ("loaded", "copied", "saved whole"):
            expect_same(wanted, trained(x).detach(), f"{case.name}: {how} against the one trained")
        with torch.no_grad():
            for p in exported.parameters():
                p.zero_()
        expect_same(layer(x).detach(), wanted, f"{case.name}: after its export was changed")


def types_are_kept(case: LipschitzLayerCase) -> None:
    """float32 and float64 in, the same out; they agree; mixed precision gives finite numbers that are near."""
    layer, x = case.layer().eval(), case.inputs(4)
    wanted = layer(x)
    expect(wanted.dtype == torch.float64, f"{case.name}: expected float64, got {wanted.dtype}")
    single = copy.deepcopy(layer).float()
    got = single(x.float())
    expect(got.dtype == torch.float32, f"{case.name}: expected float32, got {got.dtype}")
    expect_close(got, wanted, 1e-4, f"{case.name}: float32 against float64")
    with torch.autocast("cpu", torch.bfloat16):
        expect_close(single(x.float()), wanted, 0.1, f"{case.name}: bf16 autocast against float64")


def gradients_are_finite(case: LipschitzLayerCase) -> None:
    """At inputs of zeros, ties and normal numbers, of input and parameters; two calls before a backward pass."""
    layer = case.layer().train()
    for x in (torch.zeros_like(case.inputs(4)), torch.ones_like(case.inputs(4)), case.inputs(4)):
        x.requires_grad_()
        layer.zero_grad()
        loss = layer(x).square().sum() + layer(2 * x).sum()
        loss.backward()
        held = [x.grad, *(p.grad for p in layer.parameters())]
        for gradient in held:
            finite = gradient is None or bool(gradient.isfinite().all())
            expect(finite, f"{case.name}: expected finite gradients, got NaN or infinity")


def gradients_of_gradients_are_right(case: LipschitzLayerCase) -> None:
    """What a gradient penalty needs: its gradient in parameters and inputs is that of finite differences."""
    layer, x = case.trained(case.layer()), case.inputs(4)
    places = [x, *(p for p in layer.parameters() if p.requires_grad)]

    def penalty() -> Tensor:
        x.requires_grad_()
        (slope,) = torch.autograd.grad(torch.sin(layer(x)).sum(), x, create_graph=True)
        return (_norms(slope) - 1).square().mean()

    exact = torch.autograd.grad(penalty(), places, allow_unused=True)
    for k, (place, gradient) in enumerate(zip(places, exact, strict=True)):
        expect(gradient is not None or k > 0, f"{case.name}: expected a gradient penalty that depends on the input")
        along = torch.randn(place.shape, generator=torch.Generator().manual_seed(k), dtype=place.dtype)
        along = along / torch.linalg.vector_norm(along)
        ends, held = [], place.detach().clone()
        for step in (_NUDGE, -_NUDGE):
            place.data.copy_(held + step * along)
            ends.append(float(penalty().detach()))
        place.data.copy_(held)
        wanted = (ends[0] - ends[1]) / (2 * _NUDGE)
        got = 0.0 if gradient is None else float((gradient * along).sum())
        expect(
            abs(got - wanted) <= 1e-5 * max(abs(wanted), 1.0),
            f"{case.name}: expected {wanted:.9g} as gradient of a gradient penalty (place {k}), got {got:.9g}",
        )


def copies_are_independent(case: LipschitzLayerCase) -> None:
    """`copy.deepcopy` works after a backward pass, and training the copy leaves the layer."""
    layer, x = case.trained(case.layer()), case.inputs(4)
    before = layer(x).detach()
    twin = copy.deepcopy(layer)
    expect_same(twin(x).detach(), before, f"{case.name}: a copy")
    case.trained(twin)
    expect_same(layer(x).detach(), before, f"{case.name}: after its copy was trained")


LIPSCHITZ_LAYER_CHECKS: tuple[Callable[[LipschitzLayerCase], None], ...] = (
    quotients_stay_below,
    evaluation_changes_nothing,
    saving_and_loading_restores,
    types_are_kept,
    gradients_are_finite,
    gradients_of_gradients_are_right,
    copies_are_independent,
)


def check_lipschitz_layer(
    make: Make, input_shape: tuple[int, ...], *, constant: float | None = None, seed: int = 0
) -> None:
    """Run all checks on a layer.

    Args:
        make: a new layer; it is asked several times, under different seeds.
        input_shape: of one example.
        constant: that the layer promises; default: its own attribute `lipschitz`.
        seed: of weights and data.

    Raises:
        AssertionError: it breaks its promise; the message says how.

    >>> from danskin.lipschitz.layers import OrthogonalLinear
    >>> check_lipschitz_layer(lambda: OrthogonalLinear(6, 4), (6,))
    """
    case = LipschitzLayerCase(make, input_shape, constant=constant, seed=seed)
    for check in LIPSCHITZ_LAYER_CHECKS:
        check(case)
    if hasattr(case.layer(), "export"):
        exports_are_equal(case)
