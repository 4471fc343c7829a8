"""What each of two processes does for test_objectives_distributed.py; rank r writes r.pt into the folder argv[1].

`TABLE` has a row for each objective: add yours. The two processes take half of each batch, and must end with the
gradients and the memory of one process that takes it whole. Examples are told apart by their content.
"""

import sys
from pathlib import Path

import torch
from torch import nn

from danskin.attacks import BETA, FGSM, NFGSM, PGD
from danskin.minmax import Linf
from danskin.regularizers import CURE, ELLE, ELLE_A, LLR, GradAlign
from danskin.run.runtime import Runtime
from danskin.training import (
    AWP,
    CFOL,
    FOL,
    MART,
    TRADES,
    AdversarialTraining,
    BETATraining,
    ClassCVaR,
    DDi,
    FreeTraining,
    Regularized,
    StandardTraining,
    WeightStability,
)

BALL = Linf(0.1)
ATTACK = PGD(BALL, 3, keep="last")
INNER = AdversarialTraining(ATTACK)
MANY = PGD(Linf(0.3), 1, 0.02, keep="last")  # ends where it starts: several gradients count
TABLE = {
    "standard": StandardTraining(),
    "fgsm": AdversarialTraining(FGSM(BALL)),
    "pgd": INNER,
    "nfgsm": AdversarialTraining(NFGSM(BALL)),
    "trades": TRADES(PGD(BALL, 3, start_noise=0.001, keep="last")),
    "mart": MART(ATTACK),
    "beta": BETATraining(BETA(BALL, 2)),
    "beta smooth": BETATraining(BETA(BALL, 2), 1.0),
    "awp": AWP(INNER, 0.1),
    "free": FreeTraining(BALL, 2),
    "ddi": DDi(MANY, 3),
    "ddi layerwise": DDi(MANY, 3, gram="layerwise"),
    "ddi normalized": DDi(MANY, 3, True, active=0.01),
    "ddi layerwise normalized": DDi(MANY, 3, True, active=0.01, gram="layerwise"),
    "awp of ddi": AWP(DDi(MANY, 3), 0.1),
    "awp of ddi layerwise": AWP(DDi(MANY, 3, gram="layerwise"), 0.1),
    "cfol": CFOL(INNER, 3, eta=0.05),
    "cfol reweight": CFOL(INNER, 3, eta=0.05, form="reweight"),
    "class cvar": ClassCVaR(INNER, 3, 0.4),
    "fol": FOL(INNER, 24, eta=0.01),
    "awp of cvar": AWP(ClassCVaR(INNER, 3, 0.4), 0.1),
    "stability": WeightStability(0.2, objective=INNER, chunk=5),
    "shared stability": WeightStability(0.2, objective=INNER, per_sample=False),
    "gradalign": Regularized(AdversarialTraining(FGSM(BALL)), (GradAlign(BALL, 0.5),)),
    "elle": Regularized(INNER, (ELLE(BALL, 5e4),)),
    "elle_a": Regularized(AdversarialTraining(PGD(BALL, 2, keep="last")), (ELLE_A(BALL, 50.0),)),  # off for 3 steps
    "llr": Regularized(StandardTraining(), (LLR(BALL, 1.0, steps=2),)),
    "cure": Regularized(StandardTraining(), (CURE(BALL, 1.0),)),
    "awp of terms": AWP(Regularized(INNER, (ELLE(BALL, 5e4),)), 0.1),
    "terms of cfol": Regularized(CFOL(INNER, 3, eta=0.05), (GradAlign(BALL, 0.5),)),
    "shared stability of cfol": WeightStability(0.2, objective=CFOL(INNER, 3, eta=0.05), per_sample=False),
}
STEPS = 3


def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(24, 5, dtype=torch.float64, generator=generator)
    return x, (3 * x[:, 0]).long().roll(1)  # unequal classes in unequal parts


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def work(runtime):
    """Gradients of each of a few steps, and what the objective keeps."""
    part, (x, y) = slice(runtime.rank, None, runtime.world), data()
    found = {}
    for name, objective in TABLE.items():
        raw = network()
        model, memory = runtime.wrap(raw), objective.begin()
        optimizer, gradients = torch.optim.SGD(raw.parameters(), 0.3), []
        for step in range(STEPS):
            rows = objective.draw(memory, y, 24, step)
            rows = (torch.arange(24) if rows is None else rows)[part]
            optimizer.zero_grad()
            objective(model, x[rows], y[rows], seed=step, memory=memory or None, index=rows).backward()
            gradients += [p.grad.clone() for p in raw.parameters()]
            optimizer.step()
        found[name] = {"gradients": gradients, "memory": {k: v.detach() for k, v in memory.items()}}
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    runtime = Runtime.start("cpu")
    torch.save(work(runtime), Path(sys.argv[1]) / f"{runtime.rank}.pt")
    runtime.close()
