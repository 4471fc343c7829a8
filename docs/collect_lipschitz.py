"""Certified accuracy of a 1-Lipschitz run at several l2 radii, beside PGD on the first examples.

danskin train mnist_lipschitz --out RUN
python docs/collect_lipschitz.py RUN docs/results/mnist_lipschitz/certified.json
"""

import json
import sys
from pathlib import Path

import torch

from danskin.attacks import PGD
from danskin.evaluation.certify import certify
from danskin.lipschitz import product_bound
from danskin.lipschitz.layers import export
from danskin.minmax import L2
from danskin.run.source import open_source

RADII = ("36/255", "72/255", "108/255", 0.5, 1.0, 1.58)
ATTACKED = 1000


def main(run: Path, out: Path) -> None:
    """Read the last checkpoint, certify all test examples, attack the first thousand."""
    _, split, models = open_source(run, ["evaluation.weights=last"], torch.device("cpu"))
    model = export(next(iter(models.values())))
    x, y = split.data.x_test, split.data.y_test
    rows = []
    for radius in RADII:
        found = certify(model, (x, y), L2(radius), method="lipschitz", batch_size=1000)
        attacked = PGD(L2(radius), steps=50, restarts=2)(
            model, x[:ATTACKED].float() / (255 if x.dtype == torch.uint8 else 1), y[:ATTACKED], seed=0
        )
        broken = attacked.success & found.correct[:ATTACKED]
        rows.append(
            {
                "radius": str(radius),
                "certified": found.share.value,
                "certified of the first": int(found.certified[:ATTACKED].sum()),
                "standing of the first": int((found.correct[:ATTACKED] & ~broken).sum()),
                "certified and broken": int((found.certified[:ATTACKED] & attacked.success).sum()),
                "seconds to certify": round(found.seconds, 2),
            }
        )
        print(rows[-1], flush=True)
    told = {"constant": product_bound(model, tuple(x.shape[1:])).value, "clean": float(found.correct.double().mean())}
    told |= {"examples": len(y), "attacked": ATTACKED, "attack": "PGD, 50 steps, 2 starts", "rows": rows}
    out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
