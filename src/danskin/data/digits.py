"""The built-in image set: scikit-learn's 8x8 digits with a fixed, balanced test part."""

from __future__ import annotations

import numpy as np
import torch

from danskin.data.dataset import Arrays, Dataset, from_arrays
from danskin.data.registry import DATASETS
from danskin.errors import MissingError

TEST_PER_CLASS = 36


def digits() -> Dataset:
    """1,437 training and 360 test images (36 per class); values 0..16 become round(255 v / 16).

    The split is a seeded permutation per class; both parts keep the order of the source.

    Raises:
        MissingError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingError("the digits need scikit-learn", "pip install 'danskin[data]'") from error
    source = load_digits()
    images = np.round(source.images * (255 / 16)).astype(np.uint8)
    labels = source.target.astype(np.int64)
    g = torch.Generator().manual_seed(0)
    test = np.zeros(len(labels), dtype=bool)
    for k in range(10):
        members = np.flatnonzero(labels == k)
        test[members[torch.randperm(len(members), generator=g)[:TEST_PER_CLASS].numpy()]] = True
    arrays = Arrays(images[~test], labels[~test], images[test], labels[test])
    return from_arrays("digits", arrays, DATASETS["digits"].classes)
