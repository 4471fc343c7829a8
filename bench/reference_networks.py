"""PGD on networks that others trained, against per-point results of another implementation.

    python bench/reference_networks.py MODELS --data DATA --names mnist_kw_0.1 cifar_resnet2b ...

MODELS holds `loader.py` with `load(name) -> (network, facts)` and `pgd/NAME.npz` with `index`, `label` and
`pgd_margin` (at or below 0: broken) of plain PGD: 40 steps of 2.5 eps / 40, five random starts. Writes
bench/results/reference_networks.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from danskin import PGD, Linf
from danskin.attacks.outcomes import outcomes
from danskin.data import load, to_float

SETS = {"mnist": "mnist", "fashion": "fashion_mnist", "cifar": "cifar10"}


def compare(models: Path, data: Path, name: str, points: int) -> dict[str, object]:
    """Clean errors on the whole test set, and PGD errors on the first `points` with a reference."""
    from loader import load as load_network  # type: ignore[import-not-found]

    network, _ = load_network(name)
    test = load(SETS[name.split("_")[0]], data)
    clean = outcomes(network, test.x_test, test.y_test, prepare=to_float, batch_size=500).correct
    with np.load(models / "pgd" / f"{name}.npz") as reference:
        index = torch.from_numpy(reference["index"][:points].astype(np.int64))
        broken = torch.from_numpy(reference["pgd_margin"][:points] <= 0)
        radius = float(reference["eps"])
    attack = PGD(Linf(radius), steps=40, step=2.5 * radius / 40, restarts=5, stop=True)
    found = outcomes(network, test.x_test[index], test.y_test[index], attack, prepare=to_float)
    return {
        "network": name,
        "radius": radius,
        "clean_errors": int((~clean).sum()),
        "test": len(clean),
        "points": len(index),
        "errors": int((~found.correct).sum()),
        "reference_errors": int(broken.sum()),
        "points_that_differ": int((broken == found.correct).sum()),
    }


def main() -> None:
    """Compare and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--names", nargs="+", required=True)
    parser.add_argument("--points", type=int, default=500)
    options = parser.parse_args()
    sys.path.insert(0, str(options.models))
    rows = []
    for name in options.names:
        rows.append(compare(options.models, options.data, name, options.points))
        print(rows[-1], flush=True)
    out = Path(__file__).parent / "results" / "reference_networks.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
