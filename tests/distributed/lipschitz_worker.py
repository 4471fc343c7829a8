"""What each of two processes does for test_lipschitz_distributed.py; rank r writes r.pt into the folder argv[1].

The two processes take half of each batch and must walk the path of one process that takes it whole.
"""

import sys
from pathlib import Path

import torch
from torch import nn

from danskin.lipschitz.layers import (
    AOLLinear,
    LinearSpline,
    LipschitzLayer,
    MaxMin,
    OrthogonalLinear,
    SpectralConv2d,
    SpectralLinear,
    export,
)
from danskin.run.runtime import Runtime


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        SpectralConv2d(1, 4, 3, 1, 1, image_size=4), MaxMin(), nn.Flatten(), SpectralLinear(64, 8),
        LinearSpline(8), OrthogonalLinear(8, 8, method="cayley"), MaxMin(), AOLLinear(8, 3),
    ).double()  # fmt: skip


WRAPS = {"torch": nn.parallel.DistributedDataParallel, "danskin": None}


def work(runtime):
    """Exported weights, power vectors and constants after ten steps, for both ways to wrap a model."""
    out = {}
    for name, wrap in WRAPS.items():
        model = network(runtime.rank if name == "torch" else 0)
        outer = model if runtime.world == 1 else (wrap or runtime.wrap)(model)
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        for k in range(10):
            x = torch.randn(12, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
            x = x[runtime.rank :: runtime.world]
            optimizer.zero_grad()
            (outer(x) - x[:, 0, :3, 0].sign()).square().mean().backward()
            optimizer.step()
        plain = export(model.eval())
        out[name] = {
            "state": dict(model.state_dict()),
            "exported": dict(plain.state_dict()),
            "constants": [layer.lipschitz for layer in model if isinstance(layer, LipschitzLayer)],
        }
        del outer
    return out


if __name__ == "__main__":
    found = Runtime.start("cpu")
    torch.save(work(found), Path(sys.argv[1]) / f"{found.rank}.pt")
    found.close()
