"""Terms against catastrophic overfitting, one number per example: ``regularizer(model, x, y) -> (batch,)``."""

from danskin.regularizers.cure import CURE
from danskin.regularizers.elle import ELLE, ELLE_A
from danskin.regularizers.gradalign import GradAlign
from danskin.regularizers.llr import LLR, LLRRandom
from danskin.regularizers.on_off import OnOff
from danskin.regularizers.regularizer import Regularizer

#: Regularisers by the name they have in recipes.
REGULARIZERS: dict[str, type[Regularizer]] = {
    "gradalign": GradAlign,
    "elle": ELLE,
    "elle_a": ELLE_A,
    "llr": LLR,
    "llr_random": LLRRandom,
    "cure": CURE,
}

__all__ = ["CURE", "ELLE", "ELLE_A", "LLR", "REGULARIZERS", "GradAlign", "LLRRandom", "OnOff", "Regularizer"]
