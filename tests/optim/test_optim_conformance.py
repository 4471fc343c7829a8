"""Our optimisers pass the suite that others can run on theirs, and the suite sees what is wrong with others."""

import pytest
import torch
from optim_cases import METHODS, sgd
from torch.optim import AdamW

from danskin import SAM
from danskin.testing.optimizers import OPTIMIZER_CHECKS, check_optimizer

BASES = {"sgd": sgd, "adamw": lambda model: AdamW(model.parameters(), lr=0.01)}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("method", METHODS)
def test_conformance(method, base):
    check_optimizer(lambda model: METHODS[method](BASES[base](model)))


def several(model):
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    first = getattr(torch.optim, "Muon", AdamW)(matrices, lr=0.01)
    return [first, AdamW(rest, lr=0.01)]


@pytest.mark.parametrize("method", METHODS)
def test_conformance_around_muon_and_adamw(method):
    check_optimizer(lambda model: METHODS[method](several(model)))


class Naive(torch.optim.Optimizer):
    """The sixty lines that everyone copies, with the faults that users report."""

    def __init__(self, model, rho=0.5):
        self.base_optimizer = sgd(model)
        super().__init__(model.parameters(), {"lr": 0.1})
        self.base_optimizer.param_groups = self.param_groups
        for group in self.param_groups:
            group.update(momentum=0.9, weight_decay=0, dampening=0, nesterov=False, maximize=False, foreach=None)
            group.update(differentiable=False, fused=None)
        self.rho = rho

    @torch.no_grad()
    def step(self, closure):
        closure = torch.enable_grad()(closure)
        self.zero_grad()
        loss = closure()
        norm = torch.stack([p.grad.norm() for p in self._with_gradient()]).norm()
        for p in self._with_gradient():
            self.state[p]["e"] = p.grad * self.rho / norm
            p.add_(self.state[p]["e"])
        self.zero_grad()
        closure()
        for p in self._with_gradient():
            p.sub_(self.state[p].get("e", torch.zeros_like(p)))
        self.base_optimizer.step()
        return loss

    def _with_gradient(self):
        return [p for group in self.param_groups for p in group["params"] if p.grad is not None]


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("without_learning_rate_weights_stay", "with lr = 0: expected the same tensor bit for bit"),
        ("buffers_see_one_pass_a_step", "running_mean against one pass a step"),
        ("resumed_is_uninterrupted", "of the resumed run against the one that went on"),
        ("groups_are_those_it_steps_with", "written into the groups"),
        ("a_pass_that_is_not_finite_is_left_out", "after NaN in pass 1"),
        ("a_pass_that_breaks_off_leaves_the_weights", "after an exception in pass 2"),
        ("a_missing_gradient_leaves_no_shift", "a parameter without gradient in pass 2, lr = 0"),
        ("no_gradient_no_harm", "expected finite numbers"),
    ],
)
def test_the_suite_sees_the_faults_that_users_report(check, words):
    with pytest.raises(AssertionError, match=f"{check}: .*{words}"):
        check_optimizer(Naive, only=[check])


class Silent(SAM):
    """Keeps the loss to itself."""

    def step(self, closure=None):
        super().step(closure)


def test_the_suite_sees_who_returns_no_loss():
    with pytest.raises(AssertionError, match="return the loss, got None"):
        check_optimizer(lambda model: Silent(sgd(model)), only=["closure_is_all_it_needs"])


def test_checks_can_be_chosen():
    check_optimizer(Naive, skip=[c for c in OPTIMIZER_CHECKS if c != "closure_is_all_it_needs"])
