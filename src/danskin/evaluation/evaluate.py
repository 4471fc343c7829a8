"""`evaluate`: how robust is the model, really?"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danskin.attacks.asking import Precision
from danskin.attacks.attack import Attack
from danskin.attacks.bounds import Ball, in_bounds
from danskin.attacks.checks import DataBox, check_box, check_inputs, check_logits
from danskin.attacks.guard import as_found, home_of, raw_module
from danskin.attacks.judging import JUDGE_DRAWS
from danskin.attacks.square import Square
from danskin.errors import InputError
from danskin.evaluation.counted import Counted
from danskin.evaluation.dependence import alone_and_together
from danskin.evaluation.diagnostics import examine
from danskin.evaluation.examples import Chunk, Data, chunks
from danskin.evaluation.identity import Identity, identify
from danskin.evaluation.journal import ROBUST, WRONG, Journal, Memory
from danskin.evaluation.masking import Diagnosis, flags_from_results, not_finite
from danskin.evaluation.meter import Listener, Meter, silent
from danskin.evaluation.standing import standing
from danskin.evaluation.suites import Suite, adapted, pieces, suite_of
from danskin.evaluation.verdict import Stage, Verdict
from danskin.inputs import check_model, whole_number
from danskin.losses import check_labels, get_loss, predict
from danskin.minmax import Cost, Status
from danskin.minmax.data_box import box_text
from danskin.minmax.measured import of_one_radius
from danskin.minmax.reading import read_ball

Model = Callable[[Tensor], Tensor]
#: Examples in memory at a time: enough to keep batches full while rows leave.
CHUNK = 1024
#: A look at the model for faults takes one pass for so many of the attacks: its batches are small, so that a tenth of
#: the seconds needs less than a tenth of the passes.
_SHARE = 15


def evaluate(
    model: Model,
    data: Data,
    ball: Ball | str,
    suite: Suite = "standard",
    *,
    seed: int = 0,
    box: DataBox = (0, 1),
    batch_size: int = 256,
    chunk: int | None = None,
    precision: Precision = "model",
    grid: int | None = None,
    quick: Model | None = None,
    device: torch.device | str | None = None,
    journal: Journal | None = None,
    shard: tuple[int, int] = (0, 1),
    diagnostics: int = 32,
    keep_points: bool = False,
    progress: Listener = silent,
) -> Verdict:
    r"""The share of examples that are right at every x + delta, delta in ball and box, that a suite of attacks tries.

    Each attack works on what the ones before it left standing, an example leaves its batch at the first success, and
    others take its place. A success counts when the plain model in full precision errs, on a pass of its own, at a
    point that is in the ball and in the box. The outcome of an example depends on neither batch size, nor order, nor
    the number of processes.

    Args:
        model: inputs in the box to logits; used in eval mode and left as found.
        data: (x, y) tensors or arrays, or batches of them (a DataLoader); uint8 images are mapped to the box
            (`danskin.inputs.in_box`).
        ball: the perturbations, or a text such as "linf:8/255"; a radius may be a tensor with one per example of the
            data.
        suite: "standard", "plus", "rand", "fast", "deep" (`SUITES`), or attacks of your own on this ball and box.
        seed: of all random numbers.
        box: (low, high) of valid data, or None.
        batch_size: rows in the batch at a time; changes nothing but memory and time.
        chunk: examples in memory at a time; changes no result, but a journal must be asked with the same.
        precision: "bfloat16" takes the gradients under autocast.
        grid: 255 asks for adversarial examples that are valid images of 8 bits.
        quick: a quicker form of the model to search with (`quicker`).
        device: where to work; default: where the model's parameters are.
        journal: writes outcomes and points as they are found, and knows them when asked again about the same model:
            the same weights, buffers and outputs (`danskin.evaluation.identity`).
        shard: (rank, world): look only at the examples whose number is rank modulo world; `Verdict.merge` joins.
        diagnostics: examples to look for masked gradients with (`diagnose`), at most, and whether an example's outputs
            depend on the batch that it is in; 0 for none. As many as a tenth of the attacks' own passes allows, those
            that are right first; more only where there is doubt.
        keep_points: return the inputs found by this call, all at once in memory (a journal keeps all on disk).
        progress: called with a small dict at the start and the end of each stage of each chunk ("state", "chunk",
            "stage", "examples", at the end "broken", "seconds"), and between with "work", "stage", "done" and "total".

    Returns:
        The verdict; print it.

    Raises:
        InputError: data, labels, ball, box or suite are not as they must be.

    Reference: Croce and Hein, ICML 2020 (the suites). Lecture: rows C6, C7, C8.
    """
    check_model(model)
    asked: Ball = read_ball(ball)
    check_box(box)
    for value, what, least in ((seed, "seed", None), (batch_size, "batch_size", 1), (diagnostics, "diagnostics", 0)):
        whole_number(value, what, least)
    raw = raw_module(model)
    device = home_of(raw) if device is None else _device(device)
    name, attacks = suite_of(suite, asked, box)
    attacks = {k: adapted(a, width=batch_size, precision=precision) for k, a in attacks.items()}
    if grid is not None:
        attacks = {k: adapted(a, grid=grid) for k, a in attacks.items()}
    size = CHUNK if chunk is None else whole_number(chunk, "chunk", 1)
    kept, opened = journal is not None, False
    journal = journal or Memory()
    meter = Meter(attacks, _count(data, shard), progress)
    judge = _Judge(raw, attacks, batch_size, seed, quick, journal, progress, meter, keep_points)
    parts: list[_Part] = []
    first: Chunk | None = None
    for part in chunks(data, size, device, shard, box=box, digests=kept):
        if len(part.index):
            check_inputs(part.x, box)
        if kept and not opened:  # hashing and probing the model is for a journal that may know it
            opened, identity = True, identify(raw, part.x, box)
            journal.open(_question(identity, name, attacks, asked, box, seed, precision, size))
        if not len(part.index):
            continue
        with as_found(raw, "eval", device):
            with meter.counting(raw if quick is None else quick):
                done = judge(part)
        parts.append(done)
        first = first or replace(part, x=part.x[:diagnostics].clone(), y=part.y[:diagnostics])
    diagnosis = _diagnosis(raw, first, parts[0], asked, box, seed, judge) if first and diagnostics else None
    return _verdict(name, attacks, asked, box, seed, parts, judge, diagnosis)


@dataclass
class _Part:
    """The outcome of one chunk, on the CPU."""

    index: Tensor
    y: Tensor
    broken_by: Tensor
    probability: Tensor
    points: Tensor | None = None


@dataclass
class _Judge:
    """Takes a chunk through the stages."""

    model: Any
    attacks: dict[str, Attack]
    batch_size: int
    seed: int
    quick: Model | None
    journal: Journal
    progress: Listener
    meter: Meter
    keep_points: bool
    left_out: dict[str, str] = field(default_factory=dict)
    bad_gradient: set[str] = field(default_factory=set)

    @property
    def draws(self) -> int:
        """Passes that decide what a model says: several where a stage takes it for random."""
        return max(JUDGE_DRAWS if a.draws > 1 else 1 for a in self.attacks.values())

    def __call__(self, chunk: Chunk) -> _Part:
        """All stages; what the journal knows is not done again."""
        broken_by, passed = (t.clone() for t in self.journal.known(chunk))
        points = chunk.x.clone().cpu() if self.keep_points else None
        part = _Part(chunk.index, chunk.y.cpu(), broken_by, (broken_by >= 0).double(), points)
        self._clean(chunk, part, passed)
        for stage, (name, attack) in enumerate(self.attacks.items(), 1):
            why = attack.objection(chunk.x)
            if why:
                self.left_out[name] = f"left out: {why}"
                continue
            todo = ((part.broken_by == ROBUST) & (passed < stage)).nonzero().squeeze(1)
            if not len(todo):
                continue
            self.progress({"chunk": chunk.number, "stage": name, "examples": len(todo), "state": "begun"})
            self.meter.begin(name, stage, len(chunk.index), len(todo))
            cost = self._stage(chunk, part, stage, attack, todo)
            survived = todo[part.broken_by[todo] == ROBUST]
            self.journal.passed(chunk, chunk.index[survived], stage, cost)
            event = {"chunk": chunk.number, "stage": name, "examples": len(todo), "state": "done"}
            self.progress(event | {"broken": len(todo) - len(survived), "seconds": cost.seconds})
        self.meter.end_chunk(len(chunk.index))
        return part

    def _says(self, x: Tensor, y: Tensor) -> tuple[Tensor, Cost]:
        """(n,) the share of draws in which the model errs, in batches, in full precision."""
        wrong, calls = torch.zeros(len(x), dtype=torch.float64), 0
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            for rows in torch.arange(len(x), device=x.device).split(self.batch_size):
                for _ in range(self.draws):
                    logits = self.model(x[rows])
                    self._check(y[rows], logits)
                    wrong[rows.cpu()] += (predict(logits) != y[rows]).double().cpu() / self.draws
                    calls += 1
        return wrong, Cost(self.draws * len(x), 0, calls)

    def _check(self, y: Tensor, logits: Tensor) -> None:
        """Labels fit the logits, and the attacks' losses the number of outputs."""
        check_logits(logits, len(y))
        check_labels(y, logits, get_loss("zero_one"))
        single = logits.ndim == 1 or logits.shape[1] == 1
        unfit = [
            name for name, a in self.attacks.items() if single and not get_loss(a.loss).binary and a.loss != "margin"
        ]
        if unfit:
            raise InputError(
                f"model: expected at least two logits per example, got {tuple(logits.shape)}, which {unfit[0]} cannot "
                "attack; make the score h two logits with torch.stack([-h / 2, h / 2], 1) and the labels -1/+1 classes "
                "with (y + 1) // 2, or pass attacks of your own with a loss for one output: "
                "[PGD(ball, loss='logistic')]"
            )

    def _clean(self, chunk: Chunk, part: _Part, passed: Tensor) -> None:
        todo = ((part.broken_by == ROBUST) & (passed < 0)).nonzero().squeeze(1)
        if not len(todo):
            return
        if self.draws > 1:
            torch.manual_seed(self.seed)
        rows = todo.to(chunk.x.device)
        share, cost = self._says(chunk.x[rows], chunk.y[rows])
        part.probability[todo] = share
        wrong = todo[2 * share > 1]
        part.broken_by[wrong] = WRONG
        self.journal.broken(chunk.index[wrong], WRONG, None)
        self.journal.passed(chunk, chunk.index[todo[2 * share <= 1]], WRONG, cost)

    def _stage(self, chunk: Chunk, part: _Part, stage: int, attack: Attack, todo: Tensor) -> Cost:
        """One attack on the examples `todo` of the chunk."""
        cost, extra = Cost(), Cost()
        for rows in todo.split(pieces(attack, len(todo), self.batch_size)):
            at = rows.to(chunk.x.device)
            x, y = chunk.x[at], chunk.y[at]
            here = attack.rows(chunk.index[rows])  # with its own radius and step, where there is one per example

            def seen(
                which: Tensor, points: Tensor, rows: Tensor = rows, x: Tensor = x, y: Tensor = y, here: Attack = here
            ) -> None:
                """Believe a success when a pass of its own says so too, and write it down."""
                nonlocal extra
                new = (part.broken_by[rows[which.cpu()]] == ROBUST).to(which.device)
                which, points = which[new], points[new].to(x.dtype)
                which, points = _once(which, points)
                fine = in_bounds(here.rows(which).ball, here.box, points - x[which], points)
                which, points = which[fine], points[fine]
                if len(which):
                    share, spent = self._says(points, y[which])
                    extra += spent
                    self._keep(chunk, part, stage, rows[which.cpu()], points, share)

            found = here(self.model, x, y, seed=self.seed, quick=self.quick, witness=None if attack.draws > 1 else seen)
            cost += found.cost
            if found.status is Status.BAD_GRADIENT:
                self.bad_gradient.add(list(self.attacks)[stage - 1])
            late = found.success.nonzero().squeeze(1)
            if attack.draws > 1:
                share = found.probability.cpu().double()
                self._keep(chunk, part, stage, rows, found.x, share)
            elif len(late):
                seen(late, found.x[late])
        return replace(cost + extra, seconds=cost.seconds)

    def _keep(self, chunk: Chunk, part: _Part, stage: int, rows: Tensor, points: Tensor, share: Tensor) -> None:
        """Record points at which the model errs in this share of draws."""
        worse = share > part.probability[rows]
        part.probability[rows[worse]] = share[worse]
        wrong = 2 * share > 1
        at = rows[wrong]
        part.broken_by[at] = stage
        found = points[wrong.to(points.device)]
        if part.points is not None:
            part.points[at] = found.detach().cpu()
        if len(at):
            self.journal.broken(chunk.index[at], stage, found)


