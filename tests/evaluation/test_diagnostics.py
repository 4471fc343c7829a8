"""Each flag comes for a model with exactly that fault, and none for healthy ones."""

from typing import ClassVar

import pytest
import torch
from torch import nn

from danskin import FGSM, L1, L2, PGD, AdversarialTraining, Linf, StandardTraining
from danskin.data import load, to_float
from danskin.errors import InputError, ModelError
from danskin.evaluation import diagnostics, probing
from danskin.evaluation.diagnostics import Flag, diagnose, flags_from_results
from danskin.evaluation.masking import flags_from_results as same
from danskin.evaluation.subject import Subject
from danskin.minmax import Streams

BALL = Linf(0.15)


@pytest.fixture(scope="module")
def digits():
    data = load("digits")
    return to_float(data.x_train), data.y_train, to_float(data.x_test)[:100], data.y_test[:100]


def train(objective, x, y, steps, classes=10):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, classes))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(steps):
        rows = torch.randint(len(x), (128,))
        optimizer.zero_grad()
        objective(model, x[rows], y[rows]).backward()
        optimizer.step()
    model.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def standard(digits):
    return train(StandardTraining(), *digits[:2], 200)


@pytest.fixture(scope="module")
def adversarial(digits):
    return train(AdversarialTraining(PGD(BALL, steps=4, keep="last")), *digits[:2], 150)


class Faulty(nn.Module):
    """A model inside a function (model, x) -> logits."""

    def __init__(self, model, function):
        super().__init__()
        self.model, self.function = model, function

    def forward(self, x):
        return self.function(self.model, x)


class Straight(torch.autograd.Function):
    """Rounding to eighths whose gradient pretends to be the identity."""

    @staticmethod
    def forward(ctx, x):
        return (x * 8).round() / 8

    @staticmethod
    def backward(ctx, g):
        return g


def purify(how):
    """Move the input uphill before classifying it: gradients are taken inside the forward pass."""

    def forward(model, x):
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            energy = model(z).logsumexp(1).sum()
            if how == "grad":
                (g,) = torch.autograd.grad(energy, z)
            else:
                energy.backward(inputs=[z])
                g = z.grad
        return model(x + 0.01 * g)

    return forward


def names(flags):
    return [flag.name for flag in flags]


def numbers(flags, name):
    return next(flag.numbers for flag in flags if flag.name == name)


# --- healthy models -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ball", [BALL, L2(0.8), L1(3.0), Linf(0.0)], ids=str)
def test_healthy_models_have_no_flag(standard, adversarial, digits, ball):
    for model in (standard, adversarial):
        assert diagnose(model, *digits[2:], ball, n=60) == ()


def test_without_a_box_with_functions_and_with_low_precision(standard, digits):
    x, y = digits[2:]
    assert diagnose(lambda z: standard(z), x, y, BALL, n=40) == ()
    shifted = Faulty(standard, lambda m, z: m((z + 0.5).float()))  # cannot be moved to float64
    assert diagnose(shifted, x - 0.5, y, BALL, box=None, n=40) == ()
    with torch.inference_mode():
        assert diagnose(standard, x.clone(), y.clone(), BALL, n=40) == ()
    half = Faulty(standard, lambda m, z: m(z).bfloat16())
    assert diagnose(half, x, y, BALL, n=40) == ()
    compiled_like = Faulty(standard, lambda m, z: m(z.double().float()))
    assert diagnose(compiled_like, x, y, BALL, n=40) == ()


def test_one_output_and_two_classes(digits):
    x, y, xt, yt = digits
    one = train(StandardTraining("logistic"), x, 2 * (y % 2) - 1, 150, classes=1)
    assert diagnose(one, xt, 2 * (yt % 2) - 1, Linf(0.05)) == ()
    two = train(StandardTraining(), x, y % 2, 150, classes=2)
    flags = diagnose(two, xt, yt % 2, Linf(0.05))
    assert names(flags) == ["few_classes"] and flags[0].level == "note"


def test_a_clamp_at_the_edge_of_the_box_is_no_fault(standard, digits):
    model = Faulty(standard, lambda m, z: m(z.clamp(0, 1)))
    assert diagnose(model, *digits[2:], BALL, n=40) == ()

    def strange_outside(m, z):
        return m(z) + 1e3 * ((-z).relu() + (z - 1).relu()).flatten(1) @ torch.linspace(0, 1, 640).view(64, 10).sin()

    assert diagnose(Faulty(standard, strange_outside), *digits[2:], BALL, n=40) == ()


# --- one fault each -----------------------------------------------------------------------------------------


