"""Models as people have them, at every entrance: it works, or a typed error names the cure; their own words pass."""

import functools
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from danskin.attacks import PGD, HopSkipJump, Square
from danskin.callables import answerable, copied
from danskin.errors import DanskinError, DanskinWarning, InputError, ModelError
from danskin.evaluation import certify, diagnose, evaluate, fastest, quicker
from danskin.metrics.saliency import saliency
from danskin.minmax import L2, Linf
from danskin.regularizers import CURE, LLR, GradAlign
from danskin.training.awp import AWP
from danskin.training.ddi import DDi
from danskin.training.objectives import AdversarialTraining
from danskin.training.stability import WeightStability
from danskin.training.trades import TRADES

pytestmark = [
    pytest.mark.filterwarnings("ignore::danskin.errors.DanskinWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
]
X = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0])
BALL = Linf(0.1)


def flat(first=None):
    """A small network that starts with this layer."""
    return nn.Sequential(nn.Flatten(), first or nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


class Attention(nn.Module):
    """A transformer's heart."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x):
        return self.outer(F.scaled_dot_product_attention(*self.inner(x).chunk(3, -1)).mean((1, 2)))


class Recurrent(nn.Module):
    """Reads an image row by row."""

    def __init__(self, kind):
        super().__init__()
        self.inner, self.outer = kind(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.outer(self.inner(x[:, 0])[0][:, -1])


class Keeps(nn.Module):
    """Leaves features of the last pass on itself, and in containers."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x):
        self.kept = self.inner(x.flatten(1)).relu()
        self.more = {"twice": [2 * self.kept]}
        return self.outer(self.kept)


class Numpy:
    """Computes outside of torch."""

    def __init__(self):
        self.weight = torch.randn(16, 3).numpy()

    def __call__(self, x):
        return torch.from_numpy(x.numpy().reshape(len(x), -1) @ self.weight)


class InPlace(nn.Module):
    """Overwrites what the backward pass needs."""

    def __init__(self):
        super().__init__()
        self.rest = flat()

    def forward(self, x):
        h = (x * 1).exp()
        doubled = 2 * h
        h += 1
        return self.rest(doubled + h)


class Complex(nn.Module):
    """Outputs with an imaginary part."""

    def __init__(self):
        super().__init__()
        self.rest = flat()

    def forward(self, x):
        return self.rest(x) + 0j


class Heads(nn.Module):
    """torch's own Python refuses the size of its inputs, by an assertion."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.MultiheadAttention(5, 1), nn.Linear(4, 3)

    def forward(self, x):
        return self.outer(self.inner(x[:, 0], x[:, 0], x[:, 0])[0].mean(1))


class Raises(nn.Module):
    """Says something by itself."""

    def __init__(self, error):
        super().__init__()
        self.rest, self.error = flat(), error

    def forward(self, x):
        raise self.error


def of_inference():
    with torch.inference_mode():
        return flat()


def used(model):
    model(X)
    return model


def frozen_script():
    return torch.jit.freeze(torch.jit.script(flat().eval()))


def without_gradient():
    layer = nn.Linear(16, 3)
    return torch.no_grad()(lambda x: layer(x.flatten(1)))


ENTRANCES = {
    "PGD": lambda m: PGD(BALL, steps=2)(m, X, Y),
    "Square": lambda m: Square(BALL, queries=3)(m, X, Y),
    "HopSkipJump": lambda m: HopSkipJump(L2(1.0), queries=60)(m, X, Y),
    "evaluate": lambda m: evaluate(m, (X, Y), BALL, [Square(BALL, queries=3)]),
    "diagnose": lambda m: diagnose(m, X, Y, BALL),
    "certify": lambda m: certify(m, (X, Y), BALL),
    "saliency": lambda m: saliency(m, X, Y),
    "AdversarialTraining": lambda m: AdversarialTraining(PGD(BALL, steps=1))(m, X, Y),
    "AWP": lambda m: AWP(TRADES(PGD(BALL, steps=1)))(m, X, Y).backward(),
    "DDi": lambda m: DDi(PGD(BALL, steps=1), k=2)(m, X, Y).backward(),
    "WeightStability": lambda m: WeightStability(radius=0.1)(m, X, Y).backward(),
    "GradAlign": lambda m: GradAlign(BALL)(m, X, Y).sum().backward(),
    "CURE": lambda m: CURE(BALL)(m, X, Y).sum().backward(),
    "LLR": lambda m: LLR(BALL, steps=1)(m, X, Y).sum().backward(),
    "quicker": lambda m: quicker(m, precision="bfloat16"),
    "fastest": lambda m: fastest(m, X, rounds=1),
}
BLACK_BOX = {"Square", "HopSkipJump", "evaluate", "diagnose", "fastest"}
ALL = set(ENTRANCES)
#: (model, entrances at which it must work; elsewhere a typed error is an answer, too)
MODELS = {
    "attention": (Attention, ALL - {"certify"}),
    "GRU": (lambda: Recurrent(nn.GRU), ALL - {"certify"}),
    "RNN": (lambda: Recurrent(nn.RNN), ALL - {"certify"}),
    "LSTM": (lambda: Recurrent(nn.LSTM), ALL - {"certify"}),
    "spectral_norm": (lambda: flat(parametrizations.spectral_norm(nn.Linear(16, 8))), ALL),
    "spectral_norm by a hook": (lambda: used(flat(spectral_norm(nn.Linear(16, 8)))), ALL),
    "weight_norm": (lambda: flat(parametrizations.weight_norm(nn.Linear(16, 8))), ALL),
    "weight_norm by a hook": (lambda: used(flat(weight_norm(nn.Linear(16, 8)))), ALL),
    "keeps features": (lambda: used(Keeps()), ALL),
    "TorchScript": (lambda: torch.jit.script(flat().eval()), ALL - {"WeightStability", "AWP"}),
    "frozen TorchScript": (frozen_script, ALL - {"WeightStability", "AWP", "DDi", "GradAlign", "CURE", "LLR"}),
    "numpy": (Numpy, BLACK_BOX),
    "no_grad": (without_gradient, BLACK_BOX),
    "inference tensors": (of_inference, BLACK_BOX),
    "in place": (InPlace, BLACK_BOX | {"quicker", "WeightStability"}),
    "images for a flat one": (lambda: nn.Linear(16, 3), {"quicker"}),
    "other channels": (lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(8, 3)), {"quicker"}),
    "float64": (lambda: flat().double(), {"quicker"}),
    "float16": (lambda: flat().half(), {"quicker"}),
    "meta": (lambda: flat().to("meta"), {"quicker"}),
    "complex": (Complex, {"quicker"}),
    "assertion of torch": (Heads, {"quicker"}),
    "no forward": (nn.Module, {"quicker"}),
    "partial": (lambda: functools.partial(F.linear, weight=torch.ones(3, 16)), set()),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("name", MODELS)
def test_it_works_or_a_typed_error_names_the_cure(name, entrance):
    torch.manual_seed(0)
    make, works = MODELS[name]
    model = make()
    try:
        ENTRANCES[entrance](model)
    except DanskinError as error:
        assert entrance not in works, error
        assert ": expected " in str(error) and "; " in str(error), error
        assert isinstance(error, InputError) or not str(error).endswith("to see where it stops"), error
    # anything else fails by itself


@pytest.mark.parametrize("entrance", [e for e in ENTRANCES if e not in ("quicker", "fastest")])
@pytest.mark.parametrize(
    "error", [ValueError("mine"), RuntimeError("mine: shape"), TypeError("a Tensor"), OSError("x")]
)
def test_what_the_model_says_by_itself_passes_unchanged(error, entrance):
    with pytest.raises(type(error)) as told:
        ENTRANCES[entrance](Raises(error))
    assert told.value is error


@pytest.mark.parametrize(
    ("name", "said", "cure"),
    [
        ("images for a flat one", "mat1 and mat2 shapes", "nn.Flatten"),
        ("other channels", "to have 3 channels", "of the shape that it was made for"),
        ("float64", "Float and Double", "model.double()"),
        ("inference tensors", "nference tensor", "outside of torch.inference_mode"),
        ("in place", "inplace operation", "without operations in place"),
        ("numpy", "numpy()", "attacks without gradients"),
        ("assertion of torch", "AssertionError", "of the shape"),
        ("no forward", "missing the required", "write its forward"),
        ("meta", "meta", "load_state_dict"),
    ],
)
def test_the_cure_fits_and_the_cause_is_kept(name, said, cure):
    with pytest.raises(ModelError) as told:
        PGD(BALL, steps=2)(MODELS[name][0](), X, Y)
    assert said in str(told.value) and cure in str(told.value)
    assert told.value.__cause__ is not None and str(told.value.__cause__).strip().splitlines()[0][:40] in str(
        told.value
    )


def test_errors_that_have_nothing_to_do_with_the_model_pass():
    net = flat()
    with pytest.raises(RuntimeError) as told, answerable(net):
        torch.ones(2) @ torch.ones(3)  # a set of somebody's own, say
    assert not isinstance(told.value, ModelError)
    with pytest.raises(ModelError), answerable(net):
        net(torch.ones(2, 3))
    with pytest.raises(torch.OutOfMemoryError), answerable(net):
        raise torch.OutOfMemoryError("people wait for this one")


def test_a_model_without_gradient_is_judged_by_attacks_without_gradients():
    torch.manual_seed(0)
    model = Numpy()
    y = model(X).argmax(1)
    assert evaluate(model, (X, y), BALL, [Square(BALL, queries=3)]).clean.value == 1
    (flag,) = (f for f in diagnose(model, X, y, BALL) if "gradient" in f.name)
    assert flag.name == "no_gradient" and "probes by gradients were left out" in flag.text


@pytest.mark.parametrize("term", [GradAlign(BALL), CURE(BALL), LLR(BALL, steps=2)])
def test_attention_differentiated_twice_is_that_of_plain_arithmetic(term):
    class Plain(Attention):
        def forward(self, x):
            q, k, v = self.inner(x).chunk(3, -1)
            return self.outer(((q @ k.mT / 2).softmax(-1) @ v).mean((1, 2)))

    torch.manual_seed(0)
    fused, plain = Attention().double(), Plain().double()
    plain.load_state_dict(fused.state_dict())
    for net in (fused, plain):
        term(net, X.double(), Y).sum().backward()
    for a, b in zip(fused.parameters(), plain.parameters(), strict=True):
        assert a.grad.abs().max() > 0
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-9)


class ByHand(nn.Module):
    """An Elman network in plain arithmetic, which torch.vmap takes."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        inner, h = self.net.inner, x.new_zeros(len(x), 5)
        for row in x[:, 0].unbind(1):
            h = (F.linear(row, inner.weight_ih_l0, inner.bias_ih_l0)
                 + F.linear(h, inner.weight_hh_l0, inner.bias_hh_l0)).tanh()  # fmt: skip
        return self.net.outer(h)


def test_one_by_one_is_what_vmap_does():
    torch.manual_seed(0)
    net = Recurrent(nn.RNN).double()
    values = []
    for model, told in (
        (net, pytest.warns(DanskinWarning, match="one by one")),
        (ByHand(net), warnings.catch_warnings()),
    ):
        net.zero_grad()
        with told:
            warnings.simplefilter("always" if model is net else "error", DanskinWarning)
            value = WeightStability(radius=0.5)(model, X.double(), Y)
        value.backward()
        values.append([value.detach(), *(p.grad.clone() for p in net.parameters())])
    for a, b in zip(*values, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, spectral_norm])
