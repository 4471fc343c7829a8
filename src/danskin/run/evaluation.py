"""Judge finished models on the test set: clean, each attack, the worst case, a curve and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from danskin.attacks import FGSM, PGD, Attack, Attacked
from danskin.attacks.bounds import Ball
from danskin.attacks.guard import as_found
from danskin.attacks.outcomes import outcomes
from danskin.data import to_float
from danskin.losses import labelled_loss, predict
from danskin.metrics import Share
from danskin.minmax import L1, L2, number
from danskin.minmax.intersection import order_of
from danskin.minmax.measured import grown, largest_radius, measured, of_one_radius, radius_of
from danskin.run.config import EvaluationConfig
from danskin.run.schema import name_of


def ball_title(ball: Any) -> str:
    """A short name such as 'linf 8/255'; of a set of one's own, how it prints."""
    name = name_of(ball)
    return repr(ball) if name is None else f"{name} {ball.radius}"


def title(attack: Attack) -> str:
    """A short name such as 'PGD-20 linf 8/255'."""
    steps = getattr(attack, "steps", None)
    restarts = getattr(attack, "restarts", 1)
    kind = type(attack).__name__ + (f"-{steps}" if steps else "") + (f"x{restarts}" if restarts > 1 else "")
    loss = "" if attack.loss == "cross_entropy" else f" {attack.loss}"
    return f"{kind}{loss} {ball_title(attack.ball)}"


def default_attacks(attack: Attack) -> tuple[Attack, ...]:
    """FGSM, and PGD with 20 steps of radius/4 and two random starts, on the ball of `attack`."""
    ball, box, loss = attack.ball, attack.box, labelled_loss(attack.loss)
    return (
        FGSM(ball, box=box, loss=loss),
        PGD(ball, steps=20, step="radius/4", restarts=2, stop=True, box=box, loss=loss),
    )


def share(correct: Tensor) -> dict[str, Any]:
    """A share as JSON: hits, n, value, 95 % interval."""
    return Share.of(correct).to_dict()


def evaluate_model(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: tuple[Attack, ...],
    config: EvaluationConfig,
    seed: int,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Accuracy clean, at the points each attack finds, and in the worst case; and the curve.

    The worst case counts an example as right only where it is right without and under every attack: the
    usual robust accuracy.
    """
    progress("clean")
    size = config.batch_size
    clean = outcomes(model, x, y, batch_size=size, prepare=to_float).correct
    worst = clean.clone()
    rows: dict[str, dict[str, Any]] = {}
    for attack in attacks:
        name = title(attack)
        same = sum(key == name or key.startswith(f"{name} #") for key in rows)
        name += f" #{same + 1}" if same else ""
        progress(name)
        found = outcomes(model, x, y, attack, batch_size=size, seed=seed, prepare=to_float)
        worst &= found.correct
        rows[name] = {"attack": repr(attack), "accuracy": share(found.correct), "cost": asdict(found.cost)}
    out: dict[str, Any] = {"clean": share(clean), "attacks": rows, "worst_case": share(worst)}
    if config.curve and attacks:
        out |= _curve(model, x, y, attacks[-1], config, clean, seed, progress)
    return out


def _curve(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Attack,
    config: EvaluationConfig,
    clean: Tensor,
    seed: int,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Robust accuracy against radius; what a smaller ball broke stays broken in a larger one."""
    n = min(config.curve_examples, len(y))
    ball = of_one_radius(attack.ball, torch.arange(n), to_float(x[:n]))
    base, known, points = float(number(radius_of(ball))), clean[:n].clone(), []
    for factor in sorted(config.curve):
        radius = base * factor
        progress(f"curve, radius {radius:.4g}")
        if factor > 0:
            scaled = replace(attack, ball=grown(ball, radius))
            known = outcomes(
                model, x[:n], y[:n], scaled, batch_size=config.batch_size, seed=seed, prepare=to_float, among=known
            ).correct
        points.append({"radius": radius, "accuracy": share(known)})
    return {
        "curve": points,
        "curve_norm": name_of(attack.ball) or type(attack.ball).__name__.lower(),
        "curve_attack": repr(attack),
    }


def attack_examples(
    model: nn.Module, x: Tensor, y: Tensor, attack: Attack, seed: int
) -> tuple[Attacked, dict[str, np.ndarray]]:
    """Attack examples; the outcome, and as arrays x, y, adversarial, both predictions and the loss."""
    images = to_float(x)
    with as_found(model, "eval", images.device):
        attacked = attack(model, images, y, seed=seed)
        with torch.no_grad():
            clean, after = predict(model(images)), predict(model(attacked.x))
    arrays = {"x": images, "y": y, "adversarial": attacked.x, "clean_prediction": clean, "prediction": after}
    arrays |= {"success": attacked.success, "loss": attacked.loss}
    return attacked, {k: v.detach().cpu().numpy() for k, v in arrays.items()}


def default_balls(attack: Attack, d: int) -> tuple[Ball, ...]:
    """Balls of the three norms with about the volume scale of the attack's: radius r, r sqrt(d)/2, r d/10."""
    if order_of(attack.ball) != math.inf:
        return (attack.ball,)
    r = largest_radius(attack.ball)
    return attack.ball, L2(round(r * math.sqrt(d) / 2, 3)), L1(round(r * d / 10, 3))


def picture_grid(
    models: dict[str, nn.Module],
    x: Tensor,
    y: Tensor,
    attack: Attack,
    config: EvaluationConfig,
    seed: int,
) -> dict[str, np.ndarray]:
    """Clean and attacked images with predictions, for each model and norm; empty for vector data.

    The examples are the first that every model gets right without attack (filled up with others).
    """
    if config.pictures < 1 or x.ndim != 4:
        return {}
    right = torch.ones(min(len(y), 500), dtype=torch.bool)
    for model in models.values():
        right &= outcomes(model, x[: len(right)], y[: len(right)], prepare=to_float).correct
    order = torch.argsort(~right, stable=True)[: config.pictures].to(x.device)
    images, labels = to_float(x[order]), y[order]
    arrays = {"x": images.cpu().numpy(), "y": labels.cpu().numpy()}
    balls = config.picture_balls or default_balls(attack, math.prod(x.shape[1:]))
    for label, model in models.items():
        with as_found(model, "eval", images.device):
            with torch.no_grad():
                arrays[f"pred/{label}/clean"] = predict(model(images)).cpu().numpy()
            for ball in balls:
                norm = name_of(ball) or type(ball).__name__.lower()
                pgd = PGD(ball, steps=40, step="radius/5", box=attack.box)
                found = pgd(model, images, labels, seed=seed)
                with torch.no_grad():
                    arrays[f"pred/{label}/{norm}"] = predict(model(found.x)).cpu().numpy()
                arrays[f"adv/{label}/{norm}"] = found.x.cpu().numpy()
                arrays[f"radius/{norm}"] = np.asarray(largest_radius(measured(ball, images[:1])))
    return arrays