def test_softmax_inside(standard, digits):
    model = Faulty(standard, lambda m, x: m(x).softmax(1))
    flags = diagnose(model, *digits[2:], BALL)
    assert names(flags) == ["probabilities"] and numbers(flags, "probabilities")["largest_deviation"] < 1e-5
    doubled = Faulty(standard, lambda m, x: 0.999 * m(x).softmax(1))
    assert diagnose(doubled, *digits[2:], BALL) == ()


def test_saturated_loss(standard, digits):
    model = Faulty(standard, lambda m, x: 1e4 * m(x))
    flags = diagnose(model, *digits[2:], BALL)
    assert names(flags)[0] == "zero_gradient" and "large_radius" in names(flags)
    found = numbers(flags, "zero_gradient")
    assert found["usual_loss"] > 0.9 * found["right"] and found["margin"] == 0
    assert "margin or DLR loss" in flags[0].text
    left = list(numbers(flags, "large_radius")["left_by_radius"].items())
    assert [radius for radius, _ in left] == ["0.15", "0.3", "0.6", "1"] and left[-1][1] > 20


@pytest.mark.parametrize("noise", [0.3, 0.003])
def test_random_forward(adversarial, digits, noise):
    model = Faulty(adversarial, lambda m, x: m(x + noise * torch.randn_like(x)))
    before = torch.get_rng_state()
    flags = diagnose(model, *digits[2:], BALL)
    assert names(flags)[0] == "random" and "gradient_wrong" not in names(flags)
    assert (numbers(flags, "random")["changed"] > 5) == (noise == 0.3)
    assert torch.equal(before, torch.get_rng_state())


def test_rounded_inputs_without_gradient(standard, digits):
    model = Faulty(standard, lambda m, x: m((x * 8).round() / 8))
    flags = diagnose(model, *digits[2:], BALL, surrogate=standard)
    assert {"zero_gradient", "gradient_shattered", "black_box_beats_white_box", "large_radius"} <= set(names(flags))
    assert numbers(flags, "zero_gradient")["margin"] > 90
    by_attack = {f.numbers["attack"]: f.numbers["extra"] for f in flags if f.name == "black_box_beats_white_box"}
    assert by_attack["transfer"] > 60  # what breaks the surrogate breaks the model it was made from


def test_rounded_inputs_with_a_pretended_gradient(standard, digits):
    flags = diagnose(Faulty(standard, lambda m, x: m(Straight.apply(x))), *digits[2:], BALL)
    assert names(flags) == ["gradient_wrong"] and numbers(flags, "gradient_wrong")["fine"] == 32


def test_shattered_gradient(standard, digits):
    flags = diagnose(Faulty(standard, lambda m, x: m(x + 0.1 * torch.sin(400 * x))), *digits[2:], BALL)
    assert "gradient_shattered" in names(flags) and numbers(flags, "gradient_shattered")["fine"] == 0


def test_no_gradient_at_all(standard, digits):
    model = Faulty(standard, lambda m, x: 2.0 * nn.functional.one_hot(m(x).argmax(1), 10))
    assert names(diagnose(model, *digits[2:], BALL)) == ["no_gradient"]


@pytest.mark.parametrize("how", ["grad", "backward"])
def test_autograd_inside_the_forward_pass(standard, digits, how):
    flags = diagnose(Faulty(standard, purify(how)), *digits[2:], BALL)
    assert names(flags) == ["autograd_inside"] and numbers(flags, "autograd_inside")["kinds"] == [how]
    assert all(p.grad is None for p in standard.parameters())


def test_functional_gradients_are_seen_however_imported(standard):
    from torch.autograd import grad

    subject = Subject(None, torch.rand(2, 3), torch.zeros(2), BALL, None, 0, ("cross_entropy", "margin"))
    for inner in (
        lambda x: torch.func.grad(lambda z: (z**2).sum())(x),
        lambda x: torch.autograd.functional.jacobian(lambda z: (z**2).sum(), x),
        lambda x: grad((x.requires_grad_() ** 2).sum(), x)[0],
    ):
        object.__setattr__(subject, "model", inner)
        assert diagnostics._autograd_inside(subject).numbers["calls"] == 1
    object.__setattr__(subject, "model", lambda x: x * 2)
    assert diagnostics._autograd_inside(subject) is None


def test_training_mode_is_told_and_looked_at_in_eval_mode(standard, digits):
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.3), standard)
    model.train()
    standard.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags = diagnose(model, *digits[2:], BALL)
    assert names(flags) == ["train_mode"]
    assert numbers(flags, "train_mode") == {"layers": 2, "kinds": ["BatchNorm2d", "Dropout"]}
    assert model[0].training and model[1].training and not standard.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert diagnose(model.eval(), *digits[2:], BALL) == ()


