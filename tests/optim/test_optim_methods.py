"""Each method against its formula written out, and against what it must equal."""

import copy
import math

import pytest
import torch

from danskin import AESAM, ASAM, GSAM, L2, SAM, FriendlySAM, InputError, LookSAM, Problem, Vertex, danskin
from danskin.optim import Plain

A = torch.linspace(0.5, 3, 6, dtype=torch.float64).diag() + 0.1
START = torch.linspace(-1, 1, 6, dtype=torch.float64)
RATE = 0.05


def value(w):
    return 0.5 * w @ A @ w + (w.sin() ** 2).sum()


def slope(w):
    w = w.detach().requires_grad_()
    return torch.autograd.grad(value(w), w)[0]


def walked(make, steps=8, momentum=0.0):
    """The path of an optimiser."""
    w = torch.nn.Parameter(START.clone())
    opt, path = make(torch.optim.SGD([w], lr=RATE, momentum=momentum)), []

    def closure():
        loss = value(w)
        loss.backward()
        return loss

    for _ in range(steps):
        opt.step(closure)
        path.append(w.detach().clone())
    return torch.stack(path), opt


def followed(rule, steps=8):
    """The path of w - lr rule(w, g, k), written out."""
    w, path = START.clone(), []
    for k in range(steps):
        w = w - RATE * rule(w, slope(w), k)
        path.append(w)
    return torch.stack(path)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_sam_written_out():
    close(walked(lambda b: SAM(b, 0.1))[0], followed(lambda w, g, k: slope(w + 0.1 * g / g.norm())))


def test_sam_through_the_spine_is_the_optimiser():
    """min over w, max over v in an l2 ball of f(w + v): Danskin's gradient at one linear maximiser."""
    w, path = START.clone().requires_grad_(), []
    for _ in range(8):
        problem = Problem(
            lambda batch, v, w=w: torch.stack([value(w + row) for row in v]),
            lambda batch: L2(0.1),
            lambda batch: torch.zeros(1, 6, dtype=torch.float64),
        )
        loss, found = danskin(problem, None, Vertex())
        w = (w - RATE * torch.autograd.grad(loss, w)[0]).detach().requires_grad_()
        path.append(w.detach())
        assert found.y.norm().item() == pytest.approx(0.1)
    close(walked(lambda b: SAM(b, 0.1))[0], torch.stack(path))


def test_asam_written_out():
    def rule(w, g, k):
        t = w.abs() + 0.01
        return slope(w + 0.5 * t**2 * g / (t * g).norm())

    close(walked(lambda b: ASAM(b, 0.5))[0], followed(rule))


def test_gsam_written_out():
    def rule(w, g, k):
        p = slope(w + 0.1 * g / g.norm())
        return p - 0.4 * (g - (g @ p) / (p @ p) * p)

    close(walked(lambda b: GSAM(b, 0.1))[0], followed(rule))


def test_the_radius_of_gsam_follows_the_learning_rate():
    opt = GSAM(torch.optim.SGD([torch.nn.Parameter(START)], lr=0.2), 0.1, rho_min=0.02)
    assert opt.radius() == pytest.approx(0.1)
    opt.base.param_groups[0]["lr"] = 0.05
    assert opt.radius() == pytest.approx(0.02 + 0.08 * 0.25)


def test_friendly_sam_written_out():
    mean = None

    def rule(w, g, k):
        nonlocal mean
        d = g if mean is None else g - 0.7 * mean
        mean = g if mean is None else 0.8 * mean + 0.2 * g
        return slope(w + 0.1 * d / d.norm())

    close(walked(lambda b: FriendlySAM(b, 0.1, 0.7, 0.8))[0], followed(rule))


def test_looksam_written_out():
    kept = None

    def rule(w, g, k):
        nonlocal kept
        if k % 3:
            return g + 0.7 * g.norm() / kept.norm() * kept
        p = slope(w + 0.1 * g / g.norm())
        kept = p - (p @ g) / (g @ g) * g
        return p

    path, _ = walked(lambda b: LookSAM(b, 0.1, k=3))
    close(path, followed(rule))


def test_looksam_does_not_step_along_rounding():
    """In a tensor of one entry p has nothing that g has not: what is left of it is noise, of either sign."""
    w = torch.nn.Parameter(torch.tensor([0.7], dtype=torch.float64))
    opt = LookSAM(torch.optim.SGD([w], lr=0.1), 0.1, k=2, per_tensor=True)

    def closure():
        loss = (w**4).sum() / 3
        loss.backward()
        return loss

    for _ in range(10):
        opt.step(closure)
        before = w.detach().clone()
        opt.step(closure)
        assert float(w.detach()) == pytest.approx(float(before - 0.1 * 4 * before**3 / 3), rel=1e-12)


def test_aesam_written_out():
    m = s = 0.0
    taken = []

    def rule(w, g, k):
        nonlocal m, s
        square = float(g @ g)
        m = 0.9 * m + 0.1 * square
        s = 0.9 * s + 0.1 * (square - m) ** 2
        second = square >= m + (1 - 2 * k / 40) * math.sqrt(s)
        taken.append(second)
        return slope(w + 0.1 * g / g.norm()) if second else g

    path, _ = walked(lambda b: AESAM(b, 0.1, steps=40), 40)
    close(path, followed(rule, 40))
    assert 0 < sum(taken) < 40


