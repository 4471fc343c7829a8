"""The report of a verdict, from folders as `judge` leaves them."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_report import Checker

from danskin.errors import MissingError
from danskin.evaluation import SUITES as REAL_SUITES
from danskin.evaluation import Stage, Verdict
from danskin.evaluation.masking import Flag
from danskin.metrics import Share
from danskin.minmax import L2, Cost, Linf
from danskin.report import page as pages
from danskin.report import verdict as verdict_report
from danskin.report.verdict import write_verdict_report
from danskin.report.verdict_words import SUITES

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

MASKED = Flag("black_box_beats_white_box", "warning", "square breaks 9 of 50 examples more.", {"extra": 9})
NOTE = Flag("few_classes", "note", "with 2 classes the DLR loss is not defined.", {"classes": 2})


def verdict(
    n: int = 200, classes: int = 10, wrong: int = 4, broken: tuple[int, ...] = (96, 8), proven: int | None = 12,
    **changes: Any,
) -> Verdict:  # fmt: skip
    """The first `wrong` examples are wrong without attack, the next fell to the first stage, and so on."""
    broken_by = torch.full((n,), -1)
    edges = np.cumsum([0, wrong, *broken])
    for k in range(len(broken) + 1):
        broken_by[edges[k] : edges[k + 1]] = k
    stages, left = [], n - wrong
    for k, count in enumerate(broken, 1):
        stages.append(Stage(f"attack-{k}", f"PGD(steps={k})", left, count, Cost(1000 * k, 600 * k * k, 10 * k, k / 4)))
        left -= count
    held = None if proven is None else torch.arange(n) >= n - proven
    random = torch.Generator().manual_seed(0)
    found = Verdict(
        "fast", Linf("8/255"), (0, 1), 3, tuple(stages), torch.arange(n),
        torch.randint(classes, (n,), generator=random), broken_by, (broken_by >= 0).double(),
        held, "" if proven is None else "alpha-crown",
    )  # fmt: skip
    return replace(found, **changes)


def content(found: Verdict, names: list[str] | None = None, model: str = "my-model") -> dict[str, Any]:
    """verdict.json, as danskin.run.verdict writes it."""
    return {
        "danskin": "0.1.0",
        "model": {"name": model, "hash": "ab12" * 16, "note": "normalizes by itself"},
        "data": {"name": "digits", "examples": len(found.y), "hash": "cd34" * 16,
                 "classes": names or [f"digit {k}" for k in range(int(found.y.max()) + 1)]},
        "settings": {"batch_size": 256, "precision": "model", "channels_last": False, "compile": True},
    } | found.to_dict()  # fmt: skip


def pictures(found: Verdict, shape: tuple[int, ...] = (1, 8, 8), most: int = 8) -> dict[str, np.ndarray]:
    """examples.npz; example 0 of them is changed by 0.03 in one value and by less in the others."""
    rows = torch.nonzero(found.broken_by > 0).squeeze(1)[:most]
    random = np.random.default_rng(0)
    x = random.uniform(0.1, 0.9, (len(rows), *shape)).astype(np.float32)
    delta = random.choice([-0.01, 0, 0.02], x.shape).astype(np.float32)
    delta.reshape(len(rows), -1)[:, 5] = 0.03
    y = found.y[rows].numpy()
    return {"index": found.index[rows].numpy(), "x": x, "adversarial": x + delta, "y": y, "prediction": (y + 1) % 10,
            "broken_by": found.broken_by[rows].numpy()}  # fmt: skip


def fabricate(folder: Path, found: Verdict | None = None, shape: tuple[int, ...] = (1, 8, 8), **more: Any) -> Path:
    """A verdict's folder; `more` goes into verdict.json."""
    folder.mkdir(parents=True)
    found = found or verdict(flags=(MASKED, NOTE))
    more = {"model": "my-model", "names": None} | more
    result = content(found, more.pop("names"), more.pop("model")) | more
    (folder / "verdict.json").write_text(json.dumps(result), encoding="utf-8")
    status = {"state": "finished", "started": "2026-03-01T10:20:00+00:00", "message": "judged"}
    (folder / "status.json").write_text(json.dumps(status), encoding="utf-8")
    environment = {"python": "3.11.7", "cuda": None, "processor": "Abacus 9", "threads": 4, "packages": {"torch": "2"}}
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    (folder / "command.txt").write_text("danskin evaluate --model a:b --suite fast\n", encoding="utf-8")
    if (found.broken_by > 0).any():
        np.savez(folder / "examples.npz", **pictures(found, shape))
    return folder


