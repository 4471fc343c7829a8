"""The journal on disk: kills at random moments, other numbers of processes, other questions."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from danskin.attacks import APGD
from danskin.attacks.square import Square
from danskin.errors import ConfigError, DanskinWarning, MissingError
from danskin.evaluation import evaluate
from danskin.losses import predict
from danskin.minmax import Linf
from danskin.run.journal import DiskJournal
from danskin.testing.models import Counted, convnet

BALL = Linf(0.04)
SUITE = {"apgd": APGD(BALL, steps=30, stop=True), "square": Square(BALL, queries=150, stop=True)}


def problem():
    model = convnet(6, seed=2)
    x = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return model, x, model(x).argmax(1).detach()


def ask(folder, rank=0, world=1, model=None, **others):
    net, x, y = problem()
    journal = DiskJournal(folder, rank, world)
    try:
        options = {"chunk": 16, "batch_size": 8, "diagnostics": 0, "shard": (rank, world)} | others
        return evaluate(model or net, (x, y), BALL, SUITE, journal=journal, **options), journal
    finally:
        journal.close()


@pytest.fixture(scope="module")
def plain():
    model, x, y = problem()
    return evaluate(model, (x, y), BALL, SUITE, chunk=16, diagnostics=0)


def test_asking_twice_costs_nothing(tmp_path, plain):
    first, _ = ask(tmp_path)
    assert torch.equal(first.broken_by, plain.broken_by)
    assert 0 < first.robust.hits < first.clean.hits
    counted = Counted(problem()[0])
    again, _ = ask(tmp_path, model=_same_state(counted))
    assert torch.equal(again.broken_by, plain.broken_by)
    assert counted.calls == 0
    assert again.cost == first.cost


def test_costs_of_all_chunks_are_added(tmp_path):
    model, x, y = problem()
    counted = Counted(model)
    verdict, journal = ask(tmp_path, model=_same_state(counted))  # four chunks
    assert (verdict.cost.forwards, verdict.cost.backwards) == (counted.forwards, counted.backwards)
    in_memory = evaluate(model, (x, y), BALL, SUITE, chunk=16, batch_size=8, diagnostics=0)
    for a, b in zip(verdict.stages, in_memory.stages, strict=True):
        assert (a.cost.forwards, a.cost.backwards, a.cost.calls) == (b.cost.forwards, b.cost.backwards, b.cost.calls)
    assert journal.spent()[1].forwards > 4 * 60


def _same_state(counted):
    """A counting wrapper whose state has the names of the model inside."""
    inner = counted.model
    counted.state_dict = inner.state_dict
    return counted


def test_points_are_kept(tmp_path, plain):
    model, x, y = problem()
    _, journal = ask(tmp_path)
    broken = (plain.broken_by > 0).nonzero().flatten().tolist()
    assert broken
    for i in broken:
        point = torch.from_numpy(journal.point(i).copy())
        assert (point - x[i]).abs().max() <= 0.04 + 1e-6
        assert int(predict(model(point[None]))) != int(y[i])
    assert journal.point(int((plain.broken_by == -1).nonzero()[0])) is None


def test_other_numbers_of_processes_go_on(tmp_path, plain):
    ask(tmp_path, 1, 3)
    ask(tmp_path, 0, 2)
    whole, _ = ask(tmp_path)
    assert torch.equal(whole.broken_by, plain.broken_by)
    counted = Counted(problem()[0])
    again, _ = ask(tmp_path, 1, 2, model=_same_state(counted))
    assert counted.calls == 0 and torch.equal(again.broken_by, plain.broken_by[1::2])


def test_what_one_process_began_another_ends(tmp_path, plain):
    ask(tmp_path, 1, 2)
    begun = tmp_path / "outcomes-0001.jsonl"
    begun.write_text("".join(begun.read_text().splitlines(keepends=True)[:2]))  # the clean pass of the first chunk
    ask(tmp_path)
    counted = Counted(problem()[0])
    again, _ = ask(tmp_path, model=_same_state(counted))
    assert counted.calls == 0 and torch.equal(again.broken_by, plain.broken_by)


def test_another_batch_size_goes_on(tmp_path, plain):
    ask(tmp_path, 0, 2)
    whole, _ = ask(tmp_path, batch_size=3)
    assert torch.equal(whole.broken_by, plain.broken_by)


def test_torn_lines_are_cut(tmp_path, plain):
    ask(tmp_path)
    lines = tmp_path / "outcomes-0000.jsonl"
    content = lines.read_bytes()
    for cut in (len(content) - 3, len(content) // 2, 10):
        lines.write_bytes(content[:cut])
        again, _ = ask(tmp_path)
        assert torch.equal(again.broken_by, plain.broken_by)


def test_another_question_is_refused(tmp_path):
    ask(tmp_path)
    model, x, y = problem()
    with pytest.raises(ConfigError, match="another seed"):
        ask(tmp_path, seed=1)
    with pytest.raises(ConfigError, match="another model"):
        ask(tmp_path, model=convnet(6, seed=3))
    with (
        contextlib.closing(DiskJournal(tmp_path)) as journal,
        pytest.raises(ConfigError, match="other examples in chun"),
    ):
        evaluate(model, (1 - x, y), BALL, SUITE, chunk=16, batch_size=8, diagnostics=0, journal=journal)


class Plain:
    """A network behind an object that has no state of its own; arrays hide it where `numpy`."""

    def __init__(self, net, numpy=False, noise=0.0):
        self.net, self.numpy, self.noise = (net.state_dict() if numpy else net), numpy, noise

    def __call__(self, x):
        if self.numpy:
            return torch.func.functional_call(convnet(6), self.net, x)
        return self.net(x) + self.noise * torch.randn(len(x), 6)


@pytest.mark.parametrize("numpy", [False, True])
def test_a_function_over_another_network_is_refused(tmp_path, plain, numpy):
    model = problem()[0]
    first, _ = ask(tmp_path, model=Plain(model, numpy))
    assert torch.equal(first.broken_by, plain.broken_by)
    again, _ = ask(tmp_path, model=Plain(problem()[0], numpy))
    assert torch.equal(again.broken_by, plain.broken_by) and again.cost == first.cost
    with pytest.raises(ConfigError, match="another model"):
        ask(tmp_path, model=Plain(convnet(6, seed=3), numpy))


def test_a_random_model_is_asked_anew(tmp_path):
    model = Plain(problem()[0], noise=3.0)
    first, _ = ask(tmp_path, model=model)
    lines = (tmp_path / "outcomes-0000.jsonl").read_text()
    with pytest.warns(DanskinWarning, match=r"got one that cannot \(it is random\).*everything is asked anew"):
        again, _ = ask(tmp_path, model=model)
    assert (tmp_path / "earlier" / "outcomes-0000-0.jsonl").read_text() == lines
    assert sum(s.cost.forwards for s in again.stages) < 1.5 * sum(s.cost.forwards for s in first.stages)
    assert [json.loads(line) for line in (tmp_path / "outcomes-0000.jsonl").read_text().splitlines()]
    with pytest.warns(DanskinWarning, match="asked anew"):
        ask(tmp_path, model=model)
    assert len(list((tmp_path / "earlier").iterdir())) == 4


def test_other_processes_outcomes_of_a_random_model_are_not_taken_over(tmp_path):
    model = Plain(problem()[0], noise=3.0)
    ask(tmp_path, model=model)
    lines = (tmp_path / "outcomes-0000.jsonl").read_text()
    counted = Counted(model)
    counted.state_dict = None  # as a function has
    ask(tmp_path, 1, 2, model=lambda x: counted(x))
    assert counted.forwards > 8 + 8 + 30  # beyond the probes: its examples and the search
    assert (tmp_path / "outcomes-0000.jsonl").read_text() == lines  # the other process moves its own


def _older(folder, **others):
    """The question as it was written before outputs were kept."""
    file = folder / "question.json"
    question = json.loads(file.read_text())
    del question["computed"]
    file.write_text(json.dumps(question | others))


def test_older_journals_go_on_where_the_weights_tell(tmp_path, plain):
    ask(tmp_path)
    _older(tmp_path)
    counted = Counted(problem()[0])
    again, _ = ask(tmp_path, model=_same_state(counted))
    assert counted.calls == 0 and torch.equal(again.broken_by, plain.broken_by)
    assert "computed" in json.loads((tmp_path / "question.json").read_text())
    _older(tmp_path)
    with pytest.raises(ConfigError, match="another model"):
        ask(tmp_path, model=convnet(6, seed=3))


def test_older_journals_of_functions_are_asked_anew(tmp_path, plain):
    ask(tmp_path, model=Plain(convnet(6, seed=3)))
    _older(tmp_path, model=None)
    with pytest.warns(DanskinWarning, match="the journal is older than the check"):
        again, _ = ask(tmp_path, model=Plain(problem()[0]))
    assert torch.equal(again.broken_by, plain.broken_by)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingError, match="expected to make the journal's folder"):
        DiskJournal(tmp_path / "file" / "journal").open({})


_SCRIPT = """
import sys, torch
sys.path.insert(0, {here!r})
from pathlib import Path
from test_journal import ask
torch.set_num_threads(1)
print("ready", flush=True)
ask(Path(sys.argv[1]))
print("done", flush=True)
"""


def _attempt(folder, seconds):
    """One evaluation in a process of its own, killed after so many seconds; whether it came to its end."""
    script = _SCRIPT.format(here=os.path.dirname(__file__))
    child = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline().strip() == "ready"
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    rest, _ = child.communicate()
    return "done" in rest


def _kill_and_go_on(folder, plain, moments):
    seen = {}
    for seconds in moments:
        done = _attempt(folder, seconds)
        for file in folder.glob("outcomes-*.jsonl"):
            whole = file.read_text().rpartition("\n")[0]
            found = {}
            for line in whole.splitlines():
                note = json.loads(line)
                for i in note.get("broken", ()):
                    assert i not in found, "counted twice"
                    found[i] = note["by"]
            assert seen.items() <= found.items(), "lost"
            seen = found
        if done:
            break
    final, _ = ask(folder)
    assert torch.equal(final.broken_by, plain.broken_by)
    assert {i: int(b) for i, b in enumerate(plain.broken_by) if b >= 0}.items() >= seen.items()


def test_kill_loses_nothing(tmp_path, plain):
    pick = random.Random(0)
    _kill_and_go_on(tmp_path, plain, [pick.uniform(0.0, 0.5) for _ in range(3)])


@pytest.mark.slow
def test_twenty_kills_lose_nothing(tmp_path, plain):
    pick = random.Random(1)
    for k in range(20):
        folder = tmp_path / str(k)
        folder.mkdir()
        _kill_and_go_on(folder, plain, [pick.uniform(0.0, 1.0) for _ in range(2)])
