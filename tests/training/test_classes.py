"""Adversaries over classes and examples: golden steps, brute force, regret, draws, and what they refuse."""

import io
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog
from torch import nn

from danskin.attacks import PGD
from danskin.errors import InputError
from danskin.minmax import Linf
from danskin.training import (
    AWP,
    CFOL,
    FOL,
    AdversarialTraining,
    ClassCVaR,
    Hooks,
    StandardTraining,
)
from danskin.training.classes import cvar_weights
from danskin.training.exp3 import chances, drawn, uniforms
from danskin.training.objective import Losses, Objective

ATTACK = PGD(Linf(0.1), 2, keep="last")
LABELS = torch.tensor([0, 0, 1, 2, 2, 2])


class Given(Objective):
    """Losses and errors as they are given, times a parameter of 1."""

    def __init__(self, values, wrong=None):
        self.values, self.wrong = values, wrong

    def search(self, model, x, y, step):
        return StandardTraining().search(model, x, y, step)

    def losses(self, model, found, step):
        wrong = torch.zeros(len(found.y), dtype=torch.bool) if self.wrong is None else self.wrong
        return Losses(self.values.to(found.x) * model.weight.sum(), wrong)


def one():
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    return model


def net():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def batch(n=12):
    return torch.rand(n, 5, dtype=torch.float64), torch.arange(n) % 3


def gradients(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()))


def same(a, b, tolerance=1e-12):
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, atol=tolerance, rtol=0)


# the bandit


@pytest.mark.parametrize("form", ["sample", "reweight"])
def test_one_update_of_cfol(form):
    wrong = torch.tensor([1, 0, 1, 1, 1, 0], dtype=torch.bool)
    objective = CFOL(Given(torch.arange(6.0), wrong), 3, 0.5, 0.1, form)
    memory = objective.begin()
    loss = objective(one(), torch.zeros(6, 1, dtype=torch.float64), LABELS, memory=memory)
    assert memory["cfol.log_weights"].tolist() == pytest.approx([0.3, 0.3, 0.6], abs=1e-12)
    assert objective.probabilities(memory).tolist() == pytest.approx([0.315927, 0.315927, 0.368147], abs=1e-6)
    assert loss.item() == pytest.approx(2.5)  # of the start of the batch, where p is uniform
    again = objective(one(), torch.zeros(6, 1, dtype=torch.float64), LABELS, memory=memory)
    p = [0.315927, 0.315927, 0.368147]
    weighted = sum(3 * p[c] * v for c, v in zip(LABELS.tolist(), range(6), strict=True)) / 6
    assert again.item() == pytest.approx(weighted if form == "reweight" else 2.5, abs=1e-5)
    grown = [0.1 * e / (q if form == "sample" else 1 / 3) for e, q in zip((1, 1, 2), p, strict=True)]
    now = [a + b for a, b in zip([0.3, 0.3, 0.6], grown, strict=True)]
    assert memory["cfol.log_weights"].tolist() == pytest.approx(now, abs=1e-5)


def test_weights_do_not_overflow():
    p = chances(torch.tensor([1e6, 0.0, -1e6], dtype=torch.float64), 0.3)
    assert p.tolist() == pytest.approx([0.8, 0.1, 0.1])
    objective = CFOL(Given(torch.ones(6), torch.ones(6, dtype=torch.bool)), 3, 0.0, 1.0)
    memory = objective.begin() | {"cfol.log_weights": torch.tensor([1e4, 0.0, 0.0], dtype=torch.float64)}
    objective(one(), torch.zeros(6, 1, dtype=torch.float64), LABELS, memory=memory)
    assert objective.probabilities(memory).isfinite().all()  # though classes of chance 0 were wrong


def test_sample_form_leaves_the_losses_alone():
    model, (x, y) = net(), batch()
    objective, plain = CFOL(AdversarialTraining(ATTACK), 3), AdversarialTraining(ATTACK)
    memory = objective.begin()
    memory["cfol.log_weights"] += torch.tensor([0.0, 3.0, 1.0], dtype=torch.float64)
    same(gradients(model, objective(model, x, y, memory=memory)), gradients(model, plain(model, x, y)))


