"""Figures of a GAN run: every image in its place of the grid, every method in its panel."""

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from danskin.report.gan_figures import grid, grids, lines, scatter_of


def test_a_grid_has_every_image_in_its_place_with_lines_between():
    images = np.random.default_rng(0).random((10, 3, 4, 5), dtype=np.float32)
    sheet = grid(images)
    assert sheet.shape == (3, 2 * 5 + 1, 8 * 6 + 1)
    assert (sheet[:, 1:5, 1:6] == images[0]).all() and (sheet[:, 6:10, 7:12] == images[9]).all()
    assert (sheet[:, ::5] == 0.5).all() and (sheet[:, :, ::6] == 0.5).all()
    assert (sheet[:, 6:10, 13:] == 0.5).all()  # no eleventh


def test_looks_side_by_side_are_the_images_themselves_and_titles_are_text():
    images = np.random.default_rng(0).random((2, 1, 4, 4), dtype=np.float32)
    svg = grids({"a < b": images, **{f"look {k}": images for k in range(4)}})
    found = re.findall(r"data:image/png;base64,([^\"]+)", svg)
    assert len(found) == 5 and "a &lt; b" in svg
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[0]))).convert("L")) / 255
    assert np.abs(back - grid(images)[0]).max() <= 0.5 / 255 + 1e-6
    tops = {int(y) for y in re.findall(r'<image x="[0-9]+" y="([0-9]+)"', svg)}
    assert len(tops) == 2  # four in a row


def test_numbers_that_nobody_told_have_no_curve():
    events = [{"step": k, "w1": 1.0 / (k + 1), "certified": None} for k in range(3)]
    assert lines(events, {"certified": "proved"}, "W1") is None and lines([], {"w1": "W1"}, "W1") is None
    assert "<svg" in (lines(events, {"w1": "W1", "certified": "proved"}, "W1", dashed=("certified",)) or "")


def test_points_of_one_sample_share_their_style_and_are_where_they_belong():
    real = np.array([[0.0, 0.0], [1.0, 1.0]], dtype=np.float32)
    samples = np.array([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]], dtype=np.float32)
    root = ElementTree.fromstring(scatter_of({"a": samples}, real))
    name = "{http://www.w3.org/2000/svg}"
    groups = [g for g in root.iter(f"{name}g") if g.get("clip-path") and g.find(f"{name}use") is not None]
    assert [len(g) for g in groups] == [2, 3] and len({g.get("style") for g in groups}) == 2
    assert all("fill" in g.get("style") and use.get("style") is None for g in groups for use in g)
    (first, last), found = ([(float(u.get("x")), float(u.get("y"))) for u in g] for g in groups)
    middle = [(a + b) / 2 for a, b in zip(first, last, strict=True)]
    assert found[0] == first and found[2] == last and np.allclose(found[1], middle, atol=0.1)
