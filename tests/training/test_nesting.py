"""BETA training, Free, AWP, Regularized, one-step adversaries: twins, limits, nesting."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from danskin.attacks import BETA, FGSM, NFGSM, PGD, RSFGSM
from danskin.errors import DanskinWarning, InputError
from danskin.minmax import L1, L2, Linf, Streams
from danskin.minmax.weight_balls import EachLayer
from danskin.regularizers import CURE, ELLE, ELLE_A, GradAlign
from danskin.training import (
    AWP,
    SGD,
    TRADES,
    AdversarialTraining,
    Augment,
    BETATraining,
    Constant,
    FreeTraining,
    Hooks,
    OverfittingWatch,
    Regularized,
    StandardTraining,
    Trainer,
)
from danskin.training.awp import layers
from danskin.training.objective import Step

RADIUS = 0.1
FAST = AdversarialTraining(FGSM(Linf(RADIUS)))
STABLE = TRADES(PGD(Linf(RADIUS), 2, start_noise=0.001, keep="last"), beta=2.0)


def net(classes=4, norm=False):
    middle = [nn.BatchNorm1d(8)] if norm else []
    return nn.Sequential(nn.Linear(5, 8), *middle, nn.Tanh(), nn.Linear(8, classes)).double()


def batch(n=12, classes=4):
    return torch.rand(n, 5, dtype=torch.float64), torch.arange(n) % classes


def gradients(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()))


def same(a, b, tolerance=1e-9):
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, atol=tolerance, rtol=0)


# BETA training


def test_beta_training_is_cross_entropy_where_the_best_class_got():
    model, (x, y) = net(), batch()
    attack = BETA(Linf(RADIUS), steps=4, random_start=False, keep="value")
    loss, best = BETATraining(attack)(model, x, y), []
    for a, b in zip(x, y, strict=True):
        runs = []
        for j in range(4):
            if j != b:
                delta = torch.zeros_like(a)
                seen = []
                for k in range(5):
                    delta.requires_grad_()
                    z = model((a + delta)[None])[0]
                    seen.append((float((z[j] - z[b]).detach()), delta.detach().clone()))
                    (g,) = torch.autograd.grad(z[j] - z[b], delta)
                    if k < 4:
                        delta = (delta.detach() + RADIUS / 4 * g.sign()).clamp(-RADIUS, RADIUS)
                        delta = (a + delta).clamp(0, 1) - a
                runs.append(max(seen, key=lambda pair: pair[0]))
        best.append(a + max(runs, key=lambda pair: pair[0])[1])
    truth = F.cross_entropy(model(torch.stack(best)), y)
    assert loss.item() == pytest.approx(truth.item(), abs=1e-9)
    same(gradients(model, loss), gradients(model, truth))


def test_smooth_beta_goes_from_the_mean_to_the_best_class():
    model, (x, y) = net(), batch()
    attack = BETA(Linf(RADIUS), steps=3, random_start=False, keep="value")
    hard = BETATraining(attack)(model, x, y)
    assert BETATraining(attack, mu=1e6)(model, x, y).item() == pytest.approx(hard.item(), abs=1e-9)
    each = attack.per_class(model, x, y)
    every = [F.cross_entropy(model(x + each.delta[:, j]), y, reduction="none") for j in range(3)]
    assert BETATraining(attack, mu=0)(model, x, y).item() == pytest.approx(torch.stack(every).mean().item(), abs=1e-9)
    weights = (2.5 * each.margin).softmax(1)
    truth = sum(weights[:, j] * every[j] for j in range(3)).mean()
    loss = BETATraining(attack, mu=2.5)(model, x, y)
    assert loss.item() == pytest.approx(truth.item(), abs=1e-9)
    same(gradients(model, loss), gradients(model, truth))


def test_golden_weights_of_the_smooth_variant():
    margins = torch.tensor([[0.5, -1.0], [-0.3, -0.6]], dtype=torch.float64)
    weights = (10 * margins).softmax(1)
    from danskin.attacks import ClassPerturbations

    got = ClassPerturbations(margins, margins, margins).weights(10)
    assert got.flatten().tolist() == pytest.approx([0.9999997, 3.06e-7, 0.9525741, 0.0474259], abs=1e-7)
    assert torch.equal(got, weights)


def test_with_two_classes_margin_and_cross_entropy_agree():
    model, (x, y) = net(2), batch(classes=2)
    pgd = PGD(Linf(RADIUS), 4, "radius/4", random_start=False, keep="value")
    beta = BETA(Linf(RADIUS), steps=4, random_start=False, keep="value")
    one, two = BETATraining(beta)(model, x, y), AdversarialTraining(pgd)(model, x, y)
    assert one.item() == pytest.approx(two.item(), abs=1e-9)


def test_all_leading_classes_are_all_classes():
    model, (x, y) = net(), batch()
    attack = BETA(Linf(RADIUS), steps=2, keep="value")
    assert torch.equal(BETATraining(replace(attack, classes=3))(model, x, y), BETATraining(attack)(model, x, y))


@pytest.mark.parametrize("classes", [None, 2])
def test_first_gradients_of_all_classes_come_from_one_pass(classes):
    """From a common start the points are the same, for fewer forward passes."""
    model, (x, y) = Counted(classes=4), batch()
    found, rows = [], []
    for shared in (False, True):
        attack = BETA(Linf(RADIUS), steps=4, random_start=False, keep="value", classes=classes, shared_first=shared)
        model.rows = 0
        found.append(BETATraining(attack).search(model, x, y, Step()).points)
        rows.append(model.rows)
    torch.testing.assert_close(found[0], found[1], atol=1e-9, rtol=0)
    assert rows[0] - rows[1] == len(x) * ((classes or 3) - 1)
    with pytest.raises(InputError, match="shared_first"):
        BETA(Linf(RADIUS), steps=4, stop=True, shared_first=True)(net().eval(), x, y)


def test_beta_training_wants_beta():
    with pytest.raises(InputError, match="expected BETA, got FGSM"):
        BETATraining(FGSM(Linf(RADIUS)))
    with pytest.raises(InputError, match="mu: expected a number >= 0"):
        BETATraining(BETA(Linf(RADIUS)), mu=-1)


# one-step adversaries


def test_n_fgsm_is_its_formula():
    model, (x, y) = net(), batch()
    x = 0.4 + 0.2 * x  # far from the box
    got = AdversarialTraining(NFGSM(Linf(RADIUS))).search(model, x, y, Step(seed=5)).points
    eta = Linf(2 * RADIUS).sample(x, Streams.of_content(5, x))
    at = (x + eta).requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(model(at), y, reduction="sum"), at)
    torch.testing.assert_close(got, x + eta + RADIUS * g.sign(), atol=1e-12, rtol=0)
    assert (got - x).abs().max() > 2 * RADIUS


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.3), L1(0.5)])
def test_n_fgsm_stays_in_the_box_and_within_noise_and_step(ball):
    model, (x, y) = net(), batch(40)
    points = AdversarialTraining(NFGSM(ball, noise=1.5)).search(model, x, y, Step()).points
    assert points.min() >= 0 and points.max() <= 1
    size = ball.norm(points - x)
    assert (size <= 2.5 * ball.value + 1e-9).all() and size.max() > ball.value


def test_n_fgsm_is_not_an_attack():
    with pytest.raises(InputError, match="NFGSM: expected to be trained with"):
        NFGSM(Linf(0.1))(net(), *batch())
    with pytest.raises(InputError, match=r"NFGSM.noise"):
        NFGSM(Linf(0.1), noise=0)


def test_rs_fgsm_is_its_formula():
    model, (x, y) = net(), batch()
    got = RSFGSM(Linf(RADIUS), box=None)(model.eval(), x, y, seed=2).delta
    eta = Linf(RADIUS).sample(x, Streams.of_content(2, x))
    at = (x + eta).requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(model(at), y, reduction="sum"), at)
    wanted = (eta + 1.25 * RADIUS * g.sign()).clamp(-RADIUS, RADIUS)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)


# Free


def by_hand_free(model, batches, replays, radius, rate):
    delta = torch.zeros_like(batches[0][0])
    for x, y in batches:
        for _ in range(replays):
            point = (x + delta).clamp(0, 1)
            delta = (point - x).requires_grad_()
            loss = F.cross_entropy(model(x + delta), y)
            model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= rate * p.grad
                delta = (delta + radius * delta.grad.sign()).clamp(-radius, radius).detach()
    return delta


def test_free_training_is_the_loop_by_hand():
    model = net()
    twin, batches = deepcopy(model), [batch(), batch()]
    objective = FreeTraining(Linf(RADIUS), replays=3)
    memory, optimizer = objective.begin(), torch.optim.SGD(model.parameters(), 0.5)
    for x, y in batches:
        for _ in range(objective.replays):
            loss = objective(model, x, y, memory=memory)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    by_hand_free(twin, batches, 3, RADIUS, 0.5)
    same(model.parameters(), twin.parameters())


def test_free_training_carries_shift_and_gradient_over_a_checkpoint(tmp_path):
    (x, y) = batch(24)
    trainer = Trainer(epochs=2, batch_size=8, optimizer=SGD(0.1), schedule=Constant(), augment=Augment(),
                      watch=OverfittingWatch(every=0, examples=2))  # fmt: skip
    objective, held = FreeTraining(Linf(RADIUS), replays=2), []
    start = net()
    whole = trainer.fit(trainer.start(deepcopy(start)), objective, (x, y), (x, y), seed=3, hooks=Hooks(
        checkpoint=lambda s: held.append(deepcopy(s.state_dict())), checkpoint_every=2))  # fmt: skip
    assert whole.step == 12 and held[0]["memory_gradients"]["free.delta"].abs().max() > 0
    torch.save(held[0], tmp_path / "state.pt")
    state = trainer.start(net())
    state.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    trainer.fit(state, objective, (x, y), (x, y), seed=3)
    for a, b in zip(state.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_free_training_wants_its_memory():
    with pytest.raises(InputError, match=r"memory = objective\.begin"):
        FreeTraining(Linf(RADIUS))(net(), *batch())
    with pytest.raises(InputError, match="replays"):
        FreeTraining(Linf(RADIUS), replays=0)


# AWP


def test_golden_weight_shift():
    w = torch.tensor([[1.0, 0], [0, 2]], dtype=torch.float64)
    g = torch.tensor([[0.3, 0.4], [0, 0]], dtype=torch.float64)
    (v,) = EachLayer(0.01).lmo([g], [w])
    assert v.flatten().tolist() == pytest.approx([0.0134164, 0.0178885, 0, 0], abs=1e-7)


def by_hand_awp(model, points, y, gamma):
    """The gradient at shifted weights, by moving the weights of a copy."""
    proxy = deepcopy(model)
    F.cross_entropy(proxy(points), y).backward()
    with torch.no_grad():
        for p in proxy.parameters():
            if p.ndim > 1:
                p += gamma * p.norm() / p.grad.norm() * p.grad
    proxy.zero_grad()
    loss = F.cross_entropy(proxy(points), y)
    return loss, torch.autograd.grad(loss, list(proxy.parameters()))


def test_awp_is_the_proxy_by_hand():
    model, (x, y) = net(), batch()
    before = deepcopy(model.state_dict())
    loss = AWP(FAST, gamma=0.2)(model, x, y)
    points = FAST.search(model, x, y, Step()).points
    value, slope = by_hand_awp(model, points, y, 0.2)
    assert loss.item() == pytest.approx(value.item(), abs=1e-12)
    same(gradients(model, loss), slope)
    assert value > FAST(model, x, y) + 1e-3
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_awp_without_size_or_while_warming_up_is_the_objective():
    model, (x, y) = net(), batch()
    assert AWP(STABLE, gamma=0)(model, x, y).item() == pytest.approx(STABLE(model, x, y).item(), abs=1e-12)
    objective = AWP(STABLE, gamma=0.3, warmup=2)
    memory = objective.begin()
    values = [objective(model, x, y, memory=memory).item() for _ in range(3)]
    assert values[0] == values[1] == STABLE(model, x, y).item() < values[2]


def test_decay_of_shifted_weights_is_a_quirk():
    model, (x, y) = net(), batch()
    plain, quirk = (gradients(model, AWP(FAST, gamma=0.2, decay=d)(model, x, y)) for d in (0.0, 0.5))
    weights = list(layers(model).values())
    v = EachLayer(0.2).lmo(torch.autograd.grad(FAST(model, x, y), weights), weights)
    same(
        [quirk[0] - plain[0], quirk[1] - plain[1], quirk[2] - plain[2]],
        [0.5 * v[0], torch.zeros(8, dtype=torch.float64), 0.5 * v[1]],
    )
    plain, quirk = (AWP(FAST, gamma=0.2, decay=d)(model, x, y).item() for d in (0.0, 0.5))
    assert quirk == pytest.approx(plain, rel=1e-12)  # the gradient alone


def test_awp_moves_no_buffers_while_it_looks():
    model, (x, y) = net(norm=True), batch()
    twin = deepcopy(model)
    AWP(FAST, gamma=0.01)(model, x, y)
    FAST(twin, x, y)
    assert int(model[1].num_batches_tracked) == int(twin[1].num_batches_tracked) == 1


# Regularized


def test_terms_are_added_to_the_losses():
    model, (x, y) = net(), batch()
    terms = (GradAlign(Linf(RADIUS), 0.5), ELLE(Linf(RADIUS), 100.0))
    loss = Regularized(FAST, terms)(model, x, y, seed=4)
    added = sum(term(model, x, y, seed=4) for term in terms).mean()
    assert loss.item() == pytest.approx((FAST(model, x, y, seed=4) + added).item(), abs=1e-9)
    assert added > 1e-5
    with pytest.raises(InputError, match="terms: expected one"):
        Regularized(FAST, ())


class Counted(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.inner, self.rows = net(classes), 0

    def forward(self, x):
        self.rows += len(x)
        return self.inner(x)


@pytest.mark.parametrize(("objective", "passes"), [(FAST, 3), (AdversarialTraining(RSFGSM(Linf(RADIUS))), 4)])
def test_the_gradient_of_a_one_step_attack_is_used_again(objective, passes):
    """FGSM knows the gradient at the clean input; a random start does not."""
    model, (x, y) = Counted(), batch()
    Regularized(objective, (GradAlign(Linf(RADIUS), 0.5),))(model, x, y)
    assert model.rows == passes * len(x)


def test_the_gradient_of_another_loss_is_not_used():
    model, (x, y) = Counted(), batch()
    margin = AdversarialTraining(FGSM(Linf(RADIUS), loss="margin"), loss="cross_entropy")
    Regularized(margin, (GradAlign(Linf(RADIUS), 0.5),))(model, x, y)
    assert model.rows == 4 * len(x)


@pytest.mark.parametrize("mode", ["eval", "batch_frozen", "train_update"])
def test_terms_see_the_network_that_the_adversary_sees(mode):
    model, (x, y) = net(norm=True), batch()
    objective = Regularized(AdversarialTraining(FGSM(Linf(RADIUS)), batchnorm=mode), (ELLE(Linf(RADIUS), 1.0),))
    objective(model, x, y).backward()
    assert int(model[1].num_batches_tracked) == (3 if mode == "train_update" else 1)
    assert model.training and model[1].track_running_stats


def test_memories_of_terms_are_kept_apart_and_changed_in_place():
    model, (x, y) = net(), batch()
    terms = (ELLE_A(Linf(RADIUS), 10.0), ELLE_A(Linf(RADIUS), 10.0, endpoints="clean_random"))
    objective = Regularized(FAST, terms)
    with pytest.raises(InputError, match="memory"):
        objective(model, x, y)
    memory = objective.begin()
    held = dict(memory)
    objective(model, x, y, memory=memory)
    assert all(memory[name] is held[name] for name in memory)
    means = [float(memory[f"terms.{i}.mean"]) for i in (0, 1)]
    assert means[0] != means[1] and min(means) > 0


def test_terms_on_another_ball_and_warm_ups_that_never_end_are_told():
    with pytest.warns(DanskinWarning, match=r"got ELLE on Linf\(radius=0.3\)"):
        Regularized(FAST, (ELLE(Linf(0.3)),))
    trainer, data = Trainer(epochs=1, batch_size=4, optimizer=SGD(0.01)), batch(8)
    with pytest.warns(DanskinWarning, match="expected more than the 2 steps"):
        trainer.fit(trainer.start(net()), AWP(StandardTraining(), warmup=2), data, data)


OBJECTIVES = {
    "standard with curvature": Regularized(StandardTraining(), (CURE(Linf(RADIUS), 1.0, 0.1),)),
    "awp around terms": AWP(Regularized(FAST, (ELLE(Linf(RADIUS), 50.0),)), gamma=0.05),
    "terms around awp": Regularized(AWP(STABLE, gamma=0.05), (GradAlign(Linf(RADIUS), 0.2),)),
    "free with a term": Regularized(FreeTraining(Linf(RADIUS), replays=2), (ELLE(Linf(RADIUS), 50.0),)),
    "smooth beta": BETATraining(BETA(Linf(RADIUS), steps=2, keep="value"), mu=3.0),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_three_lines_in_anyones_loop(name):
    """Any optimiser, low precision or not: the loss falls, the model keeps its flags, nobody else's gradient moves."""
    torch.manual_seed(0)
    objective, model, (x, y) = OBJECTIVES[name], net().float(), batch(32)
    x = x.float()
    optimizer, memory, seen = torch.optim.AdamW(model.parameters(), 0.02), objective.begin(), []
    for step in range(30):
        with torch.autocast("cpu", torch.bfloat16, enabled=step % 2 == 1):
            loss = objective(model, x, y, seed=step, memory=memory)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert sum(seen[-5:]) < sum(seen[:5]) and model.training
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", [*OBJECTIVES, "trades"])
def test_scaled_losses_have_scaled_gradients(name):
    """GradScaler multiplies the loss: nothing inside an objective depends on that."""
    objective, (x, y) = (OBJECTIVES | {"trades": STABLE})[name], batch(16)
    grown = []
    for scaled in (False, True):
        torch.manual_seed(1)
        model = net()
        optimizer, scaler = (
            torch.optim.SGD(model.parameters(), 0.1),
            torch.amp.GradScaler("cpu", 2.0**12, enabled=scaled),
        )
        memory = objective.begin()
        for step in range(3):
            loss = objective(model, x, y, seed=step, memory=memory)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        grown.append([p.detach() for p in model.parameters()])
    same(*grown)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch looks at the input of Free training
@pytest.mark.parametrize("name", [*OBJECTIVES, "trades"])
def test_compiled_models_give_the_same_loss(name):
    objective, (x, y) = (OBJECTIVES | {"trades": STABLE})[name], batch(16)
    model = net()
    compiled = torch.compile(model, backend="eager")
    losses = [objective(m, x, y, seed=1, memory=objective.begin()) for m in (model, compiled)]
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-9)
    same(*(gradients(model, loss) for loss in losses))