def test_limits_of_the_methods_are_sam():
    sam = walked(lambda b: SAM(b, 0.1), momentum=0.9)[0]
    for make in (
        lambda b: GSAM(b, 0.1, 0.0),
        lambda b: FriendlySAM(b, 0.1, sigma=0.0),
        lambda b: LookSAM(b, 0.1, k=1),
        lambda b: AESAM(b, 0.1, steps=5, low=-1e9, high=-1e9),
    ):
        close(walked(make, momentum=0.9)[0], sam)


def test_plain_is_the_base():
    bare = torch.nn.Parameter(START.clone())
    opt = torch.optim.SGD([bare], lr=RATE, momentum=0.9)
    for _ in range(8):
        opt.zero_grad()
        value(bare).backward()
        opt.step()
    assert torch.equal(walked(Plain, momentum=0.9)[0][-1], bare.detach())


def test_unnormalised_sam_against_the_gradient_is_extragradient():
    """With the shift - lr grad f(w), rho = - lr |g|, the step is that of extragradient."""

    def rule(w, g, k):
        return slope(w - RATE * g)

    w = torch.nn.Parameter(START.clone())
    opt, path = SAM(torch.optim.SGD([w], lr=RATE), 0.1), []

    class Backwards:
        def lmo(self, g, at):
            return [-RATE * t for t in g]

    opt.ball = Backwards()

    def closure():
        loss = value(w)
        loss.backward()
        return loss

    for _ in range(8):
        opt.step(closure)
        path.append(w.detach().clone())
    close(torch.stack(path), followed(rule))


def test_a_tail_of_sam_is_plain_before_and_sam_after():
    path, opt = walked(lambda b: SAM(b, 0.1, start=5), 8)
    close(path, followed(lambda w, g, k: g if k < 5 else slope(w + 0.1 * g / g.norm())))
    assert opt.last.gradients == 2 and opt.steps == 8


def test_counts_of_gradients_and_depth():
    def counts(make):
        w, taken = torch.nn.Parameter(START.clone()), []
        opt, calls = make(torch.optim.SGD([w], lr=RATE)), 0

        def closure():
            nonlocal calls
            calls += 1
            loss = value(w)
            loss.backward()
            return loss

        for _ in range(6):
            opt.step(closure)
            taken.append(opt.last.gradients)
            assert opt.last.depth == opt.last.gradients
        assert sum(taken) == calls
        return taken

    assert counts(Plain) == [1] * 6 and counts(SAM) == [2] * 6
    assert counts(lambda b: LookSAM(b, 0.1, k=3)) == [2, 1, 1, 2, 1, 1]


def test_the_second_gradient_is_clipped_and_the_first_is_not():
    path, _ = walked(lambda b: SAM(b, 0.1, clip=0.3))

    def rule(w, g, k):
        p = slope(w + 0.1 * g / g.norm())
        return p * min(1.0, 0.3 / (float(p.norm()) + 1e-6))

    torch.testing.assert_close(path, followed(rule), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b: SAM(b, 0), "rho: expected a radius above 0, got 0"),
        (lambda b: SAM(b, -0.1), "rho: expected a radius above 0, got -0.1"),
        (lambda b: ASAM(b, 1, -1), "eta: expected a number >= 0, got -1"),
        (lambda b: GSAM(b, 0.1, -1), "GSAM.alpha: expected a number >= 0"),
        (lambda b: GSAM(b, 0.1, rho_min=0.01, lr_max=0), "GSAM.lr_max: expected more than lr_min"),
        (lambda b: FriendlySAM(b, sigma=-1), "FriendlySAM.sigma"),
        (lambda b: FriendlySAM(b, decay=1), "FriendlySAM.decay"),
        (lambda b: LookSAM(b, k=0), "LookSAM.k: expected a whole number >= 1, got 0"),
        (lambda b: LookSAM(b, alpha=-1), "LookSAM.alpha"),
        (lambda b: AESAM(b, steps=0), "AESAM.steps"),
        (lambda b: AESAM(b, steps=3, delta=1), "AESAM.delta"),
        (lambda b: SAM(b, buffers="all"), "SAM.buffers: expected 'first' or 'both', got 'all'"),
        (lambda b: SAM(b, perturbation="mine"), "SAM.perturbation"),
        (lambda b: SAM(b, clip=0), "SAM.clip"),
        (lambda b: SAM(b, start=-1), "SAM.start"),
        (lambda b: SAM("sgd"), "SAM: expected a torch optimiser, or several, got str"),
        (lambda b: SAM([]), "SAM: expected at least one optimiser"),
        (lambda b: SAM([b, b]), "SAM: expected each parameter in one optimiser, got one in two"),
        (lambda b: SAM(SAM(b)), "got SAM, which runs closures by itself"),
        (lambda b: SAM(torch.optim.LBFGS([torch.nn.Parameter(START)])), "got LBFGS"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(InputError, match=message):
        make(torch.optim.SGD([torch.nn.Parameter(START.clone())], lr=RATE))


def test_a_copy_goes_on_alike():
    _, opt = walked(lambda b: SAM(b, 0.1), momentum=0.9)
    twin = copy.deepcopy(opt)
    (a,), (b,) = opt.param_groups[0]["params"], twin.param_groups[0]["params"]
    for w, o in ((a, opt), (b, twin)):

        def closure(w=w):
            loss = value(w)
            loss.backward()
            return loss

        o.step(closure)
    assert a is not b and torch.equal(a, b)