def check(folder: Path) -> str:
    """The report's text, after all that must hold for every report."""
    assert write_verdict_report(folder) == folder / "report.html"
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not list(folder.glob(".*")) and not list((folder / "figures").glob(".*"))
    assert not re.search(r"https?://", re.sub(r'xmlns(:\w+)?="[^"]*"', "", html))
    shown = re.sub(r"<pre>.*?</pre>", "", html, flags=re.S)  # attacks print with their defaults
    assert "{{" not in shown and "None" not in shown and not re.search(r"\bnan\b", shown)
    for width in re.findall(r"(?:width|left): ([\d.e+-]+)%", html):
        assert 0 <= float(width) <= 100
    return parsed(html).text


def parsed(html: str) -> Checker:
    """Checked; pixels may hold "//" by chance. Blocks are kept apart by a space."""
    html = re.sub(r"(data:image/png;base64,)[\w+/=]+", r"\1", html)
    return Checker(re.sub(r"(</(?:div|td|th|li|p|small|dt|dd|summary)>)", r"\1 ", html))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate(tmp_path_factory.mktemp("verdicts") / "judged")


@pytest.fixture
def folder(judged: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(judged, tmp_path / "judged", ignore=shutil.ignore_patterns("figures", "report.html")))


def edit(folder: Path, **changes: Any) -> None:
    """Change verdict.json."""
    path = folder / "verdict.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_a_whole_verdict(judged: Path) -> None:
    text = check(judged)
    for words in (
        "my-model: how robust is it?", "finished 2026-03-01 10:20 UTC",
        "certified, at least 6.00 % 12 of 200 95 % interval 3.5–10.2 %",
        "robust accuracy: quote this 46.00 % 92 of 200 95 % interval 39.2–52.9 %",
        "clean accuracy 98.00 % 196 of 200",
        "12 proven: no perturbation breaks them 80 withstood every attack, not proven 104 broken by an attack "
        "4 wrong without attack",
        "the true robust accuracy lies between 6.00 % (proven) and 46.00 % (what the attacks left)",
        "46.00 % robust accuracy (92 of 200, 95 % interval 39.2–52.9 %) on digits, ℓ∞ ε = 8/255, suite fast of danskin "
        "0.1.0, seed 3; clean 98.00 %; certified at least 6.00 % (alpha-crown).",
        "1 warning: read it before you quote the number",
        "change every input value by at most 8/255 (= 0.03137) (ℓ∞ ball), with all values staying in [0, 1]? Asked on "
        "200 examples from the test set of digits (10 classes) with danskin's fast suite",
        "⚠ Black box beats white box square breaks 9 of 50 examples more.", "Few classes: with 2 classes",
        "no attack 200 4 98.00 % 196 of 200 · 95.0–99.2 % – – – – –",
        "attack-1 196 96 50.00 % 100 of 200 · 43.1–56.9 % 1 000 600 10 0.2 s 24.4 %",
        "attack-2 100 8 46.00 % 92 of 200 · 39.2–52.9 % 2 000 2 400 20 0.5 s 75.6 %",
        "in all 3 000 3 000 30 0.8 s per example 15.0 15.0 – 3.75 ms",
        "On Abacus 9 (4 threads), 4 000 forwards a second",
        "not AutoAttack", "± 6.8 points", "upper bound", "lower bound",
        "my-model ab12ab12ab12…", "digits, 200 examples cd34cd34cd34…", "compile yes", "normalizes by itself",
        "danskin evaluate --model a:b --suite fast", 'evaluate(model, (x, y), Linf("8/255"), "fast", seed=3)',
        "attack-2 PGD(steps=2)",
    ):  # fmt: skip
        assert words in text, words
    assert "Left out" not in text and "random" not in text.split("not say")[1].split("Setup")[0]
    assert {p.name for p in (judged / "figures").iterdir()} == {"broken-by.svg", "per-class.svg"}
    html = (judged / "report.html").read_text(encoding="utf-8")
    assert f'title="{"ab12" * 16}"' in html and f'title="{"cd34" * 16}"' in html


