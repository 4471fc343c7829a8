"""Row E5: every integral probability metric on the same pairs of samples, and whether they are in their order.

python docs/collect_ipms.py [OUT]     writes OUT/result.json and OUT/table.md (default: docs/results/E5); half a minute.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from danskin.critics import (
    MMD,
    RBF,
    AdamAscent,
    Dudley,
    EnergyDistance,
    FortetMourier,
    Kantorovich,
    NetworkDistance,
    NeuralDual,
    TotalVariation,
    lipschitz_critic,
    median_distance,
)
from danskin.data import load
from danskin.data.toys import gaussians_8
from danskin.files import make_folder, write_json, write_text

N = 200
COLUMNS = (
    *("2 TV", "Fortet-Mourier", "Dudley", "W1", "neural dual, certified", "network, ReLU", "network, ReLU, no bias"),
    *("energy / 2", "MMD, RBF", "its length"),
)


def pairs() -> dict[str, tuple[Tensor, Tensor]]:
    """The samples."""
    g = torch.Generator().manual_seed(0)
    digits = load("digits")
    x, y = digits.x_train.flatten(1) / 255, digits.y_train
    coins = torch.randint(0, 4, (2, N, 1), generator=g).float()
    return {
        "the same sample": (torch.ones(N, 1).cumsum(0) / N, torch.ones(N, 1).cumsum(0).flip(0) / N),
        "two draws of a die with four faces": (coins[0], coins[1]),
        "N(0, 1) against N(1, 1)": (torch.randn(N, 1, generator=g), torch.randn(N, 1, generator=g) + 1),
        "N(0, I) against N(0, 4 I) in the plane": (torch.randn(N, 2, generator=g), 2 * torch.randn(N, 2, generator=g)),
        "8 Gaussians against N(0, I/4)": (gaussians_8(N)[0], torch.randn(N, 2, generator=g) / 2),
        "digits 0-4 against 5-9": (x[y < 5][:N], x[y >= 5][:N]),
    }


def measured(x: Tensor, y: Tensor) -> dict[str, float]:
    """Every distance of a pair."""
    length = median_distance(x, y)
    critic = lipschitz_critic(x.shape[1], width=32)
    found = (
        2 * TotalVariation().value(x, y),
        FortetMourier().value(x, y),
        Dudley().value(x, y),
        Kantorovich().value(x, y),
        NeuralDual(critic, AdamAscent(400, 5e-3)).lower_bound(x, y),
        NetworkDistance(16).value(x, y),
        NetworkDistance(16, bias=False).value(x, y),
        EnergyDistance().squared(x, y) / 2,
        MMD(RBF(length)).value(x, y),
        length,
    )
    return dict(zip(COLUMNS, map(float, found), strict=True))


def orders(found: dict[str, float]) -> dict[str, bool]:
    """What must hold between the distances of any pair."""
    tv, fortet, dudley, w1, dual, network, blind, energy, mmd, length = (found[name] for name in COLUMNS)
    slack = 1e-7
    return {
        "Dudley <= Fortet-Mourier <= 2 Dudley": dudley <= fortet + slack and fortet <= 2 * dudley + slack,
        "Fortet-Mourier <= W1": fortet <= w1 + slack,
        "Fortet-Mourier <= 2 TV": fortet <= tv + slack,
        "neural dual, certified <= W1": dual <= w1 + slack,
        "network without bias <= W1, with bias <= W1": max(network, blind) <= w1 + slack,
        "energy / 2 <= W1": energy <= w1 + slack,
        "MMD <= W1 / its length": mmd <= w1 / length + slack,
    }


def main(out: Path) -> None:
    """Measure and write."""
    rows, kept = {}, {}
    for name, (x, y) in pairs().items():
        rows[name] = measured(x, y)
        kept[name] = orders(rows[name])
        print(name, rows[name], all(kept[name].values()), file=sys.stderr, flush=True)
    lines = ["| pair | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    lines += [f"| {name} | " + " | ".join(f"{row[c]:.3f}" for c in COLUMNS) + " |" for name, row in rows.items()]
    lines += ["", "| order | holds on |", "|---|---|"]
    for order in next(iter(kept.values())):
        lines.append(f"| {order} | {sum(told[order] for told in kept.values())} of {len(kept)} pairs |")
    make_folder(out)
    write_json(out / "result.json", {"points": N, "values": rows, "orders": kept})
    write_text(out / "table.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "results" / "E5")
