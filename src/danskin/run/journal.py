"""The journal of an evaluation on disk: a kill loses nothing that was found."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danskin.errors import CheckpointError, ConfigError, DanskinWarning, MissingError
from danskin.evaluation.examples import Chunk
from danskin.evaluation.identity import Identity
from danskin.evaluation.journal import ROBUST
from danskin.files import make_folder, open_to_append, read_json, read_lines, write_json
from danskin.minmax import Cost

_BROKE = {"broken", "by", "shape", "dtype", "offset"}
_PASSED = {"chunk", "digest", "stage", "passed", "cost"}
_TOLD = ("torch", "python")  # kept for the record; another version may go on
_MODEL = ("model", "computed")  # compared by what they say, not word by word


class DiskJournal:
    """A folder with the question, and per process one file of lines and one of points.

    question.json says what is asked (suite, budgets, ball, seed, hash of the model). outcomes-RANK.jsonl has a line
    for each handful of examples that broke and for each stage of a chunk that was passed; points-RANK.bin the inputs
    that broke them, where their line says. Lines are written after the points they speak of, so a line that is whole
    is true; a torn last line is cut. Any number of processes may go on where another number stopped. What is there is
    taken over only if it is of the same model (`danskin.evaluation.identity`); where that cannot be told, it is moved
    to the folder `earlier` and everything is asked anew, with a warning.

    Args:
        folder: made if missing.
        rank: of this process.
        world: number of processes.
    """

    def __init__(self, folder: Path, rank: int = 0, world: int = 1) -> None:
        self.folder, self.rank, self.world = folder, rank, world
        self._outcomes: dict[int, int] = {}
        self._passed: dict[int, int] = {}
        self._digests: dict[int, str] = {}
        self._costs: dict[int, Cost] = {}
        self._where: dict[int, tuple[int, int, str, list[int]]] = {}  # example -> rank, offset, dtype, shape
        self._lines: Any = None
        self._points: Any = None

    def open(self, question: dict[str, Any]) -> None:
        """Begin, or go on with the same question.

        Raises:
            ConfigError: the folder is about another question.
            MissingError: it cannot be written.
        """
        make_folder(self.folder, what="the journal's folder")
        path = self.folder / "question.json"
        old = read_json(path) if path.is_file() else None
        known = old is None or self._goes_on(old, question)
        if self.rank == 0 and not (known and old is not None and "computed" in old):
            write_json(path, question)
        for file in sorted(self.folder.glob("outcomes-*.jsonl")) if known else ():
            self._read(file, int(file.stem.split("-")[1]))
        self._lines = open_to_append(self._own("outcomes", "jsonl"))
        self._points = open_to_append(self._own("points", "bin"), "ab")

    def _goes_on(self, old: dict[str, Any], question: dict[str, Any]) -> bool:
        """Whether what is there may be taken over; raises where it is about another question."""
        other = [k for k in question if k not in (*_TOLD, *_MODEL) and old.get(k) != question[k]]
        told = f"there: {str(old.get(other[0]))[:80]}; asked: {str(question[other[0]])[:80]}" if other else ""
        model = Identity.from_dict(question["model"], question["computed"]) if "computed" in question else None
        relation = model.relation(old.get("model"), old.get("computed")) if model else "same"
        if relation == "other":
            same = old.get("model") == question["model"]
            what = "other outputs" if same else f"there: {str(old.get('model'))[:80]}; asked: {question['model']}"
            other, told = [*other, "model"], told or what
        if other:
            raise ConfigError(
                f"{self.folder}: expected a journal of the same evaluation, got one with another {', '.join(other)} "
                f"({told}); choose another folder"
            )
        if relation == "unknown" and model is not None and self._set_aside():
            there = old.get("computed") or {"doubt": "the journal is older than the check"}
            warnings.warn(
                f"{self.folder}: expected a model that can be told from others, got one that cannot "
                f"({model.doubt or there['doubt']}); what is there may be of another one: it is moved to "
                f"{self.folder / 'earlier'}, and everything is asked anew",
                DanskinWarning,
                stacklevel=3,
            )
        return relation == "same"

    def _own(self, kind: str, suffix: str) -> Path:
        return self.folder / f"{kind}-{self.rank:04d}.{suffix}"

    def _set_aside(self) -> bool:
        """Move this process's files, and those of processes that are no more, out of the way; whether there were."""
        place, moved = self.folder / "earlier", False
        for file in sorted([*self.folder.glob("outcomes-*.jsonl"), *self.folder.glob("points-*.bin")]):
            rank = int(file.stem.split("-")[1])
            if rank == self.rank or (self.rank == 0 and rank >= self.world):
                place.mkdir(exist_ok=True)
                turn = sum(1 for _ in place.glob(f"{file.stem}-*{file.suffix}"))
                os.replace(file, place / f"{file.stem}-{turn}{file.suffix}")
                moved = True
        return moved

    def _read(self, file: Path, rank: int) -> None:
        counts = rank == self.rank or (self.rank == 0 and rank >= self.world)
        for number, note in enumerate(read_lines(file), 1):
            if not (_BROKE <= note.keys() or _PASSED <= note.keys()):
                raise CheckpointError(
                    f"{file}: expected in line {number} what the journal writes, got {str(note)[:60]}; it is another "
                    "file: delete the folder and ask again"
                )
            if "by" in note:
                self._note(note, rank)
                continue
            self._digests[note["chunk"]] = note["digest"]
            for i in note["passed"]:
                self._passed[i] = max(self._passed.get(i, -1), note["stage"])
            if counts:
                self._costs[note["stage"]] = self._costs.get(note["stage"], Cost()) + Cost(*note["cost"])

    def _note(self, note: dict[str, Any], rank: int) -> None:
        shape = note["shape"]
        size = int(np.prod(shape)) * np.dtype(note["dtype"]).itemsize if shape is not None else 0
        for k, i in enumerate(note["broken"]):
            if self._outcomes.setdefault(i, note["by"]) == note["by"] and shape is not None:
                self._where.setdefault(i, (rank, note["offset"] + k * size, note["dtype"], shape))

    def known(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """What broke the examples of the chunk, and the last stage that they have passed.

        Raises:
            ConfigError: the journal was written for other data.
        """
        there = self._digests.get(chunk.number)
        if there is not None and there != chunk.digest:
            raise ConfigError(
                f"{self.folder}: expected the data that the journal was written for, got other examples in chunk "
                f"{chunk.number}; use the same data in the same order, or another folder"
            )
        index = chunk.index.tolist()
        broken = torch.tensor([self._outcomes.get(i, ROBUST) for i in index], dtype=torch.int64)
        return broken, torch.tensor([self._passed.get(i, -1) for i in index], dtype=torch.int64)

    def broken(self, index: Tensor, stage: int, points: Tensor | None) -> None:
        """Write outcomes, after the points that show them."""
        if not len(index):
            return
        note: dict[str, Any] = {"broken": index.tolist(), "by": stage, "shape": None, "dtype": None, "offset": 0}
        with self._writing():
            if points is not None:
                held = points.detach().cpu().contiguous()
                array = (held.float() if held.dtype == torch.bfloat16 else held).numpy()
                note |= {"shape": list(array.shape[1:]), "dtype": array.dtype.str, "offset": self._points.tell()}
                self._points.write(array.tobytes())
                self._points.flush()
            self._line(note)
        self._note(note, self.rank)

    def passed(self, chunk: Chunk, index: Tensor, stage: int, cost: Cost) -> None:
        """Write that a stage is over for this chunk."""
        note = {"chunk": chunk.number, "digest": chunk.digest, "stage": stage, "passed": index.tolist()}
        with self._writing():
            self._line(note | {"cost": [cost.forwards, cost.backwards, cost.calls, cost.seconds]})
        self._costs[stage] = self._costs.get(stage, Cost()) + cost

    def spent(self) -> dict[int, Cost]:
        """What each stage has cost, in this process and in earlier ones that had its place."""
        return self._costs

    def point(self, i: int) -> np.ndarray | None:
        """The input found for example i; None if nothing broke it, or it was wrong without attack."""
        if i not in self._where:
            return None
        rank, offset, dtype, shape = self._where[i]
        count = int(np.prod(shape))
        with open(self.folder / f"points-{rank:04d}.bin", "rb") as stream:
            stream.seek(offset)
            return np.frombuffer(stream.read(count * np.dtype(dtype).itemsize), dtype).reshape(shape)

    def close(self) -> None:
        """Close the files."""
        for stream in (self._lines, self._points):
            if stream is not None:
                with contextlib.suppress(OSError):  # of a full disk; `_writing` has told
                    stream.close()

    def _line(self, note: dict[str, Any]) -> None:
        self._lines.write(json.dumps(note, separators=(",", ":")) + "\n")
        self._lines.flush()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
            os.fsync(self._lines.fileno())
        except OSError as error:
            raise MissingError(
                f"{self.folder}: expected to write the journal, got {error}; what was written before is there",
                "free some space, then run the same command again",
            ) from error
