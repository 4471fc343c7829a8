"""The report of a run, from fabricated run folders."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from danskin.errors import MissingError
from danskin.metrics import wilson
from danskin.report.training import markdown_table, read_events, table_rows, write_report

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

LINF = "{kind}(ball=Linf(radius=0.15), loss='cross_entropy', box=(0, 1), batchnorm='as_is', precision='model'{more})"
CONFIG = """name: digits
objectives: [standard, adversarial]
attack:
  name: pgd
  ball: {name: linf, radius: 0.15}
  steps: 7
  keep: last
note: "<script>alert(1)</script>"
"""


def share(value: float, n: int = 360) -> dict:
    hits = round(value * n)
    return {"hits": hits, "n": n, "value": hits / n, "interval": list(wilson(hits, n))}


def model(clean: float, fgsm: float, pgd: float, fall: float, overfitted: int | None = None) -> dict:
    attacks = {}
    for name, kind, value, passes in (("FGSM", "FGSM", fgsm, 1), ("PGD-20x2", "PGD", pgd, 31)):
        attacks[f"{name} linf 0.15"] = {
            "attack": LINF.format(kind=kind, more=", steps=20, restarts=2" if kind == "PGD" else ""),
            "accuracy": share(value),
            "cost": {"forwards": 360 * passes, "backwards": 350 * passes, "calls": 2 * passes, "seconds": passes / 12},
        }
    radii = [0.15 * f for f in (0, 0.25, 0.5, 0.75, 1, 1.5, 2)]
    curve = [{"radius": r, "accuracy": share(clean / (1 + np.exp((r - fall) * 30)), 200)} for r in radii]
    curve[0]["accuracy"] = share(clean, 200)
    return {
        "clean": share(clean), "attacks": attacks, "worst_case": share(pgd), "curve": curve,
        "curve_norm": "linf", "curve_attack": "PGD(...)",
        "overfitted": overfitted, "epochs": 60, "best_epoch": 52, "train_seconds": 71.3, "parameters": 74954,
    }  # fmt: skip


def events(label: str, rate: float, robust: float | None, overfit: bool = False) -> list[dict]:
    rng, out = np.random.default_rng(len(label)), []
    for epoch in range(1, 61):
        step = epoch * 19
        out.append({"event": "step", "model": label, "step": step, "of": 1140, "loss": 2.3 / epoch, "lr": 0.1})
        rise = 1 - np.exp(-epoch * rate)
        out.append({
            "event": "epoch", "model": label, "epoch": epoch, "step": step, "validation_examples": 200, "seconds": 0.6,
            "train_loss": 2.3 * np.exp(-epoch * rate) + 0.1 + 0.02 * rng.random(), "clean": 0.1 + 0.87 * rise,
            "robust": None if robust is None else 0.1 + (robust - 0.1) * rise + 0.02 * rng.random(),
        })  # fmt: skip
        late = overfit and step > 700
        fgsm, pgd = (0.95, 0.02) if late else (0.75 * rise, 0.72 * rise)
        if robust is not None:
            out.append({"event": "watch", "model": label, "step": step, "fgsm": fgsm, "pgd": pgd})
        if late and epoch == 37:
            out.append({"event": "catastrophic_overfitting", "model": label, "step": step, "fgsm": fgsm, "pgd": pgd})
    return out


def pictures(models: tuple[str, ...]) -> dict[str, np.ndarray]:
    datasets = pytest.importorskip("sklearn.datasets")
    digits, rng = datasets.load_digits(), np.random.default_rng(0)
    x = (digits.images[:6, None] / 16).astype(np.float32)
    y = digits.target[:6]
    out = {"x": x, "y": y}
    for m in models:
        out[f"pred/{m}/clean"] = y
        for norm, radius in (("linf", 0.15), ("l2", 1.0), ("l1", 4.0)):
            noise = rng.normal(size=x.shape).astype(np.float32)
            if norm == "linf":
                delta = radius * np.sign(noise)
            elif norm == "l2":
                delta = radius * noise / np.sqrt((noise**2).sum((1, 2, 3), keepdims=True))
            else:
                top = np.abs(noise).reshape(6, -1).argsort(1)[:, -5:]
                delta = np.zeros_like(noise).reshape(6, -1)
                np.put_along_axis(delta, top, np.take_along_axis(np.sign(noise).reshape(6, -1), top, 1) * radius / 5, 1)
                delta = delta.reshape(x.shape)
            adv = np.clip(x + delta, 0, 1)
            wrong = np.arange(6) < (5 if m == "standard" else 1)
            out |= {f"adv/{m}/{norm}": adv, f"pred/{m}/{norm}": np.where(wrong, (y + 3) % 10, y)}
            out[f"radius/{norm}"] = np.asarray(radius)
    return out


def fabricate(folder: Path, classes: list[str] | None = None) -> Path:
    """A whole run, as `danskin train` would leave it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    (folder / "command.txt").write_text("danskin train digits seed=0\n", encoding="utf-8")
    environment = {"python": "3.11.7", "cuda": None, "packages": {"torch": "2.13.0+cpu", "numpy": "2.4.6"}}
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    started, ended = "2026-03-01T10:20:00+00:00", "2026-03-01T10:22:31+00:00"
    status = {"state": "finished", "message": "done", "started": started, "ended": ended, "pid": 1}
    (folder / "status.json").write_text(json.dumps(status), encoding="utf-8")
    lines = events("standard", 0.16, None) + events("adversarial", 0.07, 0.78)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in lines), encoding="utf-8")
    data = {"name": "digits", "test": 360, "sha256": "ab12" * 16, "classes": classes or [str(i) for i in range(10)]}
    models = {"standard": model(0.975, 0.21, 0.036, 0.07), "adversarial": model(0.953, 0.822, 0.8, 0.22)}
    result = {"danskin": "0.1.0", "seed": 0, "data": data, "models": models}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    np.savez(folder / "examples.npz", **pictures(("standard", "adversarial")))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fabricate(tmp_path_factory.mktemp("runs") / "finished")
    write_report(folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("figures", "report.html")))


