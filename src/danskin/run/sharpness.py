"""`danskin sharpness`: how sharp the minima are that runs ended in, side by side. Lecture: row D5."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from danskin.data import to_float
from danskin.errors import ConfigError
from danskin.files import make_folder, write_json, write_text
from danskin.inputs import whole_number
from danskin.losses import LossName, predict
from danskin.metrics import Share, hessian_eigenvalues, hessian_trace, loss_line, loss_plane, m_sharpness
from danskin.metrics.weights import mean_loss
from danskin.minmax.number import number
from danskin.run.config import TrainConfig
from danskin.run.record import environment
from danskin.run.source import open_source

Listener = Callable[[str, str], None]


@dataclass(frozen=True)
class Questions:
    """What is measured, and with how much work.

    Args:
        split: the examples of "train" (what was minimised) or "test".
        examples: the first so many of them; fewer where there are fewer.
        radius: of m-sharpness, a number or a text.
        adaptive_radius: of adaptive m-sharpness.
        m: examples in a group.
        steps: ascent steps of the thorough m-sharpness.
        eigenvalues: how many of the largest.
        draws: random vectors for the trace.
        lines: random directions for the surface.
        span: how far to go along them, in lengths of the weights.
        points: on a line, odd.
        plane: points on a side of the plane, odd; 0: no plane.
        seed: of all that is drawn.
        batch_size: examples in a pass.
    """

    split: Literal["train", "test"] = "train"
    examples: int = 1000
    radius: float | str = 0.05
    adaptive_radius: float | str = 0.5
    m: int = 64
    steps: int = 10
    eigenvalues: int = 3
    draws: int = 50
    lines: int = 5
    span: float | str = 1.0
    points: int = 21
    plane: int = 0
    seed: int = 0
    batch_size: int = 256

    def __post_init__(self) -> None:
        if self.split not in ("train", "test"):
            raise ConfigError(f"--split: expected train or test, got {self.split!r}; pick one")
        for name, least in (("examples", 1), ("m", 1), ("steps", 1), ("eigenvalues", 1), ("draws", 2), ("lines", 1),
                            ("points", 3), ("plane", 0), ("batch_size", 1)):  # fmt: skip
            whole_number(getattr(self, name), f"--{name.replace('_', '-')}", least)
        for name in ("points", "plane"):
            value = getattr(self, name)
            if value and (value % 2 == 0 or value < 3):
                raise ConfigError(f"--{name}: expected an odd number >= 3, got {value}; 21 is usual")
        for name in ("radius", "adaptive_radius", "span"):
            value = number(getattr(self, name))
            if not 0 < value < float("inf"):
                raise ConfigError(f"--{name.replace('_', '-')}: expected a number > 0, got {value}; 0.05 is SAM's")


@dataclass(frozen=True)
class Subject:
    """A trained model, and the examples that it is judged on.

    Args:
        name: unlike all others.
        source: where it came from.
        model: in eval mode.
        x: examples in natural units.
        y: labels.
        loss: its training loss on them.
        data: name and digest of the set.
    """

    name: str
    source: Path
    model: nn.Module
    x: Tensor
    y: Tensor
    loss: LossName
    data: tuple[str, str]


def subjects(sources: Sequence[Path], asked: Questions, device: torch.device) -> list[Subject]:
    """All models of all runs.

    Raises:
        MissingError: no run or weights there.
        ConfigError: fewer examples than fill a group.
    """
    found: list[tuple[str, TrainConfig, Subject]] = []
    for source in sources:
        config, split, models = open_source(source, [], device)
        x, y = (t[: asked.examples] for t in (split.train if asked.split == "train" else split.test))
        if len(x) < asked.m:
            raise ConfigError(f"--m: expected at most the {len(x)} examples there are, got {asked.m}; take fewer")
        loss: LossName = "logistic" if config.data.labels == "signs" else "cross_entropy"
        data = (split.data.name, split.data.sha256_test)
        for label, model in models.items():
            found.append((label, config, Subject(label, source, model, to_float(x), y, loss, data)))
    names = _names([(label, config.name, str(subject.source)) for label, config, subject in found])
    return [Subject(**(vars(s) | {"name": name})) for name, (_, _, s) in zip(names, found, strict=True)]


def _names(parts: Sequence[tuple[str, str, str]]) -> list[str]:
    """The shortest of label, recipe with label, and path with label that tells all models apart."""
    ways = [[label for label, _, _ in parts], [f"{recipe} {label}" for label, recipe, _ in parts]]
    last = [f"{source} {label}" for label, _, source in parts]
    if len(set(last)) < len(last):
        last = [f"{name} {i}" for i, name in enumerate(last, 1)]
    return next((names for names in ways if len(set(names)) == len(names)), last)


def measured(
    found: Sequence[Subject], asked: Questions, folder: Path, listen: Listener = lambda name, what: None
) -> dict[str, Any]:
    """Measure every model and write sharpness.json, sharpness.md and figures/ into the folder.

    Args:
        found: the models.
        asked: what is measured.
        folder: made if need be.
        listen: told which number of which model is next.

    Returns:
        What sharpness.json holds.
    """
    from danskin.report.sharpness import figures, markdown

    make_folder(folder, "choose another with --out")
    result = {
        "settings": asdict(asked),
        "models": {subject.name: _numbers(subject, asked, listen) for subject in found},
        "notes": _notes(found),
        "environment": {k: environment()[k] for k in ("danskin", "python", "processor", "cuda", "threads", "packages")},
    }
    write_json(folder / "sharpness.json", result)
    write_text(folder / "sharpness.md", markdown(result))
    for figure in figures(result):
        write_text(folder / "figures" / f"{figure.name}.svg", figure.svg)
    return result


def _numbers(subject: Subject, asked: Questions, listen: Listener) -> dict[str, Any]:
    """Everything about one model."""
    started = time.perf_counter()
    model, x, y = subject.model, subject.x, subject.y
    options: dict[str, Any] = {"loss": subject.loss, "batch_size": asked.batch_size, "seed": asked.seed}
    listen(subject.name, "loss")
    with mean_loss(model, x, y, subject.loss, asked.batch_size) as f:
        value, slope = f.gradient()
        out: dict[str, Any] = {
            "source": str(subject.source), "data": list(subject.data), "examples": len(subject.x),
            "loss_name": subject.loss, "loss": value, "gradient_norm": float(slope.norm()),
            "weights": f.d, "weight_norm": float(f.here.norm()), "correct": _accuracy(subject, asked).to_dict(),
        }  # fmt: skip
    listen(subject.name, "eigenvalues")
    k = min(asked.eigenvalues, out["weights"])
    top = hessian_eigenvalues(model, x, y, k, **options)
    low = hessian_eigenvalues(model, x, y, 1, which="smallest", **options)
    out["eigenvalues"] = {
        "values": top.values.tolist(), "residuals": top.residuals.tolist(), "converged": top.converged,
        "smallest": low.values[0].item(), "smallest_residual": low.residuals[0].item(),
        "products": top.products + low.products,
    }  # fmt: skip
    listen(subject.name, "trace")
    trace = hessian_trace(model, x, y, asked.draws, **options)
    out["trace"] = {"value": trace.value, "standard_error": trace.std / trace.n**0.5, "draws": trace.n}
    for name, steps, radius, adaptive in (
        ("m_sharpness", 1, asked.radius, False),
        ("m_sharpness_ascent", asked.steps, asked.radius, False),
        ("adaptive_m_sharpness", 1, asked.adaptive_radius, True),
    ):
        listen(subject.name, name.replace("_", "-"))
        rise = m_sharpness(model, x, y, radius, asked.m, steps=steps, adaptive=adaptive, **options)
        average = rise.average
        out[name] = {
            "at_least": average.value, "standard_error": average.std / average.n**0.5, "groups": average.n,
            "m": asked.m, "radius": rise.radius, "steps": steps, "left_out": rise.left_out,
        }  # fmt: skip
    listen(subject.name, "surface")
    line = loss_line(model, x, y, span=number(asked.span), points=asked.points, draws=asked.lines, **options)
    out["line"] = {"at": line.at.tolist(), "loss": _plain(line.loss)}
    if asked.plane:
        plane = loss_plane(model, x, y, span=number(asked.span), points=asked.plane, **options)
        out["plane"] = {"at": plane.at.tolist(), "loss": _plain(plane.loss)}
    return out | {"seconds": time.perf_counter() - started}


def _accuracy(subject: Subject, asked: Questions) -> Share:
    with torch.no_grad():
        said = torch.cat([predict(subject.model(x)) for x in subject.x.split(asked.batch_size)])
    return Share.of(said == subject.y)


def _plain(values: Tensor) -> list[list[float | None]]:
    """Numbers for JSON: None where the network overflowed."""
    return [[v if torch.tensor(v).isfinite() else None for v in row] for row in values.tolist()]


def _notes(found: Sequence[Subject]) -> list[str]:
    """What keeps the models from being compared."""
    notes = []
    if len({(s.data, len(s.x), s.loss) for s in found}) > 1 or any(
        not torch.equal(s.x, found[0].x) or not torch.equal(s.y, found[0].y)
        for s in found
        if len(s.x) == len(found[0].x)
    ):
        notes.append("the models were judged on different examples or losses; their numbers do not compare")
    shapes = [tuple(tuple(p.shape) for p in s.model.parameters()) for s in found]
    if len(set(shapes)) > 1:
        notes.append("the models have weights of different shapes; sharpness does not compare across architectures")
    return notes
