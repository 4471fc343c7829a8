"""The normal law nearest to a skewed sample: W_1 and W_2 choose different ones, likelihood a third. Lecture: row E7.

Writes nearest_law.json into the folder given, or here.
"""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from danskin.transport import wasserstein_projection


class NormalLaw(nn.Module):
    """Mean + scale * noise."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return self.mean + self.scale * noise


def main(out: Path) -> None:
    """Projections of 400 log-normal points; the noise is the quantiles of the normal law."""
    x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp()
    z = torch.special.ndtri((torch.arange(400, dtype=torch.float64) + 0.5) / 400)[:, None]
    rows = {}
    print("nearest     mean   scale   distance")
    for q in (1, 2):
        family = NormalLaw()
        found = wasserstein_projection(x, family, z, q=q, steps=300, learning_rate=0.1)
        print(f"in W_{q}   {family.mean.item():7.3f} {family.scale.item():7.3f}   {found.bracket.value:.4f}")
        rows[f"W_{q}"] = {"mean": family.mean.item(), "scale": family.scale.item(), "distance": found.bracket.value}
    scale = float((x[:, 0].sort().values * z[:, 0]).sum() / (z * z).sum())
    print(f"W_2, closed form: mean {float(x.mean()):.3f}, scale {scale:.3f}")
    print(f"likelihood: mean {float(x.mean()):.3f}, scale {float(x.std(correction=0)):.3f}")
    (out / "nearest_law.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