class Checker(HTMLParser):
    """Balanced tags, unique ids, no broken references, no scripts, no outside resources."""

    VOID = frozenset({"meta", "br", "img", "hr", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: set[str] = set()
        self.words: list[str] = []
        self.seen: set[str] = set()
        self.feed(text)
        self.close()
        assert not self.open
        assert len(set(self.ids)) == len(self.ids)
        assert self.references <= set(self.ids)
        assert not self.seen & {"script", "link", "iframe", "object", "embed", "base", "form"}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for key, value in attrs:
            value = value or ""
            assert not key.startswith("on")
            if key == "id":
                self.ids.append(value)
            if key in {"href", "src", "xlink:href"}:
                assert value.startswith(("#", "data:image/png;base64,")), value
            if not key.startswith("xmlns"):
                assert "//" not in value.removeprefix("data:image/png;base64,") or key == "href", (key, value)
            if key == "href" and value.startswith("#"):
                self.references.add(value[1:])
            self.references |= set(re.findall(r"url\(#([^)]*)\)", value))
            self.references |= set(value.split()) if key == "aria-labelledby" else set()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def check(folder: Path) -> str:
    """The report's text, after all that must hold for every report."""
    assert write_report(folder) == folder / "report.html"
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not list(folder.glob(".*")) and not list((folder / "figures").glob(".*"))
    assert not re.search(r"https?://", re.sub(r'xmlns(:\w+)?="[^"]*"', "", html))
    assert "{{" not in html and "None" not in html and " nan" not in html
    return Checker(html).text


def test_finished_run(finished: Path) -> None:
    text = check(finished)
    for words in (
        "finished", "2026-03-01 10:20 UTC", "took 3 min", "digits: how robust is it?",
        "The standard model is right on 97.50 % of the 360 test examples of digits and on 3.61 % under attack",
        "change every input value by at most 0.15 (ℓ∞ ball, ε = 0.15); input values lie between 0 and 1",
        "share of all test examples that a model gets right on the clean input and under every attack",
        "288 of 360", "trained with ε = 0.15", "contrast × 3.33", "Attacks in the ℓ1 ball, ε = 4", "2.13.0+cpu",
        "standard errs on 5 of 6; adversarial errs on 1 of 6", "danskin train digits seed=0", "11 160",
    ):  # fmt: skip
        assert words in text, words
    assert "Left out" not in text and "Catastrophic overfitting:" not in text
    names = {p.name for p in (finished / "figures").iterdir()}
    assert names == {f"{n}.svg" for n in (
        "training-loss", "validation-accuracy", "watch-1", "accuracy-radius",
        "pictures-linf", "pictures-l2", "pictures-l1",
    )}  # fmt: skip
    assert (finished / "report.html").stat().st_size < 500_000


def test_figures_are_whole_svg_files(finished: Path) -> None:
    from xml.etree import ElementTree

    for path in (finished / "figures").iterdir():
        text = path.read_text(encoding="utf-8")
        assert ElementTree.fromstring(text.encode()).tag == "{http://www.w3.org/2000/svg}svg"
        assert "DOCTYPE" not in text and "var(--" not in text and len(text) < 100_000, path.name
    assert "trained with ε = 0.15" in (finished / "figures" / "accuracy-radius.svg").read_text(encoding="utf-8")


def test_same_run_same_bytes(finished: Path, run: Path) -> None:
    again = run.rename(run.parent / "finished")
    write_report(again)
    for name in ("report.html", *(f"figures/{p.name}" for p in (finished / "figures").iterdir())):
        assert (again / name).read_bytes() == (finished / name).read_bytes(), name


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    names = ["<b>", "&amp;", '"><script>alert(1)</script>', "$x^2$", "]]>", "{{ 7 * 7 }}", "'", "url(#x)", "é", "🐢"]
    folder = fabricate(tmp_path / "<i>run", classes=names)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    result["data"]["name"] = "<img src=x onerror=alert(1)>"
    for old, new in (("standard", "_<u>$\\frac$"), ("adversarial", 'a"|b')):
        result["models"][new] = result["models"].pop(old)
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    lines = [e | {"model": '<svg id="x">'} for e in events("adversarial", 0.1, 0.7)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in lines), encoding="utf-8")
    write_report(folder)
    html = (folder / "report.html").read_text(encoding="utf-8")
    checker = Checker(html)
    assert not checker.seen & {"u", "script", "img"}
    assert "<u>" in checker.text and "<img src=x onerror=alert(1)>" in checker.text and "✓ <b>" in checker.text
    assert "<script>alert(1)</script>" in checker.text and "{{ 7 * 7 }}" in checker.text
    assert 'a\\"|b' not in html and 'a"\\|b' in markdown_table(result)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.yaml", "config.yaml is not there"),
        ("command.txt", "command.txt is not there"),
        ("environment.json", "environment.json is not there"),
        ("status.json", "It is not known how the run ended: status.json is not there"),
        ("metrics.jsonl", "metrics.jsonl is not there"),
        ("result.json", "result.json is not there; it is written when the models have been evaluated"),
        ("examples.npz", "examples.npz is not there"),
    ],
)
def test_a_missing_or_torn_file_leaves_its_section_out(run: Path, name: str, words: str) -> None:
    path = run / name
    content = path.read_bytes()
    path.unlink()
    assert words in check(run)
    if path.suffix in {".json", ".npz"}:
        path.write_bytes(content[: len(content) // 2])
        assert re.search(rf"{name} (is not complete JSON|cannot be read)", check(run))
    path.write_bytes(b"\xff\xfe\xff")
    check(run)


def test_running_run_before_its_first_epoch(run: Path) -> None:
    for name in ("result.json", "examples.npz"):
        (run / name).unlink()
    status = {"state": "running", "message": "training adversarial", "started": "2026-03-01T10:20:00Z", "ended": None}
    (run / "status.json").write_text(json.dumps(status), encoding="utf-8")
    steps = [{"event": "step", "model": "adversarial", "step": i, "of": 400, "loss": 2.3 - i / 50} for i in range(13)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in steps), encoding="utf-8")
    text = check(run)
    assert "had not finished" in text and "adversarial: step 12 of 400." in text and "training adversarial" in text
    assert "Validation accuracy appears when the first epoch has ended" in text
    assert text.count("Left out") == 4


def test_catastrophic_overfitting_is_announced(run: Path) -> None:
    lines = events("adversarial", 0.07, 0.78, overfit=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in lines), encoding="utf-8")
    text = check(run)
    assert "Catastrophic overfitting: adversarial model, step 703." in text
    assert "95.0 % under FGSM, but 2.0 % under PGD" in text
    assert "overfitted, step 703" in text
    (run / "metrics.jsonl").unlink()  # the result alone knows the step
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    result["models"]["adversarial"]["overfitted"] = 703
    (run / "result.json").write_text(json.dumps(result), encoding="utf-8")
    assert "Catastrophic overfitting: adversarial model, step 703." in check(run)