def test_each_example_sees_the_same_buffers_whatever_the_batch(norm):
    torch.manual_seed(0)
    net = flat(norm(nn.Linear(16, 8))).train()
    net(X)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    grads = []
    for chunk in (1, 4):
        net.load_state_dict(before)
        net.zero_grad()
        WeightStability(radius=0.1, chunk=chunk)(net, X, Y).backward()
        grads.append([p.grad.clone() for p in net.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
    net(X)  # nothing of torch.func is left behind
    copied(net)


def test_what_draws_at_random_is_told_to_share_one_shift():
    net = flat()
    with pytest.raises(ModelError, match="per_sample=False"):
        WeightStability(radius=0.1)(nn.Sequential(net, Noise()), X, Y)


class Noise(nn.Module):
    """A layer that draws."""

    def forward(self, x):
        return x + torch.rand_like(x)


@pytest.mark.parametrize("name", ["weight_norm by a hook", "keeps features"])
def test_a_copy_computes_the_same_and_the_model_keeps_what_it_held(name):
    model = MODELS[name][0]()
    held = [t for m in model.modules() for t in vars(m).values() if isinstance(t, torch.Tensor)]
    assert held and not held[0].is_leaf
    fast = quicker(model, channels_last=True)
    torch.testing.assert_close(fast(X), model(X))
    form = fastest(model, X, rounds=1)
    assert set(form.seconds) == {"bfloat16", "channels_last", "bfloat16, channels_last"}
    assert all(p.requires_grad for p in model.parameters())


def test_a_model_that_cannot_be_copied_searches_itself():
    import threading

    model = flat()
    model.lock = threading.Lock()
    with pytest.warns(DanskinWarning, match="expected a model that can be copied, got TypeError"):
        fast = quicker(model, precision="bfloat16")
    assert model.training and next(model.parameters()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(X), model(X))


def test_a_model_without_gradient_is_not_timed():
    with pytest.warns(DanskinWarning, match="expected a gradient to time"):
        form = fastest(Numpy(), X)
    assert (form.precision, form.seconds) == ("model", {})