def test_reweight_form_is_the_loop_by_hand():
    model, (x, y) = net(), batch()
    objective = CFOL(AdversarialTraining(ATTACK), 3, 0.4, 0.01, "reweight")
    memory, log_weights = objective.begin(), torch.zeros(3, dtype=torch.float64)
    for step in range(5):
        loss = objective(model, x, y, seed=step, memory=memory)
        p = [0.4 / 3 + 0.6 * math.exp(w) / sum(math.exp(v) for v in log_weights) for w in log_weights]
        logits = model(ATTACK(model, x, y, seed=step).x)
        each = F.cross_entropy(logits, y, reduction="none")
        truth = sum(3 * p[c] * each[i] for i, c in enumerate(y.tolist())) / 12
        same(gradients(model, loss), gradients(model, truth))
        for i, c in enumerate(y.tolist()):
            log_weights[c] += 0.01 * 3 * bool(logits[i].argmax() != c)
    assert log_weights.max() > 0
    same([memory["cfol.log_weights"]], [log_weights])


def test_order_of_the_batch_does_not_matter():
    model, (x, y) = net(), batch()
    order = torch.randperm(12)
    for objective in (
        CFOL(AdversarialTraining(ATTACK), 3, eta=0.1, form="reweight"),
        ClassCVaR(AdversarialTraining(ATTACK), 3),
    ):
        found = []
        for u, v in ((x, y), (x[order], y[order])):
            memory = objective.begin()
            for step in range(2):
                loss = objective(model, u, v, seed=step, memory=memory)
            found.append([loss, *memory.values(), *gradients(model, loss)])
        same(*found)


def draws(objective, memory, labels, n, seeds):
    return torch.cat([objective.draw(memory, labels, n, seed) for seed in range(seeds)])


def test_drawn_classes_follow_p_and_examples_are_uniform_within():
    labels = torch.tensor([2, 0, 1, 1, 0, 1, 2, 1, 1, 1])
    objective = CFOL(StandardTraining(), 3, 0.5)
    memory = {"cfol.log_weights": torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)}
    rows = draws(objective, memory, labels, 1000, 40)
    share = torch.bincount(rows, minlength=10) / len(rows)
    p = objective.probabilities(memory)
    truth = (p / torch.bincount(labels))[labels]
    assert ((share - truth).abs() < 5 * (truth * (1 - truth) / len(rows)).sqrt()).all()
    assert torch.equal(objective.draw(memory, labels, 64, 7), objective.draw(memory, labels, 64, 7))
    assert not torch.equal(objective.draw(memory, labels, 64, 7), objective.draw(memory, labels, 64, 8))


def test_drawn_examples_follow_p():
    objective = FOL(StandardTraining(), 6, 0.2)
    memory = {"fol.log_weights": torch.tensor([0.0, 1, 2, 3, 0, -9], dtype=torch.float64)}
    rows = draws(objective, memory, torch.zeros(6, dtype=torch.int64), 1000, 40)
    p = objective.probabilities(memory)
    assert ((torch.bincount(rows, minlength=6) / len(rows) - p).abs() < 5 * (p * (1 - p) / len(rows)).sqrt()).all()


def test_draw_is_the_obvious_loop():
    p, u = torch.tensor([0.2, 0.0, 0.5, 0.3, 0.0], dtype=torch.float64), uniforms(3, 200, 1, torch.device("cpu"))[:, 0]
    slow = [next(c for c, edge in enumerate(itertools.accumulate(p.tolist())) if v < edge) for v in u.tolist()]
    assert drawn(p, u).tolist() == slow
    assert drawn(p, torch.tensor([0.0, 1 - 1e-16, 1.0], dtype=torch.float64)).tolist() == [0, 3, 3]
    assert drawn(torch.tensor([0.0, 0.5, 0.5]), torch.tensor([0.0, 0.5])).tolist() == [1, 2]