def test_nothing_right(standard, digits):
    x = digits[2]
    wrong = (standard(x).argmax(1) + 1) % 10
    assert names(diagnose(standard, x, wrong, BALL)) == ["nothing_right"]


def test_flags_say_what_was_seen_and_what_to_do(standard, digits):
    (flag,) = diagnose(Faulty(standard, lambda m, x: m(x).softmax(1)), *digits[2:], BALL, n=7)
    assert isinstance(flag, Flag) and "all 7 outputs" in flag.text and "remove it" in flag.text
    assert str(flag).startswith("warning: probabilities: ")


def test_wrong_input_is_refused(standard, digits):
    x, y = digits[2:]
    with pytest.raises(InputError, match="did you mean"):
        diagnose(standard, x, y, Linf(8))
    with pytest.raises(InputError, match="one radius for all"):
        diagnose(standard, x, y, Linf(torch.full((100,), 0.1)))
    with pytest.raises(InputError, match="at least one example"):
        diagnose(standard, x, y, BALL, n=0)
    with pytest.raises(InputError, match="expected classes 0 to 9"):
        diagnose(standard, x, y + 1, BALL)
    with pytest.raises(ModelError, match="predicted labels"):
        diagnose(lambda z: standard(z).argmax(1), x, y, BALL)


# --- from results -------------------------------------------------------------------------------------------


class TestResults:
    n = 1000
    base: ClassVar = torch.arange(1000) < 600  # 600 of 1000 right

    def left(self, count, start=0):
        flags = torch.zeros(self.n, dtype=torch.bool)
        flags[start : start + count] = True
        return flags

    def test_ordinary_results_have_no_flag(self):
        assert same is flags_from_results
        results = {
            "FGSM linf 0.1": self.left(500),
            "PGD-10 linf 0.1": self.left(400),
            "PGD-40 linf 0.1": self.left(395),
            "Square linf 0.1": self.left(450),
        }
        assert flags_from_results(results) == ()
        assert flags_from_results({}) == ()

    @pytest.mark.parametrize(("extra", "seen"), [(2, False), (3, True)])
    def test_black_box_beats_white_box_by_more_than_a_fifth_of_a_percent(self, extra, seen):
        square = self.left(450)
        square[:extra] = False
        flags = flags_from_results({"apgd_ce": self.left(400), "fab_t": self.left(398), "square": square})
        assert names(flags) == ["black_box_beats_white_box"] * seen
        if seen:
            assert flags[0].numbers == {"attack": "square", "extra": 3, "n": 1000}
            assert "apgd_ce, fab_t" in flags[0].text and "3 of the 398" in flags[0].text

    def test_survivors_only_prove_nothing(self):
        pgd = self.left(400)
        assert flags_from_results({"fgsm": self.left(500), "pgd-10": pgd, "square": pgd.clone()}) == ()
        # pgd was run on all, fgsm on what pgd left
        assert flags_from_results({"pgd-10": pgd, "fgsm": pgd.clone()}) == ()

    def test_one_step_beats_many(self):
        flags = flags_from_results({"FGSM": self.left(397), "pgd-10": self.left(400), "other": self.left(401)})
        assert names(flags) == ["one_step_beats_iterative"]
        assert flags[0].numbers == {"attack": "FGSM", "against": "pgd-10", "more": 3, "n": 1000}
        assert flags_from_results({"FGSM": self.left(398), "pgd-10": self.left(400)}) == ()

    def test_more_steps_hurt_within_a_family_only(self):
        results = {"PGD-10x2 l2 0.5": self.left(400), "PGD-40x2 l2 0.5": self.left(410), "PGD-99 l1 9": self.left(450)}
        flags = flags_from_results(results)
        assert names(flags) == ["more_steps_hurt"] and flags[0].numbers["more"] == 10

    def test_names_can_be_given(self):
        results = {"mine": self.left(390, 5), "pgd": self.left(400)}
        assert flags_from_results(results) == ()
        assert names(flags_from_results(results, black_box=["mine"])) == ["black_box_beats_white_box"]
        assert names(flags_from_results(results, one_step=["mine"])) == ["one_step_beats_iterative"]
        with pytest.raises(InputError, match="spell them"):
            flags_from_results(results, black_box=["square"])

    def test_small_samples_need_two_examples(self):
        few = {"pgd": torch.ones(10, dtype=torch.bool), "square": torch.ones(10, dtype=torch.bool)}
        few["square"][0] = False
        assert flags_from_results(few) == ()
        few["square"][1] = False
        assert names(flags_from_results(few)) == ["black_box_beats_white_box"]

    def test_wrong_results_are_refused(self):
        with pytest.raises(InputError, match="one shape"):
            flags_from_results({"a": self.left(1), "b": self.left(1)[:5]})
        with pytest.raises(InputError, match="bool flags"):
            flags_from_results({"a": torch.ones(4)})


