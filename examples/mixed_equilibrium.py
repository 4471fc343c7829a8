"""A game without a pure equilibrium, Phi = (x - y)^2 on [-1, 1]^2, played by particles with weights and positions.

The minimising player ends in one point, 0; the maximising one mixes -1 and 1 with half each (row G2 of the lecture).
Prints what both rules end with and draws the gap on the way: python examples/mixed_equilibrium.py [FOLDER]
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from danskin.games import WassersteinFisherRao
from danskin.games.mixed import square_distance

figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
for extrapolate in (False, True):
    name = "extrapolated" if extrapolate else "plain"
    rule = WassersteinFisherRao(step_weights=0.5, step_points=0.05, extrapolate=extrapolate)
    played = rule.play(square_distance(), particles=20, steps=1500, look=10)
    print(f"{name}: true gap between {played.gap.found:.1e} and {played.gap.bound:.1e}")
    for player, measure in (("x", played.x.merged(0.05, 1e-3)), ("y", played.y.merged(0.05, 1e-3))):
        parts = zip(measure.points[:, 0].tolist(), measure.weights.tolist(), strict=True)
        print(f"  {player}:", ", ".join(f"{weight:.3f} at {point:+.3f}" for point, weight in sorted(parts)))
    steps, gaps = zip(*played.path, strict=True)
    axes.semilogy(steps, [max(gap, 1e-16) for gap in gaps], label=name)
axes.set(xlabel="steps", ylabel="gap found")
axes.legend(frameon=False)
folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
figure.savefig(folder / "mixed_equilibrium.svg")
