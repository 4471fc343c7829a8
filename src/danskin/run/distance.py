"""`danskin distance A B`: samples from files or data sets, their distance, and the sampling floor. Lecture: row E2."""

from __future__ import annotations

import csv
import math
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danskin.data import DATASETS, load, to_float
from danskin.errors import ConfigError, InputError, MissingError, suggest
from danskin.transport import Empirical, Transport, max_sliced, sliced, wasserstein

_PARTS = ("train", "test")


@dataclass(frozen=True)
class Asked:
    """What to compute.

    Args:
        q: order.
        p: norm of the space: 1, 2 or inf.
        method: of `wasserstein`.
        tolerance: of sinkhorn.
        points: of each sample at most; larger ones are thinned out at random.
        seed: of thinning, of the halves, of directions.
        directions: of sliced distances; 0: none.
    """

    q: float = 1.0
    p: str = "2"
    method: str = "exact"
    tolerance: float = 1e-3
    points: int = 2000
    seed: int = 0
    directions: int = 0


@dataclass(frozen=True)
class Sample:
    """Points from somewhere.

    Args:
        measure: the points that are used, with weights.
        source: as it was asked for.
        size: how many points there were.
    """

    measure: Empirical
    source: str
    size: int


def read_sample(source: str, weights: Path | None, most: int, seed: int) -> Sample:
    """Points of a .npy, .npz or .csv file, or of a data set.

    Args:
        source: FILE.npy (n, ...); FILE.npz with `points` (or `x`, or one array alone) and perhaps `weights`, or a data
            set of its own (x_train, ...); FILE.csv, a point in a line, a header line if you like, where a column
            `weight` holds weights; a name of `danskin list data` or folder:PATH, with :train or :test (the default).
            uint8 images count in [0, 1].
        weights: a .npy or .csv file with one for each point.
        most: more points than that are thinned out: drawn without replacement, or by their weights with replacement.
        seed: of the draw.

    Raises:
        MissingError: nothing there.
        InputError: what is there are no points or weights.
    """
    if most < 2:
        raise ConfigError(f"--points: expected at least 2, got {most}; 2000 is the default")
    points, own = _points_of(source)
    if weights is not None:
        if own is not None:
            raise ConfigError(f"--weights: expected none for {source}, which holds weights of its own; leave it out")
        own = torch.from_numpy(_numbers(weights)).reshape(-1)
    measure = Empirical(points, own, source)
    size, generator = len(measure), torch.Generator().manual_seed(seed)
    if size > most:
        if own is None:
            kept = torch.randperm(size, generator=generator)[:most].sort().values
        else:
            kept = torch.multinomial(measure.masses(), most, replacement=True, generator=generator)
        measure = Empirical(points[kept], None, source)
    return Sample(measure, source, size)


def _points_of(source: str) -> tuple[Tensor, Tensor | None]:
    path = Path(source).expanduser()
    kind = path.suffix.lower()
    if kind in (".npy", ".csv", ".txt", ".tsv") or (kind == ".npz" and ":" not in source):
        if not path.is_file():
            raise MissingError(f"{source}: expected a file, got nothing", "check the path")
        if kind == ".npy":
            return _as_points(_loaded(path), source), None
        if kind == ".npz":
            return _archive(path, source)
        return _table(path, source)
    name, colon, part = source.rpartition(":")
    if not colon or part not in _PARTS:
        name, part = source, "test"
    if name not in DATASETS and ":" not in name and not Path(name).expanduser().is_dir():
        raise ConfigError(
            f"distance: expected a .npy, .npz or .csv file, a folder, or a data set, got {source!r}; "
            f"{suggest(name, DATASETS)}"
        )
    data = load(name)
    if part == "train":
        data.check_trainable()
    return to_float(data.x_train if part == "train" else data.x_test).flatten(1), None