def test_fgsm_is_what_danskin_calls_it(standard, digits):
    """The names that the report gives to attacks are understood."""
    from danskin.run.evaluation import title

    assert title(FGSM(BALL)).startswith("FGSM ") and title(PGD(BALL, steps=40)).startswith("PGD-40 ")


# --- an ordinary zoo ----------------------------------------------------------------------------------------


def image_net(act, pool, norm):
    """On 1 x 8 x 8 digits, whose background is constant."""
    norms = {
        "none": nn.Identity(), "batch": nn.BatchNorm2d(8), "layer": nn.LayerNorm((8, 8, 8)),
        "instance": nn.InstanceNorm2d(8),
    }  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), norms[norm], act(), pool(2), nn.Conv2d(8, 16, 3, padding=1), act(), pool(2),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 10),
    )  # fmt: skip


class Clamped(nn.Module):
    """Kinks where the data is."""

    def __init__(self, net, function):
        super().__init__()
        self.net, self.function = net, function

    def forward(self, x):
        return self.net(self.function(x))


ORDINARY = {
    "relu, max-pool": lambda: image_net(nn.ReLU, nn.MaxPool2d, "none"),
    "relu6, max-pool, batch norm": lambda: image_net(nn.ReLU6, nn.MaxPool2d, "batch"),
    "leaky relu, max-pool, layer norm": lambda: image_net(nn.LeakyReLU, nn.MaxPool2d, "layer"),
    "hard tanh, max-pool": lambda: image_net(nn.Hardtanh, nn.MaxPool2d, "none"),
    "gelu, avg-pool, instance norm": lambda: image_net(nn.GELU, nn.AvgPool2d, "instance"),
    "clamped": lambda: Clamped(image_net(nn.ReLU, nn.MaxPool2d, "none"), lambda x: x.clamp(0, 1)),
    "hard tanh of inputs": lambda: Clamped(
        image_net(nn.ReLU, nn.AvgPool2d, "none"), lambda x: (2 * x - 1).clamp(-1, 1)
    ),
    "own range": lambda: Clamped(
        image_net(nn.ReLU, nn.AvgPool2d, "none"), lambda x: (x - x.amin((1, 2, 3), True)) / x.amax((1, 2, 3), True)
    ),
}


@pytest.mark.parametrize("steps", [0, 60], ids=["untrained", "trained"])
@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_network_has_no_flag(digits, name, steps):
    x, y, xt, yt = digits
    torch.manual_seed(0)
    model = ORDINARY[name]()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    for levels in (16, 1):  # as they are, and black and white
        assert names(diagnose(model.eval(), (xt * levels).round() / levels, yt, Linf(0.1), n=40)) == []


def test_beside_an_example_lies_within_the_noise_and_leaves_room_for_the_step():
    x = torch.tensor([[0.0, 0.5, 1.0, 0.01]]).repeat(200, 1) + torch.arange(200)[:, None] * 1e-9
    step = torch.full((200,), 0.003, dtype=torch.float64)
    base = probing.beside(x, step, (0, 1), Streams.of(0, torch.arange(200)))
    assert bool((base >= 0.003 - 1e-7).all()) and bool((base <= 0.997 + 1e-7).all())
    assert float((base - x).abs().max()) <= probing.BESIDE + 0.003 + 1e-6
    assert len(base[:, 0].unique()) > 150  # not all at the edge: there windows of a pooling would tie again
    assert float(base[:, 1].std()) == pytest.approx(probing.BESIDE / 3**0.5, rel=0.15)


def test_units_of_the_data_do_not_matter(standard, digits):
    """The steps of differences are shares of the box."""
    x, y = digits[2:]
    scaled = Faulty(standard, lambda m, z: m(z / 255))
    assert diagnose(scaled, 255 * x, y, Linf(0.15 * 255), box=(0, 255), n=40) == ()
    bad = Faulty(standard, lambda m, z: m(Straight.apply(z / 255)))
    assert names(diagnose(bad, 255 * x, y, Linf(0.15 * 255), box=(0, 255))) == ["gradient_wrong"]


def test_a_model_that_hides_part_of_its_gradient(standard, digits):
    """Half of the pixels are detached: what autograd tells is right in half of the coordinates only."""
    mask = (torch.arange(64).reshape(1, 8, 8) % 2).float()
    bad = Faulty(standard, lambda m, z: m(z * mask + (z * (1 - mask)).detach()))
    assert "gradient_wrong" in names(diagnose(bad, *digits[2:], BALL))
