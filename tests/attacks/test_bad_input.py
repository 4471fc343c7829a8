"""What users get wrong: each is refused with what was expected, what came and what to do."""

import pytest
import torch

from danskin.attacks import FGSM, PGA, PGD, LinearWorstCase, MajorizeMinimize
from danskin.errors import DanskinError, DanskinWarning, InputError, ModelError
from danskin.minmax import L1, L2, Linf

X = torch.rand(4, 5, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2, 0])
SIGNS = torch.tensor([1, -1, 1, -1])
MODEL = torch.nn.Linear(5, 3).eval()
ONE = torch.nn.Linear(5, 1).eval()
BALL = Linf(0.1)
PGD3 = PGD(BALL, steps=3)


def spoiled(value):
    x = X.clone()
    x[2, 1] = value
    return x


INPUT = {
    "NaN image": (lambda: PGD3(MODEL, spoiled(torch.nan), Y), "1 of 4 examples .first: 2"),
    "infinite image": (lambda: PGD3(MODEL, spoiled(torch.inf), Y), "clean the data"),
    "outside the box": (lambda: PGD3(MODEL, X - 0.5, Y), r"box \[0, 1\].*pass box="),
    "0 to 255": (lambda: PGD3(MODEL, X * 255, Y), "divide by 255"),
    "integer image": (lambda: PGD3(MODEL, (X * 255).to(torch.uint8), Y), r"x.float\(\) / 255"),
    "numpy image": (lambda: PGD3(MODEL, X.numpy(), Y), "torch.as_tensor"),
    "one image": (lambda: PGD3(MODEL, X[0], Y[:1]), r"x\[None\]"),
    "float labels": (lambda: PGD3(MODEL, X, Y.float()), r"y.long\(\)"),
    "bool labels": (lambda: PGD3(MODEL, X, Y > 0), r"y.long\(\)"),
    "one-hot labels": (lambda: PGD3(MODEL, X, torch.eye(3)[Y]), r"argmax\(1\)"),
    "too few labels": (lambda: PGD3(MODEL, X, Y[:3]), r"shape \(4,\), got \(3,\)"),
    "labels as a column": (lambda: PGD3(MODEL, X, Y[:, None]), r"got \(4, 1\)"),
    "label out of range": (lambda: PGD3(MODEL, X, Y + 1), "classes 0 to 2, got values from 1 to 3"),
    "negative label": (lambda: PGD3(MODEL, X, Y - 2), "got values from -2"),
    "signs with classes": (lambda: PGD3(MODEL, X, SIGNS), r"\(y \+ 1\) // 2"),
    "classes with signs": (lambda: PGD(BALL, loss="logistic")(ONE, X, Y), r"2 \* y - 1"),
    "binary loss, three outputs": (lambda: PGD(BALL, loss="hinge")(MODEL, X, SIGNS), "cross_entropy"),
    "class loss, one output": (lambda: PGD3(ONE, X, SIGNS), "loss='logistic'"),
    "targets out of range": (lambda: PGD3(MODEL, X, Y, targets=Y + 1), "targets: expected classes 0 to 2"),
    "targets missing": (lambda: PGD(BALL, loss="targeted_dlr")(MODEL, X, Y), "pass targets="),
    "too few names": (lambda: PGD3(MODEL, X, Y, index=torch.arange(3)), "index: expected"),
    "names not integer": (lambda: PGD3(MODEL, X, Y, index=torch.rand(4)), "index: expected integer"),
    "negative radius": (lambda: Linf(-0.1), "radius: expected a finite number >= 0"),
    "radius that is no number": (lambda: Linf("8/256px"), "'8/255'"),
    "8 for 8/255": (lambda: PGD(Linf(8))(MODEL, X, Y), "did you mean '8/255'"),
    "l2 radius beyond the box": (lambda: PGD(L2(3.0))(MODEL, X, Y), "L2.radius"),
    "l1 radius beyond the box": (lambda: PGD(L1(6.0))(MODEL, X, Y), "L1.radius"),
    "radius for other rows": (lambda: PGD(Linf(torch.full((3,), 0.1)))(MODEL, X, Y), "one for each of 4"),
    "box upside down": (lambda: PGD(BALL, box=(1, 0))(MODEL, X, Y), "low < high"),
    "no steps": (lambda: PGD(BALL, steps=0)(MODEL, X, Y), "PGD.steps: expected at least 1, got 0"),
    "no steps, PGA": (lambda: PGA(BALL, steps=0)(MODEL, X, Y), "steps: expected at least 1, got 0"),
    "no steps, MM": (lambda: MajorizeMinimize(BALL, steps=0)(MODEL, X, Y), "steps: expected at least 1, got 0"),
    "negative step": (lambda: PGD(BALL, step=-0.1)(MODEL, X, Y), "step: expected a number >= 0"),
    "step with unknown name": (lambda: PGD(BALL, step="eps/4")(MODEL, X, Y), "the names radius, steps"),
    "restarts without random start": (
        lambda: PGD(BALL, restarts=2, random_start=False)(MODEL, X, Y), "together with random_start=True"),
    "no restarts": (lambda: PGD(BALL, restarts=0)(MODEL, X, Y), "restarts: expected 1"),
    "restarts that keep the last": (lambda: PGD(BALL, restarts=2, keep="last")(MODEL, X, Y), "the best run"),
    "stop that keeps the last": (lambda: PGD(BALL, stop=True, keep="last")(MODEL, X, Y), "keep='best'"),
    "unknown loss": (lambda: PGD(BALL, loss="ce")(MODEL, X, Y), "one of cross_entropy"),
    "unknown schedule": (lambda: PGD(BALL, schedule="fast")(MODEL, X, Y), "one of .*cosine"),
    "unknown keep": (lambda: PGD(BALL, keep="first")(MODEL, X, Y), "'best', 'value' or 'last'"),
    "unknown batchnorm": (lambda: PGD(BALL, batchnorm="train")(MODEL, X, Y), "as_is, eval"),
    "unknown precision": (lambda: PGD(BALL, precision="fp8")(MODEL, X, Y), "'model' or 'bfloat16'"),
    "unknown first": (lambda: PGD(BALL, first="jump")(MODEL, X, Y), "'step' or 'vertex'"),
    "quantile of 1": (lambda: PGD(L1(1.0), quantile=1.0)(MODEL, X, Y), r"\[0, 1\)"),
    "segmentation logits": (lambda: PGD3(lambda x: MODEL(x)[:, :, None], X, Y), "pool or flatten"),
}  # fmt: skip


