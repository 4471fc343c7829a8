"""Adversarial attacks: y is a shift of the input. ``attack(model, x, y, seed=0) -> Attacked``."""

from danskin.attacks.apgd import APGD, MultiTargeted
from danskin.attacks.attack import Attack, Attacked
from danskin.attacks.beta import BETA, ClassPerturbations
from danskin.attacks.gradient import FGSM, PGA, PGD, MajorizeMinimize
from danskin.attacks.linear import LinearWorstCase, robust_logistic_risk, robust_margin

#: Attacks by the name they have in recipes.
ATTACKS: dict[str, type[Attack]] = {
    "fgsm": FGSM,
    "pga": PGA,
    "pgd": PGD,
    "majorize_minimize": MajorizeMinimize,
    "apgd": APGD,
    "multi_targeted": MultiTargeted,
    "beta": BETA,
    "linear_worst_case": LinearWorstCase,
}

__all__ = [
    "APGD",
    "ATTACKS",
    "BETA",
    "FGSM",
    "PGA",
    "PGD",
    "Attack",
    "Attacked",
    "ClassPerturbations",
    "LinearWorstCase",
    "MajorizeMinimize",
    "MultiTargeted",
    "robust_logistic_risk",
    "robust_margin",
]