def _device(device: torch.device | str) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device: expected a device such as 'cpu' or 'cuda:1', got {device!r}; correct it") from error


def _count(data: Data, shard: tuple[int, int]) -> int | None:
    """How many examples this process will see; None of an iterable, which says so only at its end."""
    if not (isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], Tensor | np.ndarray)):
        return None
    return len(range(shard[0], len(data[0]), shard[1]))


def _once(which: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Each row once, at the first of its points: a fan of runs may succeed several times in one step."""
    order = which.argsort(stable=True)
    which, points = which[order], points[order]
    first = torch.ones_like(which, dtype=torch.bool)
    first[1:] = which[1:] != which[:-1]
    return which[first], points[first]


def _diagnosis(model: Any, first: Chunk, part: _Part, ball: Ball, box: DataBox, seed: int, judge: _Judge) -> Diagnosis:
    """A look at the model for at most a tenth of what has been spent, while nothing is in doubt."""
    spent = sum(judge.journal.spent().values(), Cost())
    most = of_one_radius(ball, first.index, first.x)
    right, work = part.broken_by[: len(first.x)] != WRONG, (spent.forwards + 2 * spent.backwards) // _SHARE
    asked = Counted(model)
    batch = alone_and_together(model, first.x[: max(2, min(8, work // 10))], asked)
    work -= asked.cost.forwards
    found = examine(model, first.x, first.y, most, box=box, seed=seed, right=right, work=work)
    return replace(found, flags=(*batch, *found.flags), cost=asked.cost + found.cost)


def _question(
    model: Identity,
    suite: str,
    attacks: dict[str, Attack],
    ball: Ball,
    box: DataBox,
    seed: int,
    precision: str,
    size: int,
) -> dict[str, Any]:
    """What a journal must be about, and what it should say of its origin."""
    return {
        "suite": suite,
        "attacks": {name: repr(adapted(attack, width=None)) for name, attack in attacks.items()},
        "ball": repr(ball),
        "box": box_text(box),
        "seed": seed,
        "precision": precision,
        "chunk": size,
        "model": model.hash,
        "computed": model.to_dict(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _verdict(
    suite: str,
    attacks: dict[str, Attack],
    ball: Ball,
    box: DataBox,
    seed: int,
    parts: list[_Part],
    judge: _Judge,
    diagnosis: Diagnosis | None,
) -> Verdict:
    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts]) if parts else torch.empty(0, dtype=torch.int64)

    broken_by, spent = joined("broken_by"), judge.journal.spent()
    stages = []
    for k, (name, attack) in enumerate(attacks.items(), 1):
        seen = 0 if name in judge.left_out else int(((broken_by == ROBUST) | (broken_by >= k)).sum())
        cost = spent.get(k, Cost()) + (spent.get(0, Cost()) if k == 1 else Cost())  # the clean pass is the first's
        broke = int((broken_by == k).sum())
        stages.append(Stage(name, repr(attack), seen, broke, cost, judge.left_out.get(name, "")))
    after = {s.name: (broken_by == ROBUST) | (broken_by > k) for k, s in enumerate(stages, 1) if not s.left_out}
    blind = {name for name, attack in attacks.items() if name in after and isinstance(attack, Square)}
    masked = flags_from_results(after, black_box=blind) if len(broken_by) else ()
    masked += not_finite(judge.bad_gradient)
    flags = (*standing(joined("y"), broken_by != WRONG), *(diagnosis.flags if diagnosis else ()), *masked)
    kept = parts and all(part.points is not None for part in parts)
    points = joined("points") if kept else None
    return Verdict(
        suite, ball, box, seed, tuple(stages), joined("index"), joined("y"), broken_by, joined("probability"),
        flags=flags, points=points, diagnosis=diagnosis,
    )  # fmt: skip
