"""Optimisers whose adversary is a shift of the weights: min over w, max over v of f(w + v)."""

from danskin.optim.aesam import AESAM
from danskin.optim.bisam import BiSAM
from danskin.optim.esam import ESAM
from danskin.optim.friendly import FriendlySAM
from danskin.optim.games import ExtraAdam, Extragrad, LookaheadMinmax, Optimistic, OptimisticAdam
from danskin.optim.gsam import GSAM
from danskin.optim.info import StepInfo
from danskin.optim.looksam import LookSAM
from danskin.optim.saf import MESA, SAF
from danskin.optim.sam import ASAM, SAM, Plain
from danskin.optim.sampa import SAMPa

#: By the name they go by in recipes.
SHARPNESS_AWARE = {
    "sam": SAM, "asam": ASAM, "gsam": GSAM, "friendlysam": FriendlySAM, "looksam": LookSAM, "aesam": AESAM,
    "esam": ESAM, "saf": SAF, "mesa": MESA, "bisam": BiSAM, "sampa": SAMPa,
}  # fmt: skip

__all__ = [
    "AESAM",
    "ASAM",
    "ESAM",
    "GSAM",
    "MESA",
    "SAF",
    "SAM",
    "SHARPNESS_AWARE",
    "BiSAM",
    "ExtraAdam",
    "Extragrad",
    "FriendlySAM",
    "LookSAM",
    "LookaheadMinmax",
    "Optimistic",
    "OptimisticAdam",
    "Plain",
    "SAMPa",
    "StepInfo",
]
