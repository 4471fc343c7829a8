"""What the vanilla GAN's discriminator measures: twice the Jensen-Shannon divergence less log 4. Lecture: row E8.

Writes gan_divergence.json into the folder given, or here.
"""

import json
import math
import sys
from pathlib import Path

import torch
from torch.distributions import Normal
from torch.nn.functional import softplus

from danskin.transport import from_discriminator


def divergence(mean: float) -> float:
    """JSD of N(0, 1) and N(mean, 1) by quadrature."""
    grid = torch.linspace(-12, 12 + mean, 40_001, dtype=torch.float64)
    u, v = Normal(0.0, 1.0).log_prob(grid), Normal(mean, 1.0).log_prob(grid)
    middle = torch.logaddexp(u, v) - math.log(2)
    return float((u.exp() * (u - middle) + v.exp() * (v - middle)).sum() * (grid[1] - grid[0]) / 2)


def main(out: Path) -> None:
    """Train a logistic discriminator on 4,000 points of each law; look at it on 50,000 fresh ones."""
    torch.manual_seed(0)
    rows = []
    print("mean   JSD (quadrature)   by the best discriminator   by a trained one   log 2")
    for mean in (0.5, 1.0, 2.0, 4.0):
        p, q = Normal(0.0, 1.0), Normal(mean, 1.0)
        net = torch.nn.Linear(1, 1)
        adam = torch.optim.Adam(net.parameters(), 0.05)
        x, y = p.sample((4000, 1)), q.sample((4000, 1))
        for _ in range(300):
            adam.zero_grad()
            (softplus(-net(x)).mean() + softplus(net(y)).mean()).backward()
            adam.step()
        x, y = p.sample((50_000, 1)), q.sample((50_000, 1))
        best = from_discriminator(p.log_prob(x) - q.log_prob(x), p.log_prob(y) - q.log_prob(y))
        trained = from_discriminator(net(x), net(y))
        print(
            f"{mean:4.1f}   {divergence(mean):16.4f}   {best.value:16.4f} ± {best.standard_error:.4f}   "
            f"{trained.value:16.4f}   {math.log(2):.4f}"
        )
        rows.append({"mean": mean, "jsd": divergence(mean), "best": best.value, "trained": trained.value})
    (out / "gan_divergence.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
