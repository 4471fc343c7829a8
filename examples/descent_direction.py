"""A descent direction from many maximisers, where one maximiser climbs (LECTURE row C4).

f(x) = max over y in [0, 1] of y (x1^2 + (x2 + 1)^2) + (1 - y) (x1^2 + (x2 - 1)^2) - y (1 - y) = x1^2 + (|x2| + 1)^2 has
its kink at x2 = 0 and its minimum 1 at 0. The inner maximum is sought by gradient ascent from random y, the outer steps
have length 0.1, against the gradient at one y found ("one maximiser", what adversarial training does) or the shortest
vector of the hull of ten ("DDi"). Runs start on the kink, at (1, 0), and off it, at
(1, 0.37), where one y is the only maximiser and DDi loses its edge. "DDi, active" takes the corners of [0, 1] into
account as well, and keeps all y within 0.4 of the maximum, by which the two branches of f differ one step away from the
kink: it is ahead again, until the fixed length of the steps is all that is left.
Writes descent_direction.svg into the folder given (or here).
"""

import sys
from pathlib import Path

import torch

from danskin.minmax import Ascent, Box, Streams, Subdifferential, subdifferential

STEPS, LENGTH, RUNS, K, ACTIVE = 49, 0.1, 20, 10, 0.4
CORNERS = torch.tensor([0.0, 1.0], dtype=torch.float64)
Y, ASCENT = Box(0.0, 1.0), Ascent(10, 1.0, direction="gradient", random_start=True, keep="last")


def phi(x, y):
    """Phi(x, y), convex in x, and convex in y: its maximisers are corners."""
    return y * (x[0] ** 2 + (x[1] + 1) ** 2) + (1 - y) * (x[0] ** 2 + (x[1] - 1) ** 2) - y * (1 - y)


def f(x):
    """max over y of Phi(x, y), in closed form."""
    return x[..., 0] ** 2 + (x[..., 1].abs() + 1) ** 2


def ascents(x, n, seed):
    """(runs, n) where n runs of gradient ascent end for each row of x."""
    start, rows = torch.zeros(len(x) * n, 1, dtype=torch.float64), x.repeat_interleave(n, 0).T
    streams = Streams.of(seed, torch.arange(len(start)))
    return ASCENT(lambda y: phi(rows, y[:, 0]), start, Y, streams).y.view(len(x), n)


def gradients(x, ys):
    """(different y, 2) the gradients of Phi in x."""
    y = ys.unique()
    return torch.stack([2 * x[0].expand_as(y), 2 * x[1] + 2 * (2 * y - 1)], 1)


def one_maximiser(x, ys):
    """The gradient at the first y found."""
    return gradients(x, ys[:1])[0]


def ddi(x, ys):
    """The shortest vector of the hull of the gradients at all y found, whatever they reach."""
    return Subdifferential(gradients(x, ys)).shortest()


def ddi_active(x, ys):
    """The same of those within ACTIVE of the best among them and the corners."""
    ys = torch.cat([ys, CORNERS])
    values = phi(x, ys)
    return ddi(x, ys[values >= values.max() - ACTIVE])


METHODS = {"one maximiser": one_maximiser, "DDi": ddi, "DDi, active": ddi_active}


def runs(method, start):
    """(RUNS, STEPS + 1, 2) iterates of runs with other random y; a step of 0 where the direction is 0."""
    paths = [torch.tensor([start] * RUNS, dtype=torch.float64)]
    for step in range(STEPS):
        here = paths[-1]
        d = torch.stack([method(x, ys) for x, ys in zip(here, ascents(here, K, step), strict=True)])
        length = d.norm(dim=1, keepdim=True)
        paths.append(here - LENGTH * torch.where(length > 1e-9, d / length.clamp_min(1e-9), 0))
    return torch.stack(paths, 1)


def exact(x):
    """The hull of the gradients at both corners where both are maximisers: the step of DDi on the kink."""
    return subdifferential(phi, x, CORNERS, 1e-9)


def summary(start):
    """{method: (values (RUNS, STEPS + 1), path of the first run)}."""
    paths = {name: runs(method, start) for name, method in METHODS.items()}
    return {name: (f(path), path[0]) for name, path in paths.items()}


def increases(values):
    """The mean number of steps that raise f."""
    return float((values.diff(dim=1) > 1e-9).sum(1).double().mean())


def draw(axes, start, found):
    """f against steps, and the first run of each over the level lines."""
    grid = torch.linspace(-1.5, 1.5, 61, dtype=torch.float64)
    levels = f(torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1))
    axes[1].contour(grid, grid, levels, 10, colors="0.8", linewidths=0.7)
    for (name, (values, path)), style in zip(found.items(), ("-", "-", (0, (4, 3))), strict=True):
        axes[0].plot(values.mean(0), label=name, linestyle=style)
        axes[1].plot(*path.T, marker=".", markersize=3, label=name, linewidth=1, linestyle=style)
    axes[0].set(title=f"from {start}: f, mean of {RUNS} runs", xlabel="step", ylabel="f(x)")
    axes[1].set(title="iterates of one run", xlabel="x1", ylabel="x2", xlim=(-0.6, 1.2), ylim=(-0.6, 0.6))
    axes[0].legend()


if __name__ == "__main__":
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kink = torch.tensor([1.0, 0.0], dtype=torch.float64)
    hull: Subdifferential = exact(kink)
    for g in hull.generators:
        print(f"at (1, 0): along minus {g.tolist()}: Df = {float(hull.directional_derivative(-g / g.norm())):+.4f}")
    d = hull.descent_direction()
    print(
        f"along minus the shortest vector {hull.shortest().tolist()}: Df = {float(hull.directional_derivative(d)):+.4f}"
    )
    figure, axes = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    for row, start in zip(axes, ((1.0, 0.0), (1.0, 0.37)), strict=True):
        found = summary(start)
        for name, (values, _) in found.items():
            after = "/".join(f"{values[:, t].mean():.3f}" for t in (1, 10, 20, STEPS))
            print(f"from {start}, {name}: f after 1/10/20/{STEPS} steps {after}, {increases(values):.1f} steps up")
        draw(row, start, found)
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    plt.rcParams["svg.hashsalt"] = "danskin"
    figure.savefig(folder / "descent_direction.svg", metadata={"Date": None})
