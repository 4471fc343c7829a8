"""Adversarial attacks: y is a shift of the input. ``attack(model, x, y, seed=0) -> Attacked``."""

from danskin.attacks.apgd import APGD, MultiTargeted
from danskin.attacks.attack import Attack
from danskin.attacks.autoattack import AutoAttack
from danskin.attacks.basin_hopping import BasinHopping
from danskin.attacks.beta import BETA, ClassPerturbations
from danskin.attacks.boundary import Boundary
from danskin.attacks.carlini_wagner import CarliniWagner
from danskin.attacks.climb import SquareClimb
from danskin.attacks.ddn import DDN
from danskin.attacks.deepfool import DeepFool
from danskin.attacks.ead import EAD
from danskin.attacks.fab import FAB, FABT
from danskin.attacks.fmn import FMN
from danskin.attacks.gradient import FGSM, PGA, PGD, MajorizeMinimize
from danskin.attacks.hop_skip_jump import HopSkipJump
from danskin.attacks.judging import Attacked
from danskin.attacks.linear import LinearWorstCase, robust_logistic_risk, robust_margin
from danskin.attacks.single_step import NFGSM, RSFGSM
from danskin.attacks.square import Square

#: Attacks by the name they have in recipes.
ATTACKS: dict[str, type[Attack]] = {
    "fgsm": FGSM,
    "pga": PGA,
    "pgd": PGD,
    "rs_fgsm": RSFGSM,
    "n_fgsm": NFGSM,
    "majorize_minimize": MajorizeMinimize,
    "apgd": APGD,
    "multi_targeted": MultiTargeted,
    "beta": BETA,
    "fab": FAB,
    "fab_t": FABT,
    "square": Square,
    "square_climb": SquareClimb,
    "basin_hopping": BasinHopping,
    "autoattack": AutoAttack,
    "carlini_wagner": CarliniWagner,
    "deepfool": DeepFool,
    "ddn": DDN,
    "fmn": FMN,
    "ead": EAD,
    "boundary": Boundary,
    "hop_skip_jump": HopSkipJump,
    "linear_worst_case": LinearWorstCase,
}

__all__ = [
    "APGD",
    "ATTACKS",
    "BETA",
    "DDN",
    "EAD",
    "FAB",
    "FABT",
    "FGSM",
    "FMN",
    "NFGSM",
    "PGA",
    "PGD",
    "RSFGSM",
    "Attack",
    "Attacked",
    "AutoAttack",
    "BasinHopping",
    "Boundary",
    "CarliniWagner",
    "ClassPerturbations",
    "DeepFool",
    "HopSkipJump",
    "LinearWorstCase",
    "MajorizeMinimize",
    "MultiTargeted",
    "Square",
    "SquareClimb",
    "robust_logistic_risk",
    "robust_margin",
]
