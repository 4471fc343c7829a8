"""Saliency of chest X-rays, clean-trained against adversarially trained (LECTURE row C9).

python docs/collect_saliency.py trains danskin's small CNN on PneumoniaMNIST ($DANSKIN_DATA) as usual and with PGD-7
inside, three seeds each (about three minutes on one CPU core), and writes docs/results/saliency: result.json, the
saliency grid, robust accuracy against radius, and accuracy class by class.
"""

import json
import platform
from pathlib import Path

import torch

from danskin import PGD, AdversarialTraining, Linf, StandardTraining, Trainer
from danskin.attacks.outcomes import outcomes
from danskin.data import load, to_float
from danskin.metrics import Share
from danskin.metrics.average import Average
from danskin.metrics.per_class import PerClass
from danskin.metrics.saliency import alignment, linearized_robustness, saliency, winning_gradient
from danskin.models import build
from danskin.report import verdict_figures as draw
from danskin.report.drawing import colors
from danskin.training import AdamW, OneCycle

RADIUS, SEEDS, EPOCHS = "8/255", (0, 1, 2), 8
INNER = PGD(Linf(RADIUS), steps=7, step="radius/4", keep="last")
JUDGE = PGD(Linf(RADIUS), steps=20, step="radius/4", restarts=2, stop=True)
OBJECTIVES = {"standard": StandardTraining(), "adversarial": AdversarialTraining(INNER)}


def train(data, objective, seed):
    """The weights of the best validation epoch (by robust accuracy for the adversarial objective)."""
    torch.manual_seed(seed)
    model = build("small_cnn", input_shape=(1, 28, 28), classes=2)
    trainer = Trainer(
        epochs=EPOCHS, batch_size=64, optimizer=AdamW(2e-3), schedule=OneCycle(peak=0.3, start=0.1), log_every=1000
    )
    state = trainer.start(model)
    trainer.fit(state, objective, (data.x_train, data.y_train), (data.x_val, data.y_val), monitor=JUDGE, seed=seed)
    model.load_state_dict(state.best["weights"])
    return model.eval()


def row(share):
    """A share as JSON."""
    return {"hits": share.hits, "n": share.n, "value": share.value, "interval": list(share.interval)}


def mean(values):
    """An average as JSON."""
    found = Average.of(values)
    return {"value": found.value, "n": found.n, "interval": list(found.interval), "left_out": found.left_out}


def cosine(x, g, center):
    """|cos| between image and map."""
    z = x - x.mean((1, 2, 3), keepdim=True) if center else x
    return alignment(x, g, center=center) / z.flatten(1).norm(dim=1)


def judge(model, data):
    """Everything that is reported of one model, and per-image numbers."""
    x, y = to_float(data.x_test), data.y_test
    clean = outcomes(model, data.x_test, y, prepare=to_float).correct
    robust = outcomes(model, data.x_test, y, JUDGE, prepare=to_float, among=clean).correct
    g = winning_gradient(model, x, "runner_up")
    numbers = {
        "alignment": alignment(x, winning_gradient(model, x, "none")),
        "alignment_of_the_lead": alignment(x, g),
        "alignment_of_the_lead_centered": alignment(x, g, center=True),
        "cosine_of_the_lead": cosine(x, g, False),
        "cosine_of_the_lead_centered": cosine(x, g, True),
        "linearized_robustness": linearized_robustness(model, x),
    }
    classes = PerClass.of(y, clean, robust, 2)
    told = {"clean": row(Share.of(clean)), "robust": row(Share.of(robust))}
    told |= {
        "per_class": {
            "clean": [row(s) for s in classes.clean],
            "robust": [row(s) for s in classes.robust],
            "worst": classes.worst,
            "gap": classes.gap,
        }
    }
    return told | {name: mean(values) for name, values in numbers.items()}, numbers


def curve(model, data):
    """Robust accuracy against the radius; what a smaller ball broke stays broken."""
    known, points = outcomes(model, data.x_test, data.y_test, prepare=to_float).correct, []
    for k in (0, 1, 2, 4, 8, 12, 16, 24):
        if k:
            attack = PGD(Linf(f"{k}/255"), steps=20, step="radius/4", restarts=2, stop=True)
            known = outcomes(model, data.x_test, data.y_test, attack, prepare=to_float, among=known).correct
        points.append({"radius": k / 255, "accuracy": row(Share.of(known))})
    return points


def main():
    """Train, judge, draw, write."""
    folder = Path(__file__).parent / "results" / "saliency"
    folder.mkdir(parents=True, exist_ok=True)
    data, results, numbers, first = load("pneumonia_mnist"), {}, {}, {}
    for name, objective in OBJECTIVES.items():
        for seed in SEEDS:
            model = train(data, objective, seed)
            results[f"{name}/{seed}"], numbers[name, seed] = judge(model, data)
            first.setdefault(name, model)
            told = results[f"{name}/{seed}"]
            print(name, seed, {k: round(v["value"], 4) for k, v in told.items() if "value" in v}, flush=True)
    # the same images in both models: the mean of the differences, averaged over seeds image by image
    paired = {}
    for key in numbers["standard", 0]:
        both = [torch.stack([numbers[name, s][key] for s in SEEDS]).mean(0) for name in ("adversarial", "standard")]
        paired[key] = mean(both[0] - both[1])
    color = colors(["standard", "adversarial"])
    x, y = to_float(data.x_test), data.y_test
    right = torch.stack([m(x).argmax(1) == y for m in first.values()]).all(0)
    rows = torch.cat([(right & (y == k)).nonzero().flatten()[:3] for k in (0, 1)])  # the first three of each class
    maps = {n: saliency(m, x[rows], torch.ones_like(y[rows])).numpy() for n, m in first.items()}
    marks = {n: numbers[n, SEEDS[0]]["alignment_of_the_lead_centered"][rows].tolist() for n in first}
    names = [data.classes[int(k)] for k in y[rows]]
    curves = {n: curve(m, data) for n, m in first.items()}
    svg = {
        "saliency": draw.saliency_grid(x[rows].numpy(), names, maps, marks, color, "alignment"),
        "curve": draw.verdict_curve(curves, "linf", color, mark=(8 / 255, f"trained with ε = {RADIUS}")),
        "per-class": draw.per_class({n: results[f"{n}/0"]["per_class"] for n in first}, data.classes, color),
    }
    for name, text in svg.items():
        (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    setting = {"data": "pneumonia_mnist", "model": "small_cnn", "epochs": EPOCHS, "seeds": SEEDS, "inner": repr(INNER)}
    result = setting | {"judge": repr(JUDGE), "versions": versions, "models": results, "curves_of_seed_0": curves}
    result["adversarial_minus_standard"] = paired
    (folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    print({k: [round(v["value"], 4), [round(i, 4) for i in v["interval"]]] for k, v in paired.items()})


if __name__ == "__main__":
    main()
