"""What row E4 will cost, before it is started: a few steps of each critic are timed."""

from __future__ import annotations

import time

from danskin.critics import samples
from danskin.recipes.e4.cells import dual, pair
from danskin.recipes.sampling_study import Sampling

_TIMED = 5


def estimate(study: Sampling) -> str:
    """The work in words; exact distances and certificates come on top, a second or two each."""
    seconds = 0.0
    for methods in study.cases.values():
        for settings in methods.values():
            if "linear" in settings:
                x, y = pair(settings["problem"], settings["n"], 0)
                way = dual({**settings, "steps": _TIMED}, x.shape[1], 0)
                started = time.perf_counter()
                way.ascent(way.critic, x, y, samples(x, y))
                seconds += settings["steps"] / _TIMED * (time.perf_counter() - started)
    return f"{len(list(study.tasks()))} cells, about {seconds * study.seeds / 60:.1f} min of training"
