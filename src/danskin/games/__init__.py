"""Analytic games with known equilibria, and finite games. Rows G1 and G2 of the lecture."""

from danskin.games.finite import MATRICES, MatrixGame
from danskin.games.game import Cycle, Game, newton, weak_minty_on
from danskin.games.mixed import MIXED_GAMES, Domain, MixedGame, mixed
from danskin.games.noisy import ConstrainedBilinear, ScaledBilinear
from danskin.games.particles import MEASURE_SOLVERS, Gap, Measure, Played, WassersteinFisherRao, gap_of
from danskin.games.zoo import (
    AlmostBilinear,
    Bilinear,
    Forsaken,
    GlobalForsaken,
    PolarGame,
    Quartic,
    WeakMinty,
)

#: The games by the name that the command line calls them.
GAMES: dict[str, type[Game]] = {
    "bilinear": Bilinear,
    "almost_bilinear": AlmostBilinear,
    "forsaken": Forsaken,
    "global_forsaken": GlobalForsaken,
    "polar_game": PolarGame,
    "weak_minty": WeakMinty,
    "constrained_bilinear": ConstrainedBilinear,
    "scaled_bilinear": ScaledBilinear,
    "quartic": Quartic,
    "matrix": MatrixGame,
}

__all__ = [
    "GAMES",
    "MATRICES",
    "MEASURE_SOLVERS",
    "MIXED_GAMES",
    "AlmostBilinear",
    "Bilinear",
    "ConstrainedBilinear",
    "Cycle",
    "Domain",
    "Forsaken",
    "Game",
    "Gap",
    "GlobalForsaken",
    "MatrixGame",
    "Measure",
    "MixedGame",
    "Played",
    "PolarGame",
    "Quartic",
    "ScaledBilinear",
    "WassersteinFisherRao",
    "WeakMinty",
    "gap_of",
    "mixed",
    "newton",
    "weak_minty_on",
]
