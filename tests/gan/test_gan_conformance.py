"""The conformance suite passes on ours and fails on the faults of public code."""

import pytest
import torch

from danskin.gan import (
    R1R2,
    Constraint,
    GradientPenalty,
    Orthogonal,
    Penalty,
    Spectral,
    Spline,
    Unconstrained,
    WeightClip,
)
from danskin.gan.gradients import scores
from danskin.testing import check_constraint

OURS = {
    "none": Unconstrained, "clip": WeightClip, "two": GradientPenalty, "one": lambda: GradientPenalty(sided="one"),
    "l1": lambda: GradientPenalty(norm=1), "linf": lambda: GradientPenalty(norm="inf", where="ball"),
    "lazy": lambda: R1R2(every=2), "spectral": Spectral, "orthogonal": Orthogonal,
    "spline": lambda: Spline(knots=5, variation=0.1),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Wasserstein")
@pytest.mark.parametrize("name", OURS)
def test_ours_conform(name):
    check_constraint(OURS[name])


def slopes(critic, real, fake, generator, place="example"):
    shape = {"example": (len(real), 1), "batch": (1, 1), "pixel": real.shape}[place]
    eps = torch.rand(shape, generator=generator, dtype=real.dtype)
    points = (eps * real + (1 - eps) * fake).detach().requires_grad_()
    (g,) = torch.autograd.grad(scores(critic, points).sum(), points, create_graph=True)
    return g


class Faulty(Constraint):
    def __init__(self, fault):
        self.fault = fault

    def penalty(self, critic, real, fake, step=0, generator=None):
        if self.fault == "global":
            torch.rand(1)
        if self.fault == "backward":
            x = real.clone().requires_grad_()
            scores(critic, x).sum().backward(create_graph=True)
        if self.fault == "attached":
            return Penalty((scores(critic, fake) - scores(critic, real)).square().mean())
        if self.fault == "own generator":
            generator = None
        g = slopes(critic, real, fake, generator)
        norms = g.square().sum(1).sqrt() if self.fault == "root" else torch.linalg.vector_norm(g, dim=1)
        if self.fault == "batch":
            norms = g.norm()[None]
        told = norms if self.fault == "graph" else norms.detach()
        return Penalty((norms - 1).square().mean(), told)


class Shrinks(Constraint):
    @torch.no_grad()
    def project_(self, critic):
        for p in critic.parameters():
            p.mul_(0.5)


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize(("fault", "text"), [
    ("global", "global random state"), ("backward", r"no \.grad"), ("attached", "detach"),
    ("own generator", "global random state|drawn again"), ("root", "slope 0"), ("batch", "depends on the batch"),
    ("graph", "without a graph"),
])  # fmt: skip
def test_the_faults_of_public_code_are_found(fault, text):
    with pytest.raises(AssertionError, match=text):
        check_constraint(lambda: Faulty(fault))


def test_a_projection_that_goes_on_shrinking_is_none():
    with pytest.raises(AssertionError, match="projected twice"):
        check_constraint(Shrinks)


def test_a_right_penalty_of_ones_own_passes():
    check_constraint(lambda: Faulty(None))
