"""danskin: min-max machine learning in PyTorch.

``import danskin`` costs nothing: the public names below are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_NAMES = {
    "danskin.attacks": (
        *("FGSM", "NFGSM", "PGA", "PGD", "RSFGSM", "Attack", "Attacked", "LinearWorstCase", "MajorizeMinimize"),
        *("Boundary", "CarliniWagner", "DDN", "DeepFool", "EAD", "FMN", "HopSkipJump"),
        *("APGD", "BETA", "FAB", "FABT", "AutoAttack", "BasinHopping", "MultiTargeted", "Square", "SquareClimb"),
    ),
    "danskin.data": ("Dataset",),
    "danskin.evaluation": ("Verdict", "certify", "diagnose", "evaluate", "quicker"),
    "danskin.metrics": ("PerClass", "Share"),
    "danskin.minmax": (
        *("Box", "Intersection", "L1", "L2", "Linf", "Set", "Simplex"),
        *("Ascent", "BestOf", "Maximizer", "Maximum", "Restarts", "Vertex"),
        *("Cost", "Problem", "Status", "Streams"),
        *("Subdifferential", "danskin", "directional_derivative", "subdifferential"),
    ),
    "danskin.models": ("Normalize",),
    "danskin.optim": (
        *("AESAM", "ASAM", "ESAM", "GSAM", "MESA", "SAF", "SAM", "SAMPa", "BiSAM", "FriendlySAM", "LookSAM"),
    ),
    "danskin.regularizers": ("CURE", "ELLE", "ELLE_A", "LLR", "GradAlign", "LLRRandom", "Regularizer"),
    "danskin.training": (
        *("AWP", "CFOL", "FOL", "MART", "TRADES", "AdversarialTraining", "BETATraining", "ClassCVaR", "DDi"),
        *("FreeTraining", "LinearRobustTraining", "Regularized", "StandardTraining", "Trainer", "WeightStability"),
    ),
    "danskin.errors": ("DanskinError", "DanskinWarning", "InputError", "ModelError"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "AESAM",
    "APGD",
    "ASAM",
    "AWP",
    "BETA",
    "CFOL",
    "CURE",
    "DDN",
    "EAD",
    "ELLE",
    "ELLE_A",
    "ESAM",
    "FAB",
    "FABT",
    "FGSM",
    "FMN",
    "FOL",
    "GSAM",
    "L1",
    "L2",
    "LLR",
    "MART",
    "MESA",
    "NFGSM",
    "PGA",
    "PGD",
    "RSFGSM",
    "SAF",
    "SAM",
    "TRADES",
    "AdversarialTraining",
    "Ascent",
    "Attack",
    "Attacked",
    "AutoAttack",
    "BETATraining",
    "BasinHopping",
    "BestOf",
    "BiSAM",
    "Boundary",
    "Box",
    "CarliniWagner",
    "ClassCVaR",
    "Cost",
    "DDi",
    "DanskinError",
    "DanskinWarning",
    "Dataset",
    "DeepFool",
    "FreeTraining",
    "FriendlySAM",
    "GradAlign",
    "HopSkipJump",
    "InputError",
    "Intersection",
    "LLRRandom",
    "LinearRobustTraining",
    "LinearWorstCase",
    "Linf",
    "LookSAM",
    "MajorizeMinimize",
    "Maximizer",
    "Maximum",
    "ModelError",
    "MultiTargeted",
    "Normalize",
    "PerClass",
    "Problem",
    "Regularized",
    "Regularizer",
    "Restarts",
    "SAMPa",
    "Set",
    "Share",
    "Simplex",
    "Square",
    "SquareClimb",
    "StandardTraining",
    "Status",
    "Streams",
    "Subdifferential",
    "Trainer",
    "Verdict",
    "Vertex",
    "WeightStability",
    "certify",
    "danskin",
    "diagnose",
    "directional_derivative",
    "evaluate",
    "quicker",
    "subdifferential",
]

if TYPE_CHECKING:
    from danskin.attacks import (
        APGD,
        BETA,
        DDN,
        EAD,
        FAB,
        FABT,
        FGSM,
        FMN,
        NFGSM,
        PGA,
        PGD,
        RSFGSM,
        Attack,
        Attacked,
        AutoAttack,
        BasinHopping,
        Boundary,
        CarliniWagner,
        DeepFool,
        HopSkipJump,
        LinearWorstCase,
        MajorizeMinimize,
        MultiTargeted,
        Square,
        SquareClimb,
    )
    from danskin.data import Dataset
    from danskin.errors import DanskinError, DanskinWarning, InputError, ModelError
    from danskin.evaluation import Verdict, certify, diagnose, evaluate, quicker
    from danskin.metrics import PerClass, Share
    from danskin.minmax import (
        L1,
        L2,
        Ascent,
        BestOf,
        Box,
        Cost,
        Intersection,
        Linf,
        Maximizer,
        Maximum,
        Problem,
        Restarts,
        Set,
        Simplex,
        Status,
        Streams,
        Subdifferential,
        Vertex,
        danskin,
        directional_derivative,
        subdifferential,
    )
    from danskin.models import Normalize
    from danskin.optim import AESAM, ASAM, ESAM, GSAM, MESA, SAF, SAM, BiSAM, FriendlySAM, LookSAM, SAMPa
    from danskin.regularizers import CURE, ELLE, ELLE_A, LLR, GradAlign, LLRRandom, Regularizer
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
        LinearRobustTraining,
        Regularized,
        StandardTraining,
        Trainer,
        WeightStability,
    )


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'danskin' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
