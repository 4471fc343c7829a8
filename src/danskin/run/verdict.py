"""Judge a model and leave a folder: journal, verdict.json, card.json, examples, report.html."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

import danskin
from danskin.attacks.asking import Precision
from danskin.attacks.bounds import Ball
from danskin.attacks.guard import as_found, device_of
from danskin.data import Dataset, to_float
from danskin.errors import ConfigError, InputError, MissingError, ModelError
from danskin.evaluation import Form, Verdict, evaluate, fastest
from danskin.evaluation.certify import BUDGET, CertifyMethod, certify
from danskin.evaluation.curve import robustness_curve
from danskin.evaluation.fingerprint import examples_hash
from danskin.evaluation.identity import Identity, Relation, identify
from danskin.evaluation.masking import Flag
from danskin.files import read_json, write_atomically, write_json, write_text
from danskin.foreign import Opened
from danskin.losses import predict
from danskin.minmax.balls import BALLS
from danskin.minmax.reading import read_ball
from danskin.report.verdict import write_verdict_report
from danskin.run.card import card
from danskin.run.journal import DiskJournal
from danskin.run.lock import locked
from danskin.run.own_set import OwnSet, names_code
from danskin.run.record import environment, now
from danskin.run.runtime import Runtime
from danskin.run.train import npz_bytes

Listener = Callable[[dict[str, Any]], None]
Certificate = Literal["no"] | CertifyMethod
PICTURES = 8  # examples kept with the verdict
TIMED = 32  # examples that forms of the model are timed on


def parse_ball(text: str) -> Ball:
    """A ball from text such as "linf:8/255", "l2:0.5" or "l1:12"; or a set of one's own, by "module:factory".

    Raises:
        ConfigError: another norm, or no radius.
    """
    if names_code(text) and text.partition(":")[0].lower() not in BALLS:
        return OwnSet(text)
    try:
        found: Ball = read_ball(text)
    except InputError as error:
        raise ConfigError(f"--{error}") from error
    return found


@dataclass(frozen=True)
class Question:
    """What is asked about a model.

    Args:
        opened: the model.
        data: whose test examples are used.
        ball: the perturbations.
        suite: a name of `danskin.evaluation.SUITES`.
        n: use the first n test examples; None for all.
        seed: of the attacks.
        batch_size: rows in the batch at a time.
        precision: "bfloat16" takes gradients in it; "auto" chooses it, and the memory format, where that is quicker.
        channels_last: search in this memory format.
        compile: search with a compiled model.
        grid: 255 asks for adversarial examples that are valid images of 8 bits.
        curve: examples for robust accuracy against the radius (suite "fast"); 0 for none.
        certificate: method of the lower bound, "no" for none, "auto" from cheap to dear within a budget.
        budget: multiplications that "auto" may spend on the certificate of one example.
    """

    opened: Opened
    data: Dataset
    ball: Ball
    suite: str = "standard"
    n: int | None = None
    seed: int = 0
    batch_size: int = 256
    precision: Precision | Literal["auto"] = "model"
    channels_last: bool = False
    compile: bool = False
    grid: int | None = None
    certificate: Certificate = "no"
    budget: float = BUDGET
    curve: int = 0

    @property
    def name(self) -> str:
        """A folder name that the same question always has."""
        key = json.dumps(
            [self.opened.hash, self.data.name, repr(self.ball), self.suite, self.n, self.seed, self.precision]
        )
        short = "".join(c if c.isalnum() or c in "-_." else "-" for c in self.opened.name).strip("-.")[-40:]
        return f"{short}-{self.data.name.split(':')[0]}-{self.suite}-{hashlib.sha256(key.encode()).hexdigest()[:6]}"

    def identity(self, device: torch.device) -> Identity:
        """Of the model, by its weights and by what it computes."""
        return identify(self.opened.model, to_float(self.data.x_test[:1].to(device)), (0, 1))


def judge(question: Question, folder: Path, runtime: Runtime, listen: Listener = lambda event: None) -> Verdict | None:
    """Answer the question in `folder`, going on where an earlier attempt stopped; under torchrun on all processes.

    Returns:
        the verdict on the main process, None on the others.

    Raises:
        ConfigError: the folder holds another question.
    """
    with contextlib.ExitStack() as held:
        runtime.on_main(lambda: held.enter_context(locked(folder)))
        return _judge(question, folder, runtime, listen)


def _judge(question: Question, folder: Path, runtime: Runtime, listen: Listener) -> Verdict | None:
    """`judge` in a folder that no other process works in."""
    model, n = question.opened.model, question.n
    x, y = question.data.x_test[:n], question.data.y_test[:n]
    asked = _asked(question, x, y) if runtime.main else {}
    identity = question.identity(runtime.device) if runtime.main else None
    known = runtime.share(runtime.on_main(lambda: _answered(asked, identity, folder)))
    if known is not None:
        return known if runtime.main else None
    if runtime.main:
        write_text(folder / "command.txt", shlex.join(["danskin", *sys.argv[1:]]) + "\n")
        write_json(folder / "environment.json", environment())
        started = now()
        write_json(folder / "status.json", {"state": "running", "started": started, "message": "judging"})
    journal = DiskJournal(folder / "journal", runtime.rank, runtime.world)
    try:
        form = _form(question, x, folder, runtime, listen)
        copied = form.channels_last or question.compile or question.precision == "auto"  # else autocast does it all
        quick = form.of(model, compile=question.compile) if copied else None  # type: ignore[arg-type]
        part = evaluate(
            model, (x, y), question.ball, question.suite, seed=question.seed, batch_size=question.batch_size,
            precision=form.precision, grid=question.grid, quick=quick, device=runtime.device, journal=journal,
            shard=(runtime.rank, runtime.world), diagnostics=32 if runtime.main else 0, progress=listen,
        )  # fmt: skip
        parts = runtime.gather(part)
        if not runtime.main:
            return None
        verdict = Verdict.merge(parts)
        verdict = replace(verdict, flags=(*verdict.flags, *question.opened.flags))
        if question.certificate != "no":
            verdict = _certified(question, verdict, x, y, listen)
        _write(question, asked, identity, form, verdict, _curve(question, x, y), folder, runtime.device)
        _examples(question, verdict, folder, journal)
        state = {"state": "finished", "started": started, "message": "judged", "ended": now()}
        write_json(folder / "status.json", state)
        write_verdict_report(folder)
    except BaseException as error:
        if runtime.main:
            interrupted = isinstance(error, KeyboardInterrupt)
            message = "stopped by the user; ask again to go on" if interrupted else f"{type(error).__name__}: {error}"
            state = {"state": "interrupted" if interrupted else "failed", "message": message}
            with contextlib.suppress(MissingError):  # of a full disk, which `error` tells
                write_json(folder / "status.json", state | {"started": started, "ended": now()})
        raise
    finally:
        journal.close()
    return verdict


def _form(question: Question, x: Tensor, folder: Path, runtime: Runtime, listen: Listener) -> Form:
    """How the search computes: as asked, or as the main process once found quickest (search.json)."""
    if question.precision != "auto":
        return Form(question.precision, question.channels_last)
    file = folder / "search.json"
    if runtime.main and not file.is_file():
        model = question.opened.model
        write_json(file, asdict(fastest(model, to_float(x[:TIMED].to(runtime.device)))))  # type: ignore[arg-type]
    names = tuple(f.name for f in fields(Form))
    found = runtime.share(runtime.on_main(lambda: read_json(file, names)))
    form = Form(**{name: found[name] for name in names})
    listen({"state": "chosen", "form": str(form)})
    return form


def _asked(question: Question, x: Tensor, y: Tensor) -> dict[str, Any]:
    """What tells one question from another, data included."""
    limit = {} if question.budget == BUDGET else {"certify_budget": question.budget}
    return limit | {
        "model": {"name": question.opened.name, "hash": question.opened.hash},
        "data": {"name": question.data.name, "examples": len(y), "hash": examples_hash(x, y)},
        "ball": repr(question.ball),
        "suite": question.suite,
        "seed": question.seed,
        "precision": question.precision,
        "certificate": question.certificate,
        "curve": question.curve,
        "grid": question.grid,
    }


def _answered(asked: dict[str, Any], identity: Identity | None, folder: Path) -> Verdict | None:
    """The verdict of an earlier run, if it was about this very question and model, and came to its end."""
    path = folder / "verdict.json"
    if identity is None or not path.is_file():
        return None
    found = read_json(path)
    same = found.get("asked") == asked and _relation(identity, found) == "same"
    return Verdict.from_dict(found) if same else None


def _relation(identity: Identity, found: dict[str, Any]) -> Relation:
    """Whether a verdict.json is about this model; one from before outputs were kept has the hash it asked for."""
    if "identity" not in found:
        hash = found.get("asked", {}).get("model", {}).get("hash")
        return "unknown" if hash is None or identity.doubt else "same"
    return identity.relation(found["identity"]["hash"], found["identity"]["computed"])


def place(question: Question, base: Path, runtime: Runtime) -> Path:
    """The folder under `base` for a question whose folder nobody named: a new one where another model's is.

    Models may hold the same weights under the same name and compute different things, after a change of their code or
    of plain attributes.
    """
    if not runtime.main:
        return Path(runtime.share(None))
    identity, folder, turn = question.identity(runtime.device), base / question.name, 1
    while _taken(identity, folder):
        turn += 1
        folder = base / f"{question.name}-{turn}"
    runtime.share(str(folder))
    return folder


def _taken(identity: Identity, folder: Path) -> bool:
    path = folder / "journal" / "question.json"
    if not path.is_file():
        return False
    old = read_json(path)
    return identity.relation(old.get("model"), old.get("computed")) == "other"


def _certified(question: Question, verdict: Verdict, x: Tensor, y: Tensor, listen: Listener) -> Verdict:
    """The verdict with certificates for what attacks left standing; with a note where the model has no rule."""
    listen({"chunk": 0, "stage": "certify", "examples": len(y), "state": "begun"})
    method: CertifyMethod = question.certificate  # type: ignore[assignment]
    stands = torch.zeros(len(y), dtype=torch.bool)
    stands[verdict.index] = verdict.outcomes
    try:
        found = certify(
            question.opened.model, (to_float(x), y), question.ball,
            method=method, budget=question.budget, worth=stands, progress=listen,
        )  # fmt: skip
    except ModelError as error:
        if method != "auto":
            raise
        flag = Flag("no_certificate", "note", f"no lower bound: {error}", {})
        return replace(verdict, flags=(*verdict.flags, flag))
    held = found.certified.cpu()[verdict.index]
    wrong = held & ~verdict.outcomes
    if bool(wrong.any()):
        flag = Flag(
            "certificate_broken",
            "warning",
            f"{int(wrong.sum())} examples are certified and broken at once; one of the two has a fault: report it",
            {"examples": verdict.index[wrong].tolist()},
        )
        return replace(verdict, flags=(*verdict.flags, flag))
    listen({"stage": "certify", "state": "certified", "found": str(found)})
    told = replace(verdict, certifying=found.steps, budget=found.budget)
    return replace(told, certificates=held, method=found.method)


def _curve(question: Question, x: Tensor, y: Tensor) -> list[dict[str, Any]]:
    """Robust accuracy against the radius, as in verdict.json; empty unless asked for."""
    k = question.curve
    if not k:
        return []
    model, size = question.opened.model, question.batch_size
    return [p.to_dict() for p in robustness_curve(model, to_float(x[:k]), y[:k], question.ball, batch_size=size)]


def _write(
    question: Question,
    asked: dict[str, Any],
    identity: Identity | None,
    form: Form,
    verdict: Verdict,
    curve: list[dict[str, Any]],
    folder: Path,
    device: torch.device,
) -> None:
    """verdict.json and card.json."""
    result = {
        "danskin": danskin.__version__,
        "asked": asked,
        "model": asked["model"] | {"note": question.opened.note},
        "identity": {"hash": identity.hash, "computed": identity.to_dict()} if identity is not None else None,
        "data": asked["data"] | {"classes": list(question.data.classes)},
        "settings": {
            "batch_size": question.batch_size,
            "precision": form.precision,
            "channels_last": form.channels_last,
            "compile": question.compile,
            "device": str(device),
        },
    } | verdict.to_dict()
    if curve:
        result["curve"] = curve
    write_json(folder / "verdict.json", result)
    write_json(folder / "card.json", card(result))


def _examples(question: Question, verdict: Verdict, folder: Path, journal: DiskJournal) -> None:
    """The first broken examples with the inputs that broke them, as pictures for the report."""
    rows = [int(i) for i in verdict.index[verdict.broken_by > 0] if journal.point(int(i)) is not None][:PICTURES]
    if not rows:
        return
    clean = to_float(question.data.x_test[rows])
    points = torch.from_numpy(np.stack([np.asarray(journal.point(i)) for i in rows])).to(clean)
    model = question.opened.model
    device = device_of(model)
    with as_found(model, "eval", device), torch.no_grad():
        guess = predict(model(points.to(device))).cpu()
    arrays = {"index": np.array(rows), "x": clean.numpy(), "adversarial": points.numpy(), "prediction": guess.numpy()}
    arrays |= {"y": question.data.y_test[rows].numpy(), "broken_by": verdict.broken_by[torch.tensor(rows)].numpy()}
    write_atomically(folder / "examples.npz", lambda stream: stream.write(npz_bytes(arrays)))