def test_numbers_lie_where_they_belong(judged: Path) -> None:
    html = (judged / "report.html").read_text(encoding="utf-8")
    stack = re.findall(r'<i class="(\w+)" style="width: ([\d.]+)%"></i>', html)
    assert stack == [("proven", "6"), ("standing", "40"), ("broken", "52"), ("wrong", "2")]
    low, high = (100 * v for v in Share(92, 200).interval)
    assert f"top: .75rem; left: {low:.2f}%; width: {high - low:.2f}%" in html
    assert html.index('id="number"') < html.index('id="asked"') < html.index('id="flags"') < html.index('id="attacks"')
    assert html.index('id="classes"') < html.index('id="examples"') < html.index('id="cost"')
    assert html.index('id="limits"') < html.index('id="setup"')


def test_the_worst_class_is_named_and_marked(judged: Path) -> None:
    result = json.loads((judged / "verdict.json").read_text(encoding="utf-8"))
    worst = min(result["per_class"], key=lambda row: row["robust"]["value"])
    text, html = check(judged), (judged / "report.html").read_text(encoding="utf-8")
    share = worst["robust"]
    assert f"Worst is digit {worst['class']} with {100 * share['value']:.2f} % robust accuracy" in text
    assert f"({share['hits']} of {share['n']})" in text and html.count('class="least"') == 1
    mean = np.mean([row["robust"]["value"] for row in result["per_class"]])
    assert f"The mean over the 10 classes is {100 * mean:.2f} %" in text
    assert "With as few as" in text  # a class of 14 examples says little


def pixels(picture: str) -> np.ndarray:
    """A gray PNG of 8 x 8 pixels without filters."""
    data = base64.b64decode(picture)
    start = data.index(b"IDAT") + 4
    return np.frombuffer(zlib.decompressobj().decompress(data[start:]), np.uint8).reshape(8, 9)[:, 1:].astype(float)


def test_pictures_before_and_after(folder: Path) -> None:
    text = check(folder)
    found = verdict()
    assert (
        f"✓ digit {found.y[4]} × 16.7 ✗ digit {(int(found.y[4]) + 1) % 10} no. 4, broken by attack-1; size 0.03" in text
    )
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert html.count('<img src="data:image/png;base64,') == 3 * 8 and '<ul class="examples small-images">' in html
    arrays = dict(np.load(folder / "examples.npz"))
    before, change, after = (pixels(p) for p in re.findall(r'<img src="data:image/png;base64,([^"]*)', html)[:3])
    x, adversarial = arrays["x"][0, 0], arrays["adversarial"][0, 0]
    np.testing.assert_allclose(before / 255, x, atol=0.51 / 255)
    np.testing.assert_allclose(after / 255, adversarial, atol=0.51 / 255)
    np.testing.assert_allclose(change / 255, 0.5 + (adversarial - x) / 0.06, atol=0.51 / 255)
    assert change[0, 5] == 255  # the largest change, upwards
    arrays["adversarial"][0] = arrays["x"][0]
    np.savez(folder / "examples.npz", **arrays)
    assert "no change" in check(folder)


@pytest.mark.parametrize(("norm", "size"), [("linf", "0.03"), ("l1", "0.07"), ("l2", "0.05")])
def test_size_of_a_change_in_its_norm(folder: Path, norm: str, size: str) -> None:
    edit(folder, norm=norm)
    arrays = {k: v[:1] for k, v in np.load(folder / "examples.npz").items()}
    x = np.full((1, 1, 8, 8), 0.5)
    delta = np.zeros(64)
    delta[[3, 40]] = 0.03, -0.04
    delta = delta if norm != "linf" else delta / 4 * 3
    arrays |= {"x": x, "adversarial": x + delta.reshape(x.shape)}
    np.savez(folder / "examples.npz", **arrays)
    assert f"no. 4, broken by attack-1; size {size} " in check(folder)


