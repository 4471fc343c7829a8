"""Optimisers whose adversary is a shift of the weights: min over w, max over v of f(w + v)."""

from danskin.optim.aesam import AESAM
from danskin.optim.friendly import FriendlySAM
from danskin.optim.gsam import GSAM
from danskin.optim.info import StepInfo
from danskin.optim.looksam import LookSAM
from danskin.optim.sam import ASAM, SAM, Plain

#: By the name they go by in recipes.
SHARPNESS_AWARE = {
    "sam": SAM, "asam": ASAM, "gsam": GSAM, "friendlysam": FriendlySAM, "looksam": LookSAM, "aesam": AESAM,
}  # fmt: skip

__all__ = ["AESAM", "ASAM", "GSAM", "SAM", "SHARPNESS_AWARE", "FriendlySAM", "LookSAM", "Plain", "StepInfo"]
