"""Data sets in memory: built-in ones, readers of the published formats, batches and augmentation."""

from danskin.data.augment import crop_flip, draw_crop_flip
from danskin.data.batches import batch_indices
from danskin.data.dataset import Dataset, to_float
from danskin.data.fetching import download
from danskin.data.files import data_folder
from danskin.data.folder import load_folder
from danskin.data.loading import load
from danskin.data.npz import load_npz
from danskin.data.registry import DATASETS, DatasetInfo
from danskin.data.toys import (
    SUPPORTS,
    Support,
    blobs,
    circles,
    gaussians_8,
    gaussians_25,
    spirals,
    swiss_roll,
    two_moons,
)

__all__ = [
    "DATASETS",
    "SUPPORTS",
    "Dataset",
    "DatasetInfo",
    "Support",
    "batch_indices",
    "blobs",
    "circles",
    "crop_flip",
    "data_folder",
    "download",
    "draw_crop_flip",
    "gaussians_8",
    "gaussians_25",
    "load",
    "load_folder",
    "load_npz",
    "spirals",
    "swiss_roll",
    "to_float",
    "two_moons",
]