def test_large_pictures_do_not_make_a_page_that_cannot_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_report, "_BYTES", 3 * 3 * 3 * 70 * 70)
    folder = fabricate(tmp_path / "large", shape=(3, 70, 70))
    assert "5 more are in examples.npz" in check(folder)
    assert "small-images" not in (folder / "report.html").read_text(encoding="utf-8").split("</style>")[1]


def test_vectors_are_a_table(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "vectors", shape=(20,))
    text, arrays = check(folder), np.load(folder / "examples.npz")
    x, adversarial = arrays["x"][0].astype(float), arrays["adversarial"][0].astype(float)
    assert "The inputs are not pictures (shape 20)" in text and "data:image" not in (folder / "report.html").read_text()
    row = f"{(x != adversarial).sum()} of 20 no. 5: {x[5]:.4g} to {adversarial[5]:.4g}"
    assert f"attack-1 0.03 {row}" in text


def test_two_classes_without_certificate(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "two", verdict(classes=2, proven=None), names=["good", "bad"])
    text = check(folder)
    assert "no certificates, so nothing is proven" in text and "certified at least" not in text
    assert "lies between 0 % and 46.00 %" in text and "92 withstood every attack 104 broken" in text
    assert "The mean over the 2 classes" in text and "✓ bad" in text


def test_a_hundred_classes_show_their_ends(tmp_path: Path) -> None:
    found = verdict(n=2000, classes=100, wrong=300, broken=(900, 40))
    folder = fabricate(tmp_path / "hundred", found, names=[f"class of things {k}" for k in range(100)])
    text = check(folder)
    for words in ("All 100 classes", "The ten classes with the least", "The 12 classes with the least", "by number"):
        assert words in text
    first, rest = (folder / "report.html").read_text(encoding="utf-8").split("All 100 classes")
    assert first.split('id="classes"')[1].count("<tr") == 1 + 13 and rest.count("class of things") >= 100
    values = [row["robust"]["value"] for row in content(found)["per_class"]]
    order = sorted(range(100), key=lambda k: values[k])
    shown = [int(k) for k in re.findall(r"class of things (\d+)", first.split("<tbody>")[2])]
    assert [values[k] for k in shown[:13]] == [values[k] for k in [*order[:10], *order[-3:]]]


