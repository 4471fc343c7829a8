"""Every path that is given and every file that is read: a sentence and an exit code, before the work begins."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from safetensors.torch import save_file

from danskin import files
from danskin.data import load
from danskin.errors import ConfigError, DanskinWarning
from danskin.run.lock import locked

JUNK = {"empty": b"", "junk": bytes(range(256)) * 4, "torn": b'{"state": "fin', "list": b"[1, 2]\n", "text": b"words\n"}
NET = """
import time
import torch

def net(width=12):
    torch.manual_seed(0)
    front = torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.ReLU()
    return torch.nn.Sequential(*front, torch.nn.Linear(width, 10))

class Slow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        time.sleep(0.01)
        return self.net(x)
"""
ASK = ["evaluate", "--model", "mine:net", "--data", "digits", "--ball", "linf:0.03", "--suite", "fast", "-q",
       "--examples", "12"]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory, request):
    """Made once: a finished run, a verdict, a data archive, weights and a module of one's own."""
    from danskin.cli import main

    home = tmp_path_factory.mktemp("made")
    (home / "mine.py").write_text(NET)
    scope = {}
    exec(NET, scope)
    save_file(scope["net"]().state_dict(), home / "w.safetensors")
    words = request.getfixturevalue("small_words")
    for command in (["train", *words, "-q", "--out", "run"], SAME):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
            patch.chdir(home)
            patch.setattr(sys, "argv", ["danskin", *command])
            main()
        assert not end.value.code
    digits = load("digits")
    x, y = digits.x_train[:40].numpy(), digits.y_train[:40].numpy()
    np.savez(home / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return home


@pytest.fixture
def home(made, tmp_path, monkeypatch):
    """A copy to break, and the place where commands run."""
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def ends_in_a_sentence(done, *codes):
    assert done.code in codes, (done.out, done.err)
    assert ("Traceback" not in done.err and "danskin: " in done.err) or done.code == 0, done.err
    assert ": expected " in done.err or "was not found; looked in" in done.err or done.code == 0, done.err


def read_only(path):
    """/proc takes no files, whoever asks."""
    return f"/proc/self/{path}"


#: Commands that write, with the option that says where; W stands for the place.
WRITERS = {
    "train": ["train", "digits", "-q", "--out", "W"],
    "train --runs": ["train", "digits", "-q", "--runs", "W"],
    "evaluate run": ["evaluate", "run", "--out", "W", "-q"],
    "evaluate suite": [*ASK, "--out", "W"],
    "attack": ["attack", "run", "--n", "5", "--out", "W"],
    "reproduce": ["reproduce", "C10", "--out", "W", "-q"],
}
TO_FILES = ("evaluate run", "attack")


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("place", [
    "a file", "a folder", "read-only", pytest.param("under a file", marks=pytest.mark.slow),
    pytest.param("a name too long", marks=pytest.mark.slow),
])  # fmt: skip
def test_where_nothing_can_be_written_is_found_before_the_work(command, place, home, cli, monkeypatch):
    (home / "file").write_text("kept")
    (home / "folder").mkdir()
    where = {"a file": "file", "a folder": "folder", "under a file": "file/x", "read-only": read_only("x"),
             "a name too long": "x" * 300 + "/y"}[place]  # fmt: skip
    fine = {"a file": command in TO_FILES, "a folder": command not in TO_FILES}.get(place, False)
    if fine:
        pytest.skip("it may be written there")
    for module in ("danskin.run.train", "danskin.evaluation", "danskin.run.evaluation", "danskin.recipes.reproduce"):
        __import__(module)

    def worked(*args, **kwargs):
        raise AssertionError("the work has begun")

    monkeypatch.setattr("danskin.run.train.train", worked)
    monkeypatch.setattr("danskin.run.train.evaluate_all", worked)
    monkeypatch.setattr("danskin.run.verdict.evaluate", worked)
    monkeypatch.setattr("danskin.run.evaluation.attack_examples", worked)
    monkeypatch.setattr("danskin.recipes.reproduce.work", worked)
    done = cli(*[where if word == "W" else word for word in WRITERS[command]])
    ends_in_a_sentence(done, 2, 4)
    assert where.split("/")[0] in done.err or "/proc" in done.err
    assert (home / "file").read_text() == "kept" and not list((home / "folder").iterdir())


#: Files that are read -> the commands that read them, and the exit codes they may end with (0: it is made anew).
READERS = {
    "run/config.yaml": [["train", "--resume", "run", "-q"], ["evaluate", "run", "-q"], ["attack", "run", "--n", "3"]],
    "run/status.json": [["train", "--resume", "run", "-q"], ["report", "run"]],
    "run/result.json": [["train", "--resume", "run", "-q"], ["report", "run"]],
    "run/metrics.jsonl": [["train", "--resume", "run", "-q"], ["report", "run"]],
    "run/examples.npz": [["report", "run"]],
    "run/environment.json": [["report", "run"]],
    "run/checkpoints/adversarial/best.safetensors": [
        ["evaluate", "run", "-q"],
        ["attack", "run", "--n", "3"],
        ["evaluate", "run/checkpoints/adversarial/best.safetensors", "-q"],
    ],
    "run/checkpoints/adversarial/last.pt": [["train", "--resume", "run", "-q"]],
    "verdict/verdict.json": [["evaluate", "SAME"], ["report", "verdict"]],
    "verdict/journal/question.json": [["evaluate", "SAME"]],
    "verdict/journal/outcomes-0000.jsonl": [["evaluate", "SAME"]],
    "w.safetensors": [[*ASK, "--weights", "w.safetensors"]],
    "d.npz": [[*ASK[:4], "npz:d.npz", *ASK[5:]], ["train", "digits", "data.name=npz:d.npz", "-q", "--dry-run"]],
    "recipe.yaml": [["train", "recipe.yaml", "--dry-run"]],
    "mine.py": [ASK],
}
SAME = ["evaluate", "run/checkpoints/adversarial/best.safetensors", "--suite", "fast", "--examples", "12", "--ball",
        "linf:0.03", "--out", "verdict", "-q"]  # fmt: skip
#: One kind of break for each file and command is quick, the others are slow.
CASES = [
    pytest.param(file, number, kind, marks=[] if kind == "torn" else pytest.mark.slow)
    for file, words in READERS.items() for number in range(len(words)) for kind in [*JUNK, "a folder"]
]  # fmt: skip


@pytest.mark.parametrize(("file", "number", "kind"), CASES)
def test_a_broken_file_is_told_by_its_name(file, number, kind, home, cli):
    path, words = home / file, READERS[file][number]
    if path.exists():
        path.unlink()
    if kind == "a folder":
        path.mkdir(parents=True)
    else:
        path.write_bytes(JUNK[kind])
    sys.modules.pop("mine", None)
    if file.startswith("verdict/journal"):
        (home / "verdict/verdict.json").unlink()
    if file.endswith("last.pt"):
        (home / "run/result.json").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is made anew
        done = cli(*(SAME if words[-1] == "SAME" else words))
    ends_in_a_sentence(done, 0, 1, 2, 4)
    if done.code:
        assert path.name.split(".")[0] in done.err, done.err


@pytest.mark.parametrize(
    "where", ["nowhere", *(pytest.param(w, marks=pytest.mark.slow) for w in ("x" * 300, "file", "folder"))]
)
@pytest.mark.parametrize("words", [
    ["train", "W", "--dry-run"], ["train", "--resume", "W"], ["evaluate", "W"], ["attack", "W"], ["report", "W"],
    [*ASK, "--weights", "W"], ["evaluate", "--model", "W.pt2", *ASK[3:]], ["evaluate", "--model", "W.onnx", *ASK[3:]],
    ["evaluate", "--model", "W.ts", *ASK[3:]], [*ASK[:4], "npz:W", *ASK[5:]], [*ASK[:4], "folder:W", *ASK[5:]],
    ["train", "digits", "model.weights=W", "-q"], ["train", "digits", "data.name=mnist", "data.folder=W", "-q"],
], ids=lambda words: " ".join(words)[:50])  # fmt: skip
def test_a_path_to_read_that_leads_nowhere(words, where, home, cli):
    (home / "file").write_text("words")
    (home / "file.pt2").write_text("words")
    (home / "folder").mkdir()
    sys.modules.pop("mine", None)
    ends_in_a_sentence(cli(*[word.replace("W", where) for word in words]), 1, 2, 4)
    assert (home / "file").read_text() == "words" and not list((home / "folder").iterdir())


def test_a_broken_result_of_a_finished_run_is_made_anew(home, cli):
    first = json.loads((home / "run/result.json").read_text())
    (home / "run/result.json").write_bytes(JUNK["torn"])
    with pytest.warns(DanskinWarning, match=r"result.json: expected the JSON that danskin wrote.*made anew"):
        done = cli("train", "--resume", "run", "-q")
    assert done.code == 0, done.err
    again = json.loads((home / "run/result.json").read_text())
    assert again["models"]["adversarial"]["worst_case"] == first["models"]["adversarial"]["worst_case"]


@pytest.mark.parametrize("words", [ASK, ["train", "digits", "-q"], ["attack", "run", "--out", "a.npz"],
                                   ["evaluate", "run", "-q", "--out", "e.json"]], ids=lambda w: w[0])  # fmt: skip
@pytest.mark.parametrize("when", ["fsync", "write"])
def test_a_disk_that_fills(words, when, home, cli, monkeypatch, small_words):
    """The first flush to disk fails; or, in the journal and the metrics, every write."""
    words = [*words, *(w for w in small_words[1:] if words[0] == "train")]
    if when == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    elif words[0] in ("train", "evaluate") and "run" not in words:
        opened = files.open_to_append

        def to_full(path, mode="a"):
            opened(path, mode).close()
            return open("/dev/full", mode)

        for module in ("danskin.run.record", "danskin.run.journal"):
            monkeypatch.setattr(f"{module}.open_to_append", to_full)
    else:
        pytest.skip("it appends to no file")
    done = cli(*words)
    ends_in_a_sentence(done, 4)
    assert "No space left" in done.err
    for left in home.rglob("status.json"):
        if left.parent.name not in ("run", "verdict"):
            assert when == "fsync" or json.loads(left.read_text())["state"] == "failed"


def full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_image_too_large_to_hold(tmp_path, cli):
    """400 million pixels of one grey take 400 kB on disk."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS, before = None, Image.MAX_IMAGE_PIXELS
    try:
        for part in ("train", "test"):
            (tmp_path / part / "a").mkdir(parents=True)
            Image.new("1", (20_000, 20_000)).save(tmp_path / part / "a" / "big.png")
    finally:
        Image.MAX_IMAGE_PIXELS = before
    done = cli("evaluate", "--model", "small_cnn", "--data", f"folder:{tmp_path}", "--ball", "linf:0.1")
    ends_in_a_sentence(done, 2)
    assert "big.png" in done.err and "400000000 pixels" in done.err


#: Commands that work in a folder of a run: words, and the folder.
HOLDERS = {
    "train": (["train", "SMALL", "-q", "--out", "new"], "new"),
    "resume": (["train", "--resume", "run", "-q"], "run"),
    "evaluate": (SAME, "verdict"),
    "reproduce": (["reproduce", "C10", "--out", "rows", "--resume", "-q"], "rows"),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_second_process_in_a_folder_is_sent_away(holder, home, cli, small_words):
    words, folder = HOLDERS[holder]
    words = [part for word in words for part in (small_words if word == "SMALL" else [word])]
    held = f"with locked(Path({folder!r})):\n    print('held', flush=True)\n    sys.stdin.read()"
    script = f"import sys\nfrom pathlib import Path\nfrom danskin.run.lock import locked\n{held}"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as other:
        assert other.stdout.readline() == "held\n"
        before = {p: p.read_bytes() for p in (home / folder).rglob("*") if p.is_file()}
        done = cli(*words)
        ends_in_a_sentence(done, 2)
        assert f"{folder}: expected a folder that nobody works in" in done.err
        assert f"process {other.pid} on" in done.err
        assert before == {p: p.read_bytes() for p in (home / folder).rglob("*") if p.is_file()}
        other.kill()
    assert (home / folder / ".lock").exists()  # the lock ended with its process
    if holder != "reproduce":
        assert cli(*words).code == 0
        assert not (home / folder / ".lock").exists()


def test_a_lock_is_one_process_s_and_leaves_nothing(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "a"), pytest.raises(ConfigError, match="nobody works in"), locked(tmp_path / "a"):
            pass
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a"):
        1 / 0  # noqa: B018
    assert not list((tmp_path / "a").iterdir())


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"]
)
def test_an_evaluation_that_is_interrupted_says_so_and_goes_on(number, home):
    words = [*ASK, "--out", "cut"]
    words[words.index("mine:net")] = "mine:Slow"
    command = [sys.executable, "-m", "danskin", *words]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    lines = home / "cut/journal/outcomes-0000.jsonl"
    until = time.monotonic() + 60
    while not (lines.is_file() and lines.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, ""), err
    assert "danskin: interrupted; go on with the same command; what was found is in cut" in err
    assert "Traceback" not in err
    status = json.loads((home / "cut/status.json").read_text())
    assert status["state"] == "interrupted" and "ask again" in status["message"] and status["ended"]
    assert not (home / "cut/.lock").exists()