def test_vector_data_have_no_pictures(run: Path) -> None:
    with np.load(run / "examples.npz") as file:
        flat = {k: v.reshape(len(v), -1) if v.ndim == 4 else v for k, v in file.items()}
    np.savez(run / "examples.npz", **flat)
    assert "examples of shape (6, 64) are not images" in check(run)


def test_color_images_and_other_data_boxes(run: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((2, 3, 32, 32)).astype(np.float32)
    arrays = {"x": x, "y": np.array([1, 12]), "adv/adversarial/l2": x, "pred/adversarial/l2": np.array([1, 2])}
    np.savez(run / "examples.npz", **arrays)
    text = check(run)
    assert "no change" in text and "✗ 2" in text and "12" in text  # 12 has no name


def test_repeated_and_torn_metrics_lines() -> None:
    lines = [
        {"event": "step", "model": "a", "step": 1, "loss": 9.0},
        {"event": "step", "model": "a", "step": 2, "loss": 8.0},
        {"event": "step", "model": "b", "step": 1, "loss": 7.0},
        {"event": "step", "model": "a", "step": 1, "loss": 1.0},  # after a resume
        {"event": "evaluate", "model": "a"},
        ["not", "an", "event"],
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n\n{"event": "step", "model": "a", "st'
    found = read_events(text)
    assert [(e["model"], e["step"], e["loss"]) for e in found] == [("a", 1, 1.0), ("a", 2, 8.0), ("b", 1, 7.0)]


def test_table_rows_and_markdown() -> None:
    result = {"models": {
        "standard": {"clean": share(0.9194), "attacks": {"FGSM": {"accuracy": share(0.5)}}, "worst_case": share(0.5)},
        "other": {"clean": {"hits": 0, "n": 0, "value": None}, "attacks": {"PGD": {"accuracy": share(0)}}},
    }}  # fmt: skip
    header, rows = table_rows(result)
    assert header == ["model", "clean", "FGSM", "PGD", "worst case"]
    assert rows[0] == ["standard", "91.94 % (331/360)", "50.00 % (180/360)", "–", "50.00 % (180/360)"]
    assert rows[1] == ["other", "–", "–", "0.00 % (0/360)", "–"]
    assert markdown_table(result).splitlines()[1] == "| --- | ---: | ---: | ---: | ---: |"
    assert table_rows({}) == (["model", "clean", "worst case"], [])


def test_not_a_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(MissingError, match="expected a run folder"):
            write_report(folder)
    assert not list(tmp_path.iterdir())


def test_missing_extra_names_the_command(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingError, match=r"pip install 'danskin\[report\]'"):
        write_report(run)


def test_neither_torch_nor_pyplot_is_imported(run: Path) -> None:
    code = (
        "import sys, pathlib; from danskin.report.training import write_report; "
        "assert 'matplotlib' not in sys.modules and 'jinja2' not in sys.modules; "
        f"write_report(pathlib.Path({str(run)!r})); "
        "print([m for m in ('torch', 'matplotlib.pyplot', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