def _loaded(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            return np.load(stream, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: expected an array of numbers, got {error}; save one with numpy.save") from error


def _archive(path: Path, source: str) -> tuple[Tensor, Tensor | None]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: expected a numpy archive, got {error}; save one with numpy.savez") from error
    if "x_test" in arrays or "test_images" in arrays:
        return to_float(load(f"npz:{path}").x_test).flatten(1), None
    weights = arrays.pop("weights", None)
    name = next((name for name in ("points", "x") if name in arrays), None)
    if name is None and len(arrays) == 1:
        name = next(iter(arrays))
    if name is None:
        raise InputError(
            f"{path}: expected an array named points, got {', '.join(arrays) or 'none'}; store numpy.savez(file, "
            "points=...)"
        )
    own = None if weights is None else torch.from_numpy(np.asarray(weights, dtype=np.float64)).reshape(-1)
    return _as_points(arrays[name], source), own


def _as_points(array: Any, source: str) -> Tensor:
    if array.dtype.kind not in "fiub" or array.ndim == 0:
        raise InputError(f"{source}: expected an array of real numbers, got {array.dtype} of shape {array.shape}")
    if array.dtype == np.uint8 and array.ndim > 2:
        array = array.astype(np.float32) / 255
    elif array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        array = array.astype(np.float64)
    array = array.astype(array.dtype.newbyteorder("="))
    points = torch.from_numpy(np.ascontiguousarray(array))
    return points.flatten(1) if points.ndim > 2 else points


def _numbers(path: Path) -> Any:
    if not path.is_file():
        raise MissingError(f"--weights: expected a file, got nothing at {path}", "check the path")
    if path.suffix.lower() == ".npy":
        return np.asarray(_loaded(path), dtype=np.float64)
    return _rows(path)[1].reshape(-1)


def _table(path: Path, source: str) -> tuple[Tensor, Tensor | None]:
    head, rows = _rows(path)
    points = torch.from_numpy(rows)
    at = [i for i, name in enumerate(head) if name.strip().lower() in ("weight", "weights")]
    if not at:
        return points, None
    others = [i for i in range(points.shape[1]) if i != at[0]]
    if not others:
        raise InputError(f"{source}: expected columns beside {head[at[0]]!r}, got none; add the points")
    return points[:, others], points[:, at[0]]


def _rows(path: Path) -> tuple[list[str], Any]:
    """Header, if there is one, and numbers (n, d)."""
    text = path.read_text(encoding="utf-8-sig")
    mark = next((mark for mark in ("\t", ";", ",") if mark in text.partition("\n")[0]), ",")
    lines = [line for line in csv.reader(text.splitlines(), delimiter=mark) if any(cell.strip() for cell in line)]
    head: list[str] = []
    if lines and not any(_is_number(cell) for cell in lines[0]):
        head, lines = lines[0], lines[1:]
    if not lines:
        raise InputError(f"{path}: expected lines of numbers, got none; write a point in a line")
    for k, line in enumerate(lines):
        bad = next((cell for cell in line if not _is_number(cell)), None)
        if bad is not None or len(line) != len(lines[0]):
            got = f"{bad!r}" if bad is not None else f"{len(line)} of them"
            raise InputError(f"{path}, row {k}: expected {len(lines[0])} numbers, got {got}; mend or drop that line")
    return head, np.array([[float(cell) for cell in line] for line in lines])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def measured(first: Sample, second: Sample, asked: Asked) -> dict[str, Any]:
    """The distance with its bracket, the floor, and sliced distances where they are asked for."""
    started = time.perf_counter()
    found = _distance(first.measure, second.measure, asked)
    seconds = time.perf_counter() - started
    result: dict[str, Any] = {
        "q": asked.q,
        "p": asked.p,
        "samples": [
            {"source": s.source, "points": len(s.measure), "of": s.size, "weights": s.measure.weights is not None}
            for s in (first, second)
        ],
        "dimension": first.measure.dimension,
        "seed": asked.seed,
        **_bounds(found),
        "seconds": seconds,
        "floor": _floor(first.measure, asked),
    }
    if asked.directions:
        options: dict[str, Any] = {"directions": asked.directions, "seed": asked.seed}
        mean = sliced(first.measure, second.measure, asked.q, **options)
        most = max_sliced(first.measure, second.measure, asked.q, **options)
        result["sliced"] = {
            "directions": asked.directions, "mean": float(mean.distance),
            "standard_error": _finite(mean.standard_error), "max": most.lower,
        }  # fmt: skip
    return result


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _distance(mu: Empirical, nu: Empirical, asked: Asked) -> Transport:
    return wasserstein(mu, nu, asked.q, p=asked.p, method=asked.method, tolerance=asked.tolerance)


def _bounds(found: Transport) -> dict[str, Any]:
    bracket = found.bracket
    return {
        "lower": bracket.lower, "upper": bracket.upper, "closed": bracket.closed, "method": bracket.method
    }  # fmt: skip


def _floor(mu: Empirical, asked: Asked) -> dict[str, Any] | None:
    """The distance of two random halves of a sample: what sampling alone makes of no difference at all."""
    n = len(mu)
    if n < 4:
        return None
    order = torch.randperm(n, generator=torch.Generator().manual_seed(asked.seed + 1))
    halves = []
    for part in (order[: n // 2], order[n // 2 : 2 * (n // 2)]):
        weights = None if mu.weights is None else mu.masses()[part]
        if weights is not None and not float(weights.sum()):
            return None
        halves.append(Empirical(mu.points[part], None if weights is None else weights / weights.sum()))
    return _bounds(_distance(halves[0], halves[1], asked)) | {"points": n // 2}


def sentence(bounds: dict[str, Any]) -> str:
    """A bracket in words."""
    if bounds["closed"]:
        return f"{bounds['upper']:.6g}"
    return f"between {bounds['lower']:.6g} and {bounds['upper']:.6g}"
