"""What people hand in: understood, or refused with what was expected, what came and what to do."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from danskin.attacks import FGSM, NFGSM, PGD, AutoAttack
from danskin.attacks.autoattack import stages
from danskin.attacks.outcomes import outcomes
from danskin.data import load, to_float
from danskin.errors import DanskinError, InputError
from danskin.evaluation import certify, diagnose, evaluate
from danskin.evaluation.curve import robustness_curve
from danskin.inputs import check_fields, class_numbers, in_box
from danskin.losses import predict
from danskin.metrics import gradient_misalignment, saliency
from danskin.metrics.linearity import draw_triplet
from danskin.metrics.per_class import PerClass
from danskin.minmax import L1, L2, Linf
from danskin.minmax.reading import read_ball
from danskin.regularizers import LLR
from danskin.run.verdict import parse_ball
from danskin.training import (
    AWP,
    MART,
    TRADES,
    AdversarialTraining,
    FreeTraining,
    LinearRobustTraining,
    StandardTraining,
    Trainer,
)

BYTES = torch.tensor([[0, 1, 51, 128, 255]], dtype=torch.uint8)
BOXES = [(0, 1), (0, 255), (-1, 1), (-0.5, 0.5), (0.0, 2.0), (-128, 127)]


def check_message(error):
    message = str(error.value)
    assert isinstance(error.value, DanskinError)
    assert "expected" in message and "got" in message and "; " in message, message
    assert len(message.rsplit("; ", 1)[-1]) > 5, message  # the fix


# --- bytes and boxes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", BOXES)
def test_bytes_are_mapped_to_the_box(box):
    low, high = box
    expected = [low + (high - low) * k / 255 for k in BYTES[0].tolist()]
    assert in_box(BYTES, box)[0].tolist() == pytest.approx(expected, abs=1e-6 * (high - low))


def test_bytes_are_exact_where_they_can_be():
    every = torch.arange(256).to(torch.uint8)
    assert torch.equal(in_box(every, (0, 255)), every.float())
    assert torch.equal(in_box(every, (0, 1)), every.float() / 255) and torch.equal(to_float(every), every.float() / 255)
    x = torch.rand(3, dtype=torch.float64)
    assert in_box(x, None) is x
    mean, std = torch.tensor([0.5, 0.4]).view(2, 1, 1), torch.tensor([0.2, 0.3]).view(2, 1, 1)  # a box per channel
    image = torch.randint(0, 256, (3, 2, 4, 4), dtype=torch.uint8)
    torch.testing.assert_close(in_box(image, (-mean / std, (1 - mean) / std)), (image.float() / 255 - mean) / std)


@pytest.mark.parametrize(("x", "box", "message"), [
    (BYTES, None, "units are not plain"),
    (torch.tensor([[0, 1]], dtype=torch.uint8), (0, 1), "lie in the box as they are"),
    (torch.tensor([[0, 16]], dtype=torch.uint8), (0, 16), "none above 16"),
    (torch.tensor([[3, 7]]), (0, 1), "tokens"),
    (torch.ones(2, 1, 4, 4, dtype=torch.int64), (0, 1), r"x.float\(\) / 255"),
    (torch.ones(2, 1, 4, 4, dtype=torch.bool), (0, 1), "floating-point"),
])  # fmt: skip
def test_what_is_not_plain_is_refused(x, box, message):
    with pytest.raises(InputError, match=message) as error:
        in_box(x, box)
    check_message(error)


@pytest.fixture(scope="module")
def digits():
    """A linear digits model for [0, 1], and the same for other boxes."""
    data = load("digits")
    x, y = to_float(data.x_train).flatten(1), torch.nn.functional.one_hot(data.y_train).float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    net[1].weight.data = torch.linalg.lstsq(x.T @ x + 0.1 * torch.eye(64), x.T @ y).solution.T.contiguous()
    net[1].bias.data.zero_()

    class Scaled(torch.nn.Module):
        def __init__(self, box):
            super().__init__()
            self.net, (self.low, self.high) = net, box

        def forward(self, z):
            return self.net((z - self.low) / (self.high - self.low))

    return data.x_test[:60], data.y_test[:60], lambda box: Scaled(box).eval()


@pytest.mark.parametrize("box", BOXES[:4])
def test_every_entrance_takes_bytes_in_the_units_of_its_box(digits, box):
    x, y, model = digits
    net, width = model(box), box[1] - box[0]
    ball = Linf(0.05 * width)
    floats = box[0] + width * x.float() / 255
    clean = predict(net(floats)) == y
    assert clean.float().mean() > 0.8
    suite = [PGD(ball, 5, box=box)]
    verdict = evaluate(net, (x, y), ball, suite, box=box, diagnostics=0)
    assert verdict.clean.hits == int(clean.sum())
    assert torch.equal(verdict.outcomes, evaluate(net, (floats, y), ball, suite, box=box, diagnostics=0).outcomes)
    assert torch.equal(outcomes(net, x, y, suite[0]).correct, outcomes(net, floats, y, suite[0]).correct)
    bytes_, exact = (certify(net, (given, y), ball, box=box, method="ibp") for given in (x, floats))
    assert torch.equal(bytes_.correct, clean) and torch.allclose(bytes_.margin, exact.margin, atol=1e-5)
    flags = {flag.name for flag in diagnose(net, x, y, ball, box=box, n=16)}
    assert flags == {flag.name for flag in diagnose(net, floats, y, ball, box=box, n=16)}
    curve = robustness_curve(net, x[:20], y[:20], ball, factors=(0.01,), box=box)
    assert curve[0].accuracy.hits == int(clean[:20].sum())


def test_bytes_without_units_are_refused_at_every_entrance(digits):
    x, y, model = digits
    net, ball = model((0, 1)), Linf(0.1)
    pgd = PGD(ball, 2, box=None)
    for call in (
        lambda: evaluate(net, (x, y), ball, [pgd], box=None, diagnostics=0),
        lambda: certify(net, (x, y), ball, box=None),
        lambda: diagnose(net, x, y, ball, box=None),
        lambda: outcomes(net, x, y),
        lambda: pgd(net, x, y),
        lambda: saliency(net, x, y),
    ):
        with pytest.raises(InputError, match="expected floating-point inputs") as error:
            call()
        check_message(error)


# --- labels ---------------------------------------------------------------------------------------------

Y = torch.tensor([0, 2, 1, 0])
REFUSED = {
    "parts": (Y + 0.9, "fractional parts .0.9 at example 0"),
    "NaN": (torch.full((4,), torch.nan), "fractional parts"),
    "column": (Y[:, None], r"a column; use y\[:, 0\]"),
    "one-hot": (torch.eye(3)[Y], r"one-hot rows.*y.argmax\(1\)"),
    "one-hot of bool": (torch.eye(3)[Y] > 0, "one-hot rows"),
    "multi-label": (torch.tensor([[1, 1, 0]] * 4), "multi-label rows"),
    "no label": (torch.zeros(4, 3, dtype=torch.int64), "multi-label rows"),
    "soft": (torch.tensor([[0.2, 0.3, 0.5]] * 4), r"shares.*argmax\(1\)"),
    "several": (torch.tensor([[3, 7]] * 4), r"several numbers.*y\[:, 0\]"),
    "pixels": (torch.zeros(4, 5, 5, dtype=torch.int64), "one label per pixel"),
    "too few": (Y[:3], r"shape \(4,\), got \(3,\)"),
    "one": (torch.tensor(3), "a single number"),
    "complex": (Y * 1j, "expected integer labels"),
    "texts": (["cat", "dog", "cat", "dog"], "list of str; number the classes"),
    "array of texts": (np.array(["cat", "dog", "cat", "dog"]), "number the classes"),
    "objects": (np.array([None] * 4), "number the classes"),
    "nothing": (None, "NoneType"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("cast", [False, True])
def test_labels_are_named_for_what_they_are(name, cast):
    labels, message = REFUSED[name]
    with pytest.raises(InputError, match=f"(?s)^y: .*{message}") as error:
        class_numbers(labels, 4, cast=cast)
    check_message(error)


@pytest.mark.parametrize("labels", [
    *(Y.to(t) for t in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)), Y.tolist(), tuple(Y.tolist()),
    Y.numpy(), Y.numpy().astype(">i2"), Y.numpy().astype(np.uint16), list(Y.unbind()), list(Y.numpy()),
], ids=lambda y: str(getattr(y, "dtype", type(y).__name__)))  # fmt: skip
def test_every_kind_of_whole_number_is_taken(labels):
    found = class_numbers(labels, 4)
    assert found.dtype == torch.int64 and torch.equal(found, Y)


def test_data_may_hold_whole_numbers_as_floats_or_bools_and_arguments_may_not():
    assert torch.equal(class_numbers(Y.double(), 4, cast=True), Y)
    assert torch.equal(class_numbers(Y > 0, 4, cast=True), (Y > 0).long())
    for labels in (Y.float(), Y > 0):
        with pytest.raises(InputError, match=r"use y.long\(\)"):
            class_numbers(labels, 4)


X = torch.rand(4, 5, generator=torch.Generator().manual_seed(1))
NET = torch.nn.Linear(5, 3).eval()
BALL = Linf(0.1)
PGD2 = PGD(BALL, 2)
ENTRANCES = {
    "attack": lambda net, x, y: PGD2(net, x, y),
    "targets": lambda net, x, y: PGD2(net, x, Y, targets=y),
    "objective": lambda net, x, y: AdversarialTraining(PGD2)(net, x, y),
    "standard": lambda net, x, y: StandardTraining()(net, x, y),
    "trades": lambda net, x, y: TRADES(PGD2)(net, x, y),
    "term": lambda net, x, y: LLR(BALL)(net, x, y),
    "evaluate": lambda net, x, y: evaluate(net, (x, y), BALL, [PGD2], diagnostics=0),
    "certify": lambda net, x, y: certify(net, (x, y), BALL),
    "diagnose": lambda net, x, y: diagnose(net, x, y, BALL),
    "outcomes": lambda net, x, y: outcomes(net, x, y, PGD2),
    "clean outcomes": lambda net, x, y: outcomes(net, x, y),
    "curve": lambda net, x, y: robustness_curve(net, x, y, BALL),
    "saliency": lambda net, x, y: saliency(net, x, y),
    "saliency of the loss": lambda net, x, y: saliency(net, x, y, "loss"),
    "misalignment": lambda net, x, y: gradient_misalignment(net, x, y, BALL),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("name", ["parts", "column", "one-hot", "multi-label", "texts"])
def test_one_check_of_labels_for_all_entrances(entrance, name):
    labels, message = REFUSED[name]
    message = message.replace("y.arg", r"\w+.arg").replace(r"use y\[", r"use \w+\[")
    with pytest.raises(InputError, match=f"(?s){message}") as error:
        ENTRANCES[entrance](NET, X, labels)
    check_message(error)


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_every_entrance_takes_short_integers(entrance):
    ENTRANCES[entrance](NET, X, Y.to(torch.int16))
    ENTRANCES[entrance](NET, X, Y.numpy().astype(np.uint8))


def test_per_class_takes_the_same_labels():
    flags = torch.tensor([True, False, True, True])
    assert PerClass.of(Y.to(torch.int16), flags, flags).robust == PerClass.of(Y, flags, flags).robust
    with pytest.raises(InputError, match="fractional"):
        PerClass.of(Y + 0.5, flags, flags)


# --- models ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize(("model", "message"), [
    (NET.state_dict(), "a state dict of 2 tensors; build the network"),
    ({"epoch": 3}, "a dict with epoch"),
    ("weights.pt", "the path 'weights.pt'"),
    (torch.nn.Linear, "the class Linear; make one"),
    (None, "NoneType"),
    ([NET], "list"),
], ids=["state dict", "dict", "path", "class", "None", "list"])  # fmt: skip
def test_what_is_no_model_is_refused(entrance, model, message):
    with pytest.raises(InputError, match=message) as error:
        ENTRANCES[entrance](model, X, Y)
    check_message(error)


# --- data -----------------------------------------------------------------------------------------------


def judged(data, **options):
    return evaluate(NET, data, BALL, [PGD2], diagnostics=0, **options).outcomes


@pytest.mark.parametrize("data", [
    (X, Y), [X, Y], (X.numpy(), Y.numpy()), (X.double().numpy(), Y.tolist()), DataLoader(TensorDataset(X, Y), 2),
    [(X[:3], Y[:3]), (X[3:], Y[3:])], [(X[:2].numpy(), Y[:2].numpy()), (X[2:].numpy(), Y[2:].float())],
    ((a[None], [b]) for a, b in zip(X, Y.tolist(), strict=True)),
], ids=["pair", "list", "arrays", "float64", "loader", "batches", "batches of arrays", "generator"])  # fmt: skip
def test_data_in_many_forms(data):
    assert torch.equal(judged(data), judged((X, Y)))


def test_certify_takes_the_same_data():
    a, b = (certify(NET, data, BALL).margin for data in ((X, Y), [(X.numpy(), Y.int().numpy())]))
    assert torch.equal(a, b)


@pytest.mark.parametrize(("data", "message"), [
    ([(a, b) for a, b in zip(X, Y, strict=True)], "single sample.*DataLoader"),
    ([(a, int(b)) for a, b in zip(X[:2], Y, strict=False)], "single sample.*DataLoader"),
    (TensorDataset(X, Y), "single sample|DataLoader"),
    ([{"image": X, "label": Y}], "a mapping with image, label"),
    ({"x": X, "y": Y}, "got dict"),
    ([(X, Y, torch.arange(4))], "drop what else"),
    (X.numpy(), "inputs alone"),
    (load("digits"), r"data.x_test, data.y_test"),
    ((X[0], Y), r"x\[None\]"),
    ([(X, Y), (X[:, :3], Y)], "inputs of one shape"),
    (([["a"] * 5] * 4, Y), "data: expected"),
    ("digits", "got str"),
    (3, "got int"),
])  # fmt: skip
def test_data_that_are_none(data, message):
    with pytest.raises(InputError, match=f"(?s){message}") as error:
        judged(data)
    check_message(error)


def test_device_as_text():
    assert torch.equal(judged((X, Y), device="cpu"), judged((X, Y)))
    with pytest.raises(InputError, match=r"device: expected .* got 'gpu'"):
        judged((X, Y), device="gpu")


def test_one_output_is_told_what_evaluate_can_do():
    one, signs = torch.nn.Linear(5, 1).eval(), torch.tensor([1, -1, 1, -1])
    for suite in ("standard", "fast", [PGD2]):
        with pytest.raises(InputError, match=r"torch.stack\(\[-h / 2, h / 2\], 1\)") as error:
            evaluate(one, (X, signs), BALL, suite, diagnostics=0)
        check_message(error)
    own = evaluate(one, (X, signs), BALL, [PGD(BALL, 3, loss="logistic")], diagnostics=0)
    two = evaluate(
        lambda x: torch.cat([-one(x) / 2, one(x) / 2], 1), (X, (signs + 1) // 2), BALL, [PGD(BALL, 3)], diagnostics=0
    )
    assert torch.equal(own.outcomes, two.outcomes)


def test_tokens_are_not_pixels():
    tokens = torch.randint(0, 99, (4, 7))
    for call in (lambda: PGD2(NET, tokens, Y), lambda: judged((tokens, Y)), lambda: saliency(NET, tokens, Y)):
        with pytest.raises(InputError, match="embeddings") as error:
            call()
        assert "255" not in str(error.value)
    with pytest.raises(InputError) as error:
        PGD2(NET, X * 30_000, Y)
    assert "255" not in str(error.value)


# --- balls and numbers ----------------------------------------------------------------------------------


def test_a_ball_may_be_a_text_wherever_one_is_taken():
    text, ball = "linf:8/255", Linf("8/255")
    assert read_ball(text) == parse_ball(text) == ball and read_ball("L2: 0.5") == L2("0.5")
    assert read_ball("l1:12").value == 12 and read_ball(ball) is ball
    for make in (PGD, FGSM, NFGSM, AutoAttack, LLR, LinearRobustTraining, FreeTraining):
        assert repr(make(text)) == repr(make(ball))
    assert repr(stages("l1:2")) == repr(stages(L1("2")))
    a, b = (evaluate(NET, (X, Y), given, "fast") for given in (text, ball))
    assert torch.equal(a.outcomes, b.outcomes) and a.ball == ball
    own = evaluate(NET, (X, Y), text, [PGD(text, 2)], diagnostics=0)
    assert torch.equal(own.outcomes, evaluate(NET, (X, Y), ball, [PGD(ball, 2)], diagnostics=0).outcomes)
    assert torch.equal(certify(NET, (X, Y), text).margin, certify(NET, (X, Y), ball).margin)
    assert diagnose(NET, X, Y, text) == diagnose(NET, X, Y, ball)
    assert robustness_curve(NET, X, Y, text) == robustness_curve(NET, X, Y, ball)
    assert torch.equal(gradient_misalignment(NET, X, Y, text), gradient_misalignment(NET, X, Y, ball))
    assert torch.equal(draw_triplet(X, text).first, draw_triplet(X, ball).first)


@pytest.mark.parametrize(("ball", "message"), [
    (0.1, r"Linf\(0.1\), L2\(0.1\) or L1\(0.1\), or 'linf:0.1'"),
    (torch.tensor(0.1), "in which norm"),
    ("linf", "expected a norm and a radius"),
    ("8/255", "expected a norm and a radius"),
    ("l3:0.5", "expected a norm and a radius"),
    ("linf:", "expected a norm and a radius"),
    ("linf:8/255px", "'8/255'"),
    ("linf:-1", "radius: expected a finite number >= 0"),
    (Linf, "give a radius"),
    (None, "got None"),
    (PGD2, "got PGD"),
])  # fmt: skip
def test_what_is_no_ball_is_answered(ball, message):
    for call in (
        lambda: PGD(ball),
        lambda: evaluate(NET, (X, Y), ball, "fast"),
        lambda: certify(NET, (X, Y), ball),
        lambda: diagnose(NET, X, Y, ball),
        lambda: LLR(ball),
        lambda: LinearRobustTraining(ball),
    ):
        with pytest.raises(InputError, match=message) as error:
            call()
        check_message(error)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: PGD(BALL, steps=2.5), r"PGD.steps: expected a whole number, got 2.5"),
    (lambda: PGD(BALL, steps="10"), r"PGD.steps: expected a whole number, got '10'"),
    (lambda: PGD(BALL, steps=True), "PGD.steps"),
    (lambda: PGD(BALL, steps=None), "PGD.steps"),
    (lambda: PGD(BALL, restarts=1.0), "PGD.restarts"),
    (lambda: PGD(BALL, stop="yes"), "PGD.stop: expected True or False"),
    (lambda: PGD(BALL, quantile="half"), "PGD.quantile: expected a number"),
    (lambda: AutoAttack(BALL, width=2.5), "AutoAttack.width"),
    (lambda: PGD(BALL, box="01")(NET, X, Y), r"box: expected \(low, high\)"),
    (lambda: PGD(BALL, box=1)(NET, X, Y), r"box: expected \(low, high\)"),
    (lambda: PGD(BALL, box=(0, 1, 2))(NET, X, Y), r"box: expected \(low, high\)"),
    (lambda: PGD(BALL, box=(0, float("nan")))(NET, X, Y), r"box: expected \(low, high\)"),
    (lambda: evaluate(NET, (X, Y), BALL, "fast", box="01"), r"box: expected \(low, high\)"),
    (lambda: certify(NET, (X, Y), BALL, box="01"), r"box: expected \(low, high\)"),
    (lambda: diagnose(NET, X, Y, BALL, box="01"), r"box: expected \(low, high\)"),
    (lambda: PGD2(NET, X, Y, seed=None), "seed: expected a whole number, got None"),
    (lambda: PGD2(NET, X, Y, seed=0.5), "seed: expected a whole number"),
    (lambda: PGD2.perturb(NET, X, Y, seed="0"), "seed: expected a whole number"),
    (lambda: evaluate(NET, (X, Y), BALL, "fast", seed=None), "seed: expected a whole number"),
    (lambda: diagnose(NET, X, Y, BALL, seed=None), "seed: expected a whole number"),
    (lambda: AdversarialTraining(PGD2)(NET, X, Y, seed=None), "seed: expected a whole number"),
    (lambda: LLR(BALL)(NET, X, Y, seed=None), "seed: expected a whole number"),
    (lambda: evaluate(NET, (X, Y), BALL, "fast", batch_size=2.5), "batch_size: expected a whole number"),
    (lambda: evaluate(NET, (X, Y), BALL, "fast", chunk=0), "chunk: expected at least 1"),
    (lambda: TRADES(BALL), r"TRADES.attack: expected one such as PGD\(Linf\('8/255'\)\), got Linf"),
    (lambda: MART(PGD), "MART.attack"),
    (lambda: AdversarialTraining(AdversarialTraining(PGD2)), "AdversarialTraining.attack"),
    (lambda: AWP(PGD2), "AWP.objective"),
    (lambda: TRADES(PGD2, beta="6"), "TRADES.beta: expected a number"),
])  # fmt: skip
def test_settings_of_another_kind_get_errors_of_ours(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    check_message(error)


def test_numbers_of_numpy_and_torch_are_numbers():
    attack = PGD(BALL, steps=np.int64(2), quantile=np.float32(0.5), stop=np.bool_(False), restarts=torch.tensor(1))
    check_fields(attack)
    assert torch.equal(attack(NET, X, Y, seed=np.int64(3)).x, PGD2(NET, X, Y, seed=3).x)
    assert L1(np.float64(0.5)).value == 0.5


def test_training_on_bytes_knows_one_box():
    images, labels = torch.randint(0, 256, (8, 1, 4, 4), dtype=torch.uint8), torch.arange(8) % 3
    net, trainer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)), Trainer(epochs=1, batch_size=4)
    for box, fine in (((0, 255), False), ((-1, 1), False), ((0, 1), True), ((0.0, 1.0), True), (None, True)):
        attack = PGD(BALL, 1, box=box)
        for objective, monitor in ((AdversarialTraining(attack), None), (StandardTraining(), attack)):
            data = (images, labels), (images, labels.to(torch.int16))
            if fine:
                trainer.fit(trainer.start(net), objective, *data, monitor=monitor)
                continue
            with pytest.raises(InputError, match=r"box: expected \(0, 1\), where images of bytes") as error:
                trainer.fit(trainer.start(net), objective, *data, monitor=monitor)
            check_message(error)
    with pytest.raises(InputError, match="fractional"):
        trainer.fit(trainer.start(net), StandardTraining(), (images, labels + 0.5), (images, labels))