def test_one_example(tmp_path: Path) -> None:
    text = check(fabricate(tmp_path / "one", verdict(n=1, wrong=0, broken=(0, 0), proven=1)))
    assert "1 of 1 95 % interval 20.7–100.0 %" in text and "picking one example," in text
    assert "All examples are of one class" in text and "no attack broke anything" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"wrong": 2, "broken": (0, 0), "proven": None}, "Nothing to show: no attack broke anything"),
        ({"wrong": 0, "broken": (200, 0), "proven": 0}, "All classes have the same robust accuracy, 0.00 %"),
        ({"wrong": 200, "broken": (0, 0), "proven": None}, "nothing was right without attack, so nothing was attacked"),
    ],
)
def test_nothing_and_everything_broken(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in check(fabricate(tmp_path / "extreme", verdict(**changes)))


def test_a_random_model_has_an_expected_accuracy(tmp_path: Path) -> None:
    probability = (verdict().broken_by >= 0).double() * 0.5
    text = check(fabricate(tmp_path / "random", verdict(suite="rand", probability=probability)))
    assert "right in the mean over draws at the worst points found: 73.00 %" in text
    assert "in the mean over draws 73.00 % are right (expected robust accuracy)" in text
    quiet = replace(MASKED, name="random")
    assert "The model is random" in check(fabricate(tmp_path / "flagged", verdict(flags=(quiet,))))


def test_what_was_not_run_is_said(tmp_path: Path) -> None:
    found = verdict(broken=(96, 0))
    why = "left out: inputs of shape (20,) are not images"
    stages = (found.stages[0], replace(found.stages[1], left_out=why, seen=0, cost=Cost()))
    text = check(fabricate(tmp_path / "vectors", replace(found, stages=stages, suite="standard"), shape=(20,)))
    assert f"attack-2 {why}" in text and f"The attack attack-2 was not run ({why}): the suite is not complete" in text
    assert "attack-2" not in (tmp_path / "vectors" / "figures" / "broken-by.svg").read_text(encoding="utf-8")


def test_settings_change_what_is_said(folder: Path) -> None:
    edit(folder, settings={"precision": "bfloat16", "device": "cpu"}, suite="own", flags=[])
    (folder / "environment.json").write_text('{"cuda": "Tensor Maker 9", "processor": "Abacus 9", "threads": 1}')
    text = check(folder)
    assert "Gradients were taken in bfloat16" in text and "attacks of the user's own choice" in text
    assert "On Abacus 9 (1 thread)" in text and "In Python" not in text and "No sign of a fault" in text
    asked = {"grid": 255, "certificate": "auto"}
    edit(folder, settings={"batch_size": 1, "compile": False}, asked=asked, suite="fast")
    text = check(folder)
    assert "On Tensor Maker 9, " in text and "[0, 1], at images of 8 bits only?" in text and "seed=3, grid=255)" in text
    assert "batch size 1 compile no certificate auto grid 255" in text


def test_a_radius_for_each_example(tmp_path: Path) -> None:
    ball = L2(torch.tensor([0.1, 0.2, 0.3, 0.5]))
    text = check(fabricate(tmp_path / "radii", verdict(n=4, wrong=0, broken=(1, 1), proven=1, ball=ball)))
    assert "a Euclidean distance of at most 0.1 to 0.5, one radius per example (ℓ2 ball)" in text


def test_accuracy_against_radius_where_it_is_known(folder: Path) -> None:
    assert "Robust accuracy against the radius" not in check(folder)
    edit(folder, curve=[{"radius": r, "accuracy": Share(h, 50).to_dict()} for r, h in ((0.1, 5), (0, 49), (0.05, 30))])
    text = check(folder)
    assert "98.00 % at 0, 60.00 % at 0.05, 10.00 % at 0.1." in text and "asked: ε = 8/255" in text
    assert "on 50 of the 200 examples" in text and (folder / "figures" / "curve.svg").exists()
    edit(folder, curve=[{"radius": 1}])
    assert "verdict.json does not hold the curve in a form that can be read (KeyError)" in check(folder)


@pytest.mark.parametrize("name", ["verdict.json", "status.json", "environment.json", "command.txt", "examples.npz"])
def test_a_missing_or_torn_file_leaves_its_section_out(folder: Path, name: str) -> None:
    path = folder / name
    whole = path.read_bytes()
    path.unlink()
    text = check(folder)
    if name != "status.json":  # the verdict itself says that it is finished
        assert f"{name} is not there" in text
    if path.suffix in {".json", ".npz"}:
        path.write_bytes(whole[: len(whole) // 2])
        assert name == "status.json" or re.search(f"{name} (is not complete JSON|cannot be read)", check(folder))
    path.write_bytes(b"\xff\xfe\xff")
    check(folder)


@pytest.mark.parametrize("value", ["missing", None, "x", 3, [1], {"a": 1}, [{"name": 1}], float("nan")])
def test_verdicts_that_say_something_else_never_fail(folder: Path, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("broken_by", "per_class"):  # they get what was checked before, and take long
        monkeypatch.setattr(verdict_report.verdict_figures, name, lambda *a, **k: None)
    whole = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
    for key in whole:
        run = verdict_report.read_verdict(folder)
        run.result = {k: v for k, v in whole.items() if k != key}
        run.result |= {} if value == "missing" else {key: value}
        views = verdict_report._views(run)
        html = pages.render("verdict.html.j2", run, views | {"date": ""})
        left_out = [name for name in ("bracket", "asked", "flags", "stages", "classes", "cost") if views[name] is None]
        assert parsed(html).text.count("Left out") >= len(left_out)


def test_an_interrupted_evaluation(folder: Path) -> None:
    (folder / "verdict.json").unlink()
    (folder / "status.json").write_text(
        '{"state": "interrupted", "message": "stopped", "ended": "2026-03-01T10:22:31Z"}'
    )
    text = check(folder)
    assert "interrupted 2026-03-01 10:22 UTC" in text and "Its last word: “stopped”" in text
    assert "the same command with the same folder goes on from there" in text
    assert text.count("Left out") == 1 and "it is written when all attacks are done" in text


def test_while_the_report_is_written_the_state_is_still_running(folder: Path) -> None:
    (folder / "status.json").write_text('{"state": "running", "started": "2026-03-01T10:20:00Z"}')
    assert "finished 2026-03-01 10:20 UTC" in check(folder)


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    names = ["<b>", "&amp;", '"><script>alert(1)</script>', "$x^2$", "]]>", "{{ 7 * 7 }}", "'", "url(x)", "é", "_a"]
    flag = Flag("<i>x", "warning", "<u>y</u>", {"<s>": ["<q>"]})
    found = verdict(flags=(flag,))
    found = replace(found, stages=tuple(replace(s, name=f"<em>{s.name}", attack="<kbd>") for s in found.stages))
    folder = fabricate(tmp_path / "hostile", found, names=names, model='"><img src=x onerror=alert(1)>')
    (folder / "command.txt").write_text("danskin <script>", encoding="utf-8")
    write_verdict_report(folder)
    checker = parsed((folder / "report.html").read_text(encoding="utf-8"))
    assert not checker.seen & {"script", "s", "q", "em", "kbd"}
    for words in ("<script>alert(1)</script>", "{{ 7 * 7 }}", "<u>y</u>", "danskin <script>", '"><img src=x onerror'):
        assert words in checker.text


def test_same_folder_same_bytes(judged: Path, folder: Path) -> None:
    check(judged)
    check(folder)
    for name in ("report.html", "figures/broken-by.svg", "figures/per-class.svg"):
        assert (folder / name).read_bytes() == (judged / name).read_bytes()


def test_every_suite_has_its_words() -> None:
    assert set(SUITES) == set(REAL_SUITES)


def test_not_a_verdict(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(MissingError, match="expected a verdict's folder"):
            write_verdict_report(folder)


def test_missing_extra_names_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingError, match=r"pip install 'danskin\[report\]'"):
        write_verdict_report(folder)


def test_torch_is_not_imported(folder: Path) -> None:
    code = (
        "import sys, pathlib; from danskin.report.verdict import write_verdict_report; "
        "assert 'matplotlib' not in sys.modules and 'jinja2' not in sys.modules; "
        f"write_verdict_report(pathlib.Path({str(folder)!r})); "
        "print([m for m in ('torch', 'matplotlib.pyplot', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_judge_leaves_a_folder_that_reads_well(tmp_path: Path) -> None:
    """The real thing: two attacks on a linear model of the embedded digits, certified."""
    from danskin.data import load
    from danskin.evaluation.fingerprint import model_hash
    from danskin.foreign import Opened
    from danskin.run.runtime import Runtime
    from danskin.run.verdict import Question, judge

    data = load("digits")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    x, y = data.x_train.float().flatten(1), data.y_train
    x = x / x.max()
    means = torch.stack([x[y == k].mean(0) for k in range(10)])  # the nearest mean
    with torch.no_grad():
        model[1].weight.copy_(2 * means)
        model[1].bias.copy_(-(means**2).sum(1))
    question = Question(
        Opened(model, "nearest-mean", model_hash(model), True), data, Linf("0.2"), "fast", n=16, certificate="auto"
    )
    found = judge(question, tmp_path / "verdict", Runtime.start("cpu"))
    assert found is not None
    text = check(tmp_path / "verdict")
    assert "Left out" not in text and "nearest-mean: how robust is it?" in text
    assert f"robust accuracy: quote this {100 * found.robust.value:.2f} % {found.robust.hits} of 16" in text
    assert f"certified, at least {100 * found.certified.value:.2f} %" in text
    assert not (found.certificates & ~found.outcomes).any() and "none here broke an example that is proven" in text
