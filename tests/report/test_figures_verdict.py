"""The verdict's figures: valid SVG, the numbers they were given, the same bytes twice, colours of the page."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from danskin.metrics import Share
from danskin.report import verdict_figures as draw
from danskin.report.drawing import VARIABLES, WRONG, Drawn, colors

COLOR = colors(["adversarial", "standard"])


def row(hits, n=200):
    share = Share(hits, n)
    return {"hits": hits, "n": n, "value": share.value, "interval": list(share.interval) if n else [0, 1]}


def curve(*hits):
    return [{"radius": k / 10, "accuracy": row(h)} for k, h in enumerate(hits)]


def texts(svg):
    return ["".join(e.itertext()) for e in ET.fromstring(svg).iter() if e.tag.endswith("}text")]


def all_figures():
    random = np.random.default_rng(0)
    images = random.random((3, 1, 8, 8))
    stages = [("clean", row(190)), ("FGSM linf 0.1", row(150)), ("PGD-20x2 linf 0.1", row(90)), ("Square", row(88))]
    classes = {"clean": [row(90, 100), row(99, 100), row(0, 0)], "robust": [row(20, 100), row(70, 100), row(0, 0)]}
    spread = {"distances": random.random(60), "losses": 3 + random.random((6, 4)), "clean": random.random(4)}
    return {
        "curve": draw.verdict_curve(
            {"adversarial": curve(180, 150, 100), "standard": curve(190, 20, 0)}, "linf", COLOR,
            certified={"adversarial": curve(180, 90, 10)}, mark=(0.1, "trained with ε = 0.1"),
        ),
        "broken": draw.broken_by({"adversarial": stages, "standard": stages[:2]}, COLOR),
        "classes": draw.per_class({"adversarial": classes}, ["cat", "dog"], COLOR),
        "unique": draw.not_unique({"adversarial": spread}, 3.2, COLOR),
        "dimension": draw.against_dimension(
            {"bound": [(2, 0.1), (1000, 1.0)]}, {"half-space": [(10, row(120))], "net": [(10, row(130))]}, "share"
        ),
        "saliency": draw.saliency_grid(
            images, ["cat", "dog", "cat"], {"adversarial": images - 0.5}, {"adversarial": [1.5, 2.25, np.nan]}, COLOR
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def drawn():
    return all_figures()


def test_every_figure_is_one_svg_that_stands_alone_and_inline(drawn):
    for name, svg in drawn.items():
        ET.fromstring(svg)
        assert "mathdefault" not in svg and "<style" not in svg, name
        inline = Drawn(name, svg, name, "words", "caption").inline()
        page = ET.fromstring(f"<div>{inline}</div>")
        assert "var(--ink)" in inline and page[0].attrib["role"] == "img", name
        left = set(re.findall("#[0-9a-f]{6}", " ".join(re.findall(r'style="([^"]*)"', inline)))) & set(VARIABLES)
        assert not left, name  # dark mode reaches every colour


def test_the_same_data_give_the_same_bytes(drawn):
    assert all_figures() == drawn


def test_curve_tells_attacked_and_certified_apart(drawn):
    words = texts(drawn["curve"])
    assert {"adversarial, attacked", "adversarial, certified", "standard, attacked"} <= set(words)
    assert "trained with ε = 0.1" in words and "radius ε (ℓ∞)" in words
    plain = draw.verdict_curve({"adversarial": curve(180, 150)}, "l2", COLOR)
    assert "adversarial" in texts(plain) and "certified" not in plain
    assert draw.verdict_curve({"adversarial": []}, "l2", COLOR) is None


def test_bars_say_what_each_attack_took(drawn):
    words = " | ".join(texts(drawn["broken"]))
    for text in ("95.0 %", "75.0 %  (−20.0)", "45.0 %  (−30.0)", "44.0 %  (−1.0)", "adversarial model", "Square"):
        assert text in words
    many = [("clean", row(190)), *((f"attack {k}", row(189 - k)) for k in range(20))]
    shown = texts(draw.broken_by({"adversarial": many}, COLOR, most=5))
    assert "attack 0" in shown and "attack 19" in shown and "attack 9" not in shown
    assert draw.broken_by({"adversarial": [("clean", row(0, 0))]}, COLOR) is None


def test_the_worst_class_is_marked(drawn):
    assert "adversarial: worst cat, 20.0 %" in texts(drawn["classes"])
    assert drawn["classes"].count(f"fill: {WRONG}") == 2  # its bar and its name
    none = {"clean": [row(0, 0)], "robust": [row(0, 0)]}
    assert draw.per_class({"adversarial": none}, [], COLOR) is None


def test_saliency_has_a_number_per_image(drawn):
    words = texts(drawn["saliency"])
    assert {"1.5", "2.25", "–", "cat", "dog", "alignment", "adversarial model"} <= set(words)
    assert drawn["saliency"].count("data:image/png") == 6


def test_dimension_axis_is_written_in_numbers(drawn):
    assert {"10", "100", "bound", "half-space", "dimension"} <= set(texts(drawn["dimension"]))