def test_the_hard_class_is_drawn_more_and_more():
    """Three classes, one of them wrong with chance 0.9, the others 0.1: p goes to its limit, and regret is small."""
    chance, generator = torch.tensor([0.1, 0.9, 0.1]), torch.Generator().manual_seed(0)
    labels, gamma, losses, path = torch.arange(300) % 3, 0.3, [], []
    memory = CFOL(StandardTraining(), 3).begin()
    for step in range(300):
        rows = CFOL(StandardTraining(), 3, gamma).draw(memory, labels, 30, step)
        y = labels[rows]
        wrong = torch.rand(30, generator=generator) < chance[y]
        objective = CFOL(Given(wrong.double(), wrong), 3, gamma, 2e-3)
        path.append(objective.probabilities(memory)[1].item())
        losses.append(objective(one(), torch.zeros(30, 1, dtype=torch.float64), y, memory=memory).item())
    assert path[0] == pytest.approx(1 / 3)
    assert path[-1] == pytest.approx(gamma / 3 + (1 - gamma), abs=1e-3)
    assert all(b > a - 0.02 for a, b in itertools.pairwise(path[::20]))
    exploring = gamma * (0.9 - chance.mean().item())
    assert sum(losses) / 300 >= 0.9 - exploring - math.sqrt(3 * math.log(3) / 300)