def broken(output):
    return lambda x: output(MODEL(x))


MODELS = {
    "NaN": (broken(lambda z: z * torch.nan), "got NaN for 4 of 4 examples"),
    "NaN for one": (broken(lambda z: torch.where(torch.arange(len(z))[:, None] == 1, torch.nan, z)), "NaN for 1 of 4"),
    "wrong batch size": (broken(lambda z: z[:2]), "expected 4 rows of logits for 4 examples"),
    "no batch": (broken(lambda z: z.sum()), "keep the batch dimension first"),
    "tuple": (broken(lambda z: (z, z)), "got tuple; wrap the model"),
    "dictionary": (broken(lambda z: {"logits": z}), "got dict; wrap the model"),
    "labels": (broken(lambda z: z.argmax(1)), "return scores, not predicted labels"),
    "detached": (broken(lambda z: z.detach()), "without a gradient; remove no_grad"),
    "constant": (broken(lambda z: torch.zeros(len(z), 3)), "without a gradient; remove"),
}


def check_message(error, kind, pattern):
    message = str(error.value)
    assert isinstance(error.value, kind) and isinstance(error.value, DanskinError)
    assert "expected" in message and "got" in message, message
    assert len(message.rsplit("; ", 1)[-1]) > 5 and "; " in message, message  # the fix


@pytest.mark.parametrize("name", INPUT)
def test_refuses_input(name):
    call, pattern = INPUT[name]
    with pytest.raises(InputError, match=f"(?s){pattern}") as error:
        call()
    check_message(error, ValueError, pattern)


@pytest.mark.parametrize("attack", [PGD3, FGSM(BALL), LinearWorstCase(BALL), MajorizeMinimize(L2(0.1))], ids=repr)
@pytest.mark.parametrize("name", MODELS)
def test_refuses_model(name, attack):
    model, pattern = MODELS[name]
    with pytest.raises(ModelError, match=pattern) as error:
        attack(model, X, Y)
    check_message(error, RuntimeError, pattern)


def test_probabilities_give_a_warning():
    with pytest.warns(DanskinWarning, match=r"expected logits, got rows .*remove it"):
        PGD3(broken(lambda z: z.softmax(1)), X, Y)


def test_inputs_out_of_the_box_by_rounding_are_accepted():
    assert PGD3(MODEL, (X + 0).clamp(0, 1) * (1 + 1e-7), Y).x.max() <= 1 + 1e-6


def test_labels_may_be_a_list():
    assert torch.equal(PGD3(MODEL, X, Y.tolist()).x, PGD3(MODEL, X, Y).x)
