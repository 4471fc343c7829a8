"""Action-robust reinforcement learning: an agent and an adversary in one body, by TD3, a stack of seeds at once.

`environments` (wrappers for gymnasium) and `physics` (changed masses in MuJoCo) need the extra `[rl]` and are imported
by name: ``from danskin.games.rl.environments import TwoPlayers``. All else needs torch only.
"""

from danskin.games.rl.learner import Learner, Schedule
from danskin.games.rl.movers import DescentAscent, ExtraAdam, MixedNELD
from danskin.games.rl.pendulum import PendulumWorld, Physics
from danskin.games.rl.rules import NoisyAction, ProbabilisticAction
from danskin.games.rl.td3 import TD3, Players, ddpg

__all__ = [
    "TD3",
    "DescentAscent",
    "ExtraAdam",
    "Learner",
    "MixedNELD",
    "NoisyAction",
    "PendulumWorld",
    "Physics",
    "Players",
    "ProbabilisticAction",
    "Schedule",
    "ddpg",
]