def test_training_the_worst_class_improves_it():
    """Two easy classes and one between them: a linear model with CFOL gets the hard one, without it does not."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(600) % 3
    x = torch.tensor([[-1.0, 0], [1.0, 0], [0.0, 0.4]])[y] + 0.5 * torch.randn(600, 2, generator=generator)
    worst = []
    for objective in (StandardTraining(), CFOL(StandardTraining(), 3, 0.1, 5e-3)):
        model = nn.Linear(2, 3)
        with torch.no_grad():
            [nn.init.zeros_(p) for p in model.parameters()]
        memory = objective.begin()
        optimizer = torch.optim.SGD(model.parameters(), 0.3)
        accuracy = torch.zeros(3)
        for step in range(400):
            rows = objective.draw(memory, y, 60, step)
            rows = torch.randint(600, (60,), generator=generator) if rows is None else rows
            optimizer.zero_grad()
            objective(model, x[rows], y[rows], seed=step, memory=memory).backward()
            optimizer.step()
            if step >= 200:
                right = (model(x).argmax(1) == y).float()
                accuracy += torch.stack([right[y == c].mean() for c in range(3)]) / 200
        worst.append(accuracy.min().item())
    assert worst[1] > worst[0] + 0.05


def test_fol_is_the_loop_by_hand():
    index = torch.tensor([4, 0, 4, 7, 2])
    wrong = torch.tensor([1, 1, 1, 0, 1], dtype=torch.bool)
    objective = FOL(Given(torch.arange(5.0), wrong), 8, 0.5, 0.01)
    memory, truth = objective.begin(), [0.0] * 8
    for _ in range(3):
        total = sum(math.exp(w) for w in truth)
        p = [0.5 / 8 + 0.5 * math.exp(w) / total for w in truth]
        for i, w in zip(index.tolist(), wrong.tolist(), strict=True):
            truth[i] += 0.01 * w / p[i]
        loss = objective(
            one(), torch.zeros(5, 1, dtype=torch.float64), torch.zeros(5, dtype=torch.int64), memory=memory, index=index
        )
    assert memory["fol.log_weights"].tolist() == pytest.approx(truth, abs=1e-12)
    assert loss.item() == pytest.approx(2)


# the exact worst class weights


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 0.77, 1.0])
def test_cvar_is_the_linear_program_and_its_dual(alpha):
    for _ in range(5):
        losses, shares = torch.randn(6, dtype=torch.float64), torch.rand(6, dtype=torch.float64).softmax(0)
        q = cvar_weights(losses, shares, alpha)
        assert (q >= 0).all() and (q <= shares / alpha + 1e-12).all() and q.sum().item() == pytest.approx(1, abs=1e-12)
        primal = (q @ losses).item()
        dual = min((t + (shares * (losses - t).clamp_min(0)).sum() / alpha).item() for t in losses)
        assert primal == pytest.approx(dual, abs=1e-12)
        bounds = [(0, s / alpha) for s in shares.tolist()]
        program = linprog((-losses).numpy(), A_eq=[[1] * 6], b_eq=[1], bounds=bounds)
        assert primal == pytest.approx(-program.fun, abs=1e-9)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0])
def test_class_cvar_by_hand(alpha):
    """Class means 0.5, 2 and 4 with shares 1/3, 1/6 and 1/2; and the gradient that q held constant has."""
    objective, model = ClassCVaR(Given(torch.arange(6.0)), 3, alpha), one()
    loss = objective(model, torch.zeros(6, 1, dtype=torch.float64), LABELS)
    q = {0.1: (0, 0, 1), 0.2: (0, 0, 1), 0.5: (0, 0, 1), 1.0: (1 / 3, 1 / 6, 1 / 2)}[alpha]
    truth = 0.5 * q[0] + 2 * q[1] + 4 * q[2]
    assert loss.item() == pytest.approx(truth, abs=1e-12)
    assert gradients(model, loss)[0].item() == pytest.approx(truth, abs=1e-12)


def test_class_cvar_between_two_classes():
    """alpha = 0.6: the worst class (share 1/2) has 5/6, and the next (share 1/6) the rest."""
    loss = ClassCVaR(Given(torch.arange(6.0)), 3, 0.6)(one(), torch.zeros(6, 1, dtype=torch.float64), LABELS)
    assert loss.item() == pytest.approx(4 * 5 / 6 + 2 / 6, abs=1e-12)


def test_class_cvar_of_all_is_the_mean_and_of_little_the_worst_class():
    model, (x, y) = net(), batch()
    inner = AdversarialTraining(ATTACK)
    same(gradients(model, ClassCVaR(inner, 3, 1.0)(model, x, y)), gradients(model, inner(model, x, y)))
    logits = model(ATTACK(model, x, y).x)
    means = torch.stack([F.cross_entropy(logits[y == c], y[y == c]) for c in range(3)])
    loss = ClassCVaR(inner, 3, 0.01)(model, x, y)
    assert loss.item() == pytest.approx(means.max().item(), abs=1e-12)
    same(gradients(model, loss), gradients(model, means.max()))


def test_a_class_that_the_batch_lacks():
    model, (x, y) = net(), batch()
    y = y.clamp_max(1)
    same(
        gradients(model, ClassCVaR(StandardTraining(), 7, 0.3)(model, x, y)),
        gradients(model, ClassCVaR(StandardTraining(), 2, 0.3)(model, x, y)),
    )


# around and inside others, and through the trainer


def test_they_nest():
    model, (x, y) = net(), batch()
    for objective in (
        AWP(CFOL(AdversarialTraining(ATTACK), 3, eta=0.1)),
        CFOL(AWP(AdversarialTraining(ATTACK)), 3, eta=0.1),
    ):
        memory = objective.begin()
        plain = AWP(AdversarialTraining(ATTACK))(model, x, y)
        same(gradients(model, objective(model, x, y, memory=memory)), gradients(model, plain))
        assert objective.draw(memory, y, 5, 0).shape == (5,)
        assert objective.attack is ATTACK and objective.replays == 1
        grown = memory["cfol.log_weights"].sum() / 0.3
        assert grown.item() == pytest.approx(round(grown.item())) and 0 < grown < 12.1  # each example counts once


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "make",
    [
        lambda: CFOL(AdversarialTraining(ATTACK), 10, eta=0.01),
        lambda: CFOL(AdversarialTraining(ATTACK), 10, eta=0.01, form="reweight"),
        lambda: FOL(AWP(AdversarialTraining(ATTACK), warmup=2), 120, eta=1e-4),
    ],
)
def test_a_run_cut_in_the_middle_goes_on_as_if_not(make, digits, make_model, make_trainer):
    trainer, saved = make_trainer(), []

    def checkpoint(state):
        stream = io.BytesIO()
        torch.save(state.state_dict(), stream)
        saved.append(stream.getvalue())

    hooks = Hooks(checkpoint=checkpoint, checkpoint_every=2)
    whole = trainer.fit(trainer.start(make_model()), make(), *digits, seed=5, hooks=hooks)
    assert all(kept.any() for kept in whole.memory.values())
    state = trainer.start(make_model())
    state.load_state_dict(torch.load(io.BytesIO(saved[0]), weights_only=True))
    assert state.step == 2
    again = trainer.fit(state, make(), *digits, seed=5)
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert whole.memory.keys() == again.memory.keys()
    assert all(torch.equal(whole.memory[k], again.memory[k]) for k in whole.memory)


def test_the_trainer_trains_on_what_is_drawn(digits, make_model, make_trainer):
    """With all the weight on one class and no exploration only its examples are seen."""
    labels = []

    class Seen(Given):
        def losses(self, model, found, step):
            labels.append(found.y.unique().tolist())
            return StandardTraining().losses(model, found, step)

    class Fixed(CFOL):
        def begin(self):
            return {"cfol.log_weights": 1e4 * F.one_hot(torch.tensor(4), 10).double()}

    make_trainer(epochs=1).fit(
        make_trainer().start(make_model()), Fixed(Seen(torch.zeros(0)), 10, 0.0, 1e-9), *digits
    )  # fmt: skip
    assert labels == [[4]] * 3


# what they refuse

INNER = StandardTraining()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CFOL(INNER, 1), "CFOL.classes: expected at least 2, got 1"),
        (lambda: ClassCVaR(INNER, 1), "ClassCVaR.classes: expected at least 2, got 1"),
        (lambda: FOL(INNER, 1), "FOL.examples: expected at least 2, got 1"),
        (lambda: CFOL(INNER, 3, 1.5), r"CFOL.gamma: expected a share in \[0, 1\], got 1.5"),
        (lambda: FOL(INNER, 3, -0.1), r"FOL.gamma: expected a share in \[0, 1\], got -0.1"),
        (lambda: CFOL(INNER, 3, eta=0), "CFOL.eta: expected a number above 0, got 0"),
        (lambda: FOL(INNER, 3, eta=float("nan")), "FOL.eta: expected a number above 0, got nan"),
        (lambda: CFOL(INNER, 3, form="draw"), "CFOL.form: expected 'sample' or 'reweight'"),
        (lambda: ClassCVaR(INNER, 3, 0), r"ClassCVaR.alpha: expected a share in \(0, 1\], got 0"),
        (lambda: ClassCVaR(INNER, 3, 1.1), r"ClassCVaR.alpha: expected a share in \(0, 1\], got 1.1"),
    ],
)
def test_settings(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_labels_indices_and_memory():
    model, (x, y) = net(), batch()
    for objective in (CFOL(INNER, 2), ClassCVaR(INNER, 2)):
        with pytest.raises(InputError, match="classes: expected labels 0 to 1, got values from 0 to 2"):
            objective(model, x, y, memory=objective.begin() or None)
    with pytest.raises(InputError, match="expected the dict that the steps share"):
        CFOL(INNER, 3)(model, x, y)
    fol = FOL(INNER, 6)
    with pytest.raises(InputError, match="FOL: expected index="):
        fol(model, x, y, memory=fol.begin())
    with pytest.raises(InputError, match=r"FOL.index: expected places from 0 to 5, got values from 0 to 11"):
        fol(model, x, y, memory=fol.begin(), index=torch.arange(12))
    with pytest.raises(InputError, match=r"FOL.examples: expected 6, got 12"):
        fol.draw(fol.begin(), y, 3, 0)
    for both in (CFOL(FOL(INNER, 12), 3), FOL(AWP(CFOL(INNER, 3)), 12)):
        with pytest.raises(InputError, match="got one that draws them"):
            both.draw(both.begin(), y, 3, 0)
    assert CFOL(FOL(INNER, 12), 3, form="reweight").draw(both.begin(), y, 3, 0).shape == (3,)
    cfol = CFOL(INNER, 4)
    with pytest.raises(InputError, match="got none of class 3"):
        cfol.draw(cfol.begin(), y, 3, 0)
