"""Our own suite for those who need the strongest number: `standard`, and long basin hopping on what it leaves."""

from __future__ import annotations

from danskin.attacks.attack import Attack
from danskin.attacks.autoattack import stages
from danskin.attacks.basin_hopping import BasinHopping
from danskin.attacks.bounds import Ball
from danskin.attacks.checks import DataBox


def deep(ball: Ball, *, box: DataBox = (0, 1)) -> dict[str, Attack]:
    """AutoAttack standard, then up to 300 hops of eight chains each on every example that it leaves.

    What `standard` breaks under a seed, `deep` breaks too: its first attacks are the same. An example that is still far
    from the boundary after 30 hops leaves (`BasinHopping.slack`); one that is near costs up to 14 times what `standard`
    costs. bench/results/deep.md says what it found.
    """
    return {**stages(ball, "standard", box=box), "basin-hopping": BasinHopping(ball, stop=True, box=box)}
