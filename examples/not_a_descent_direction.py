"""Minus the gradient at one maximiser need not be a descent direction (LECTURE rows C2 and C3).

Two problems with two maximisers each, in closed form. For each: the directional derivative of
f(x) = max over y of Phi(x, y) along minus each gradient, along minus the shortest vector of their hull,
and a picture of f along these lines. Writes not_a_descent_direction.svg into the folder given (or here).
"""

import sys
from pathlib import Path

import torch

from danskin.minmax import subdifferential

torch.set_default_dtype(torch.float64)
u, v = torch.tensor([1.0, 0.0]), -torch.tensor([1.0, 1.0]) / 2**0.5


def absolute(x, y):
    """Phi(x, y) = x y on [-1, 1]: f(x) = |x|."""
    return (x * y).sum()


def two_planes(x, y):
    """Phi(x, y) = y <x, u> + (1 - y) <x, v> - y (1 - y) on [0, 1]; convex in y, so y* is 0 or 1."""
    return y * (x @ u) + (1 - y) * (x @ v) - y * (1 - y)


def explore(name, phi, x, ys):
    """Print the directional derivatives and return the lines to draw."""
    hull = subdifferential(phi, x, ys)
    print(f"{name}: gradients at the maximisers {hull.generators.tolist()}")
    lines = []
    for g in hull.generators:
        d = -g / g.norm()
        slope = float(hull.directional_derivative(d))
        print(f"  along minus the gradient {(-g).tolist()}: Df = {slope:+.4f} ({'up' if slope > 0 else 'down'})")
        lines.append((f"minus one gradient, slope {slope:+.3f}", d))
    d = hull.descent_direction()
    if bool(d.any()):
        print(f"  along minus the shortest vector of the hull: Df = {float(hull.directional_derivative(d)):+.4f}")
        lines.append((f"minus the shortest vector, slope {float(hull.directional_derivative(d)):+.3f}", d))
    else:
        print("  0 is in the hull: x is stationary, and there is no descent direction")
    return lines


def draw(axis, title, phi, x, ys, lines):
    """f along each line."""
    steps = torch.linspace(0, 1, 50)
    for (label, d), style in zip(lines, ("-", (0, (4, 4)), "-"), strict=False):
        axis.plot(steps, [max(float(phi(x + t * d, y)) for y in ys) for t in steps], label=label, linestyle=style)
    axis.set(title=title, xlabel="step length", ylabel="f(x + t d)")
    axis.legend()


if __name__ == "__main__":
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    ends = torch.tensor([-1.0, 1.0]), torch.tensor([0.0, 1.0])
    draw(
        axes[0], "f(x) = |x| at 0", absolute, torch.zeros(1), ends[0], explore("|x|", absolute, torch.zeros(1), ends[0])
    )
    lines = explore("two planes", two_planes, torch.zeros(2), ends[1])
    draw(axes[1], "two maximisers in the plane, at 0", two_planes, torch.zeros(2), ends[1], lines)
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    plt.rcParams["svg.hashsalt"] = "danskin"
    figure.savefig(folder / "not_a_descent_direction.svg", metadata={"Date": None})
