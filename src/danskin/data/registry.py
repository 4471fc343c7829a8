"""The named data sets: what they are, where they come from, and how to tell the genuine article."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """Numbers that the canonical content of a set must show.

    Args:
        shape: numbers of training and of test images.
        train_rows: how many leading training images `train_sum` covers.
        train_sum: sum of all pixels of those images.
        test_sum: sum of all pixels of the test images.
        y_train: the first ten training labels.
        y_test: the first ten test labels.
    """

    shape: tuple[int, int]
    train_rows: int
    train_sum: int
    test_sum: int
    y_train: tuple[int, ...]
    y_test: tuple[int, ...]


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about a named data set before reading it.

    Args:
        name: the name that `load` takes.
        description: one line.
        shape: shape of one example, (C, H, W) or (d,).
        classes: class names in label order.
        source: who made it, and its licence.
        sha256: `Dataset.sha256` of the complete canonical set, where known.
        sha256_test: `Dataset.sha256_test` of the canonical test part, where known.
        openml: OpenML data id, for sets that `download` can fetch.
        check: numbers that the canonical content must show, where known.
    """

    name: str
    description: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    source: str
    sha256: str | None = None
    sha256_test: str | None = None
    openml: int | None = None
    check: Check | None = None


_DIGITS = tuple(str(d) for d in range(10))
_OWN = "generated here from a seed; no licence needed"

_ALL = (
    DatasetInfo(
        name="digits",
        description="handwritten digits, 8x8 grey, within scikit-learn: 1,437 train, 360 test (36 per class)",
        shape=(1, 8, 8),
        classes=_DIGITS,
        source="UCI handwritten digits (Alpaydin, Kaynak 1998), via scikit-learn; CC BY 4.0",
        sha256="bee607e8ce1a9a7a839db4bf911d23c58f81efd44e4d19c20ad79b0d899e29d2",
        sha256_test="dc5036135721d94d7ce9610365932e0db05f1fa00e2e877ddb9ee4d8a78c6580",
    ),
    DatasetInfo(
        name="two_moons",
        description="two interleaved half circles in the unit square: 1,000 train, 1,000 test",
        shape=(2,),
        classes=("upper", "lower"),
        source=_OWN,
    ),
    DatasetInfo(
        name="circles",
        description="a circle inside a circle in the unit square: 1,000 train, 1,000 test",
        shape=(2,),
        classes=("outer", "inner"),
        source=_OWN,
    ),
    DatasetInfo(
        name="blobs",
        description="three Gaussian blobs in the unit square: 1,000 train, 1,000 test",
        shape=(2,),
        classes=("left", "right", "top"),
        source=_OWN,
    ),
    DatasetInfo(
        name="spirals",
        description="two interleaved spirals in the unit square: 1,000 train, 1,000 test",
        shape=(2,),
        classes=("first", "second"),
        source=_OWN,
    ),
    DatasetInfo(
        name="gaussians_8",
        description="eight narrow Gaussians on a circle, for generators: 20,000 train, 4,096 test",
        shape=(2,),
        classes=tuple(str(k) for k in range(8)),
        source=_OWN,
    ),
    DatasetInfo(
        name="gaussians_25",
        description="25 narrow Gaussians on a grid, for generators: 20,000 train, 4,096 test",
        shape=(2,),
        classes=tuple(str(k) for k in range(25)),
        source=_OWN,
    ),
    DatasetInfo(
        name="swiss_roll",
        description="a noisy spiral in ten arcs of equal mass, for generators: 20,000 train, 4,096 test",
        shape=(2,),
        classes=_DIGITS,
        source=_OWN,
    ),
    DatasetInfo(
        name="mnist",
        description="handwritten digits, 28x28 grey: 60,000 train, 10,000 test",
        shape=(1, 28, 28),
        classes=_DIGITS,
        source="LeCun, Cortes, Burges; CC BY-SA 3.0 as commonly stated",
        sha256="1e35582d42a90940c55b956deb61875c020b567ed20e3c5b174f52bf7809ed9b",
        sha256_test="a0863a96c44e5666edbb30c4071ee79ca0514c621e6349c5967fc78e7305c891",
        openml=554,
        check=Check(
            shape=(60_000, 10_000),
            train_rows=60_000,
            train_sum=1_567_298_545,
            test_sum=264_923_200,
            y_train=(5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
            y_test=(7, 2, 1, 0, 4, 1, 4, 9, 5, 9),
        ),
    ),
    DatasetInfo(
        name="fashion_mnist",
        description="articles of clothing, 28x28 grey: 60,000 train, 10,000 test",
        shape=(1, 28, 28),
        classes=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        source="Xiao, Rasul, Vollgraf 2017, Zalando; MIT",
        sha256_test="9a494dc49efeb996f4076c469b31cd058152067b1594ba6ab85dd739fce3775e",
        openml=40996,
        check=Check(
            shape=(60_000, 10_000),
            train_rows=20_000,
            train_sum=1_142_624_448,
            test_sum=573_469_082,
            y_train=(9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
            y_test=(9, 2, 1, 1, 6, 1, 4, 6, 5, 7),
        ),
    ),
    DatasetInfo(
        name="cifar10",
        description="tiny natural images, 32x32 colour: 50,000 train, 10,000 test",
        shape=(3, 32, 32),
        classes=(
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
        source="Krizhevsky 2009, Learning multiple layers of features from tiny images; no licence stated",
        sha256="9048fcbac9c08a64d57a7c5a5a66750a974ad4eab380914df129f7e223d823df",
        sha256_test="2c33b053d1cd726af8d86e174a96dd89d7000ba1412add026d68142375b89d51",
        openml=40927,
        check=Check(
            shape=(50_000, 10_000),
            train_rows=50_000,
            train_sum=18_540_682_003,
            test_sum=3_733_375_634,
            y_train=(6, 9, 9, 4, 1, 1, 2, 7, 8, 3),
            y_test=(3, 8, 8, 0, 6, 6, 1, 6, 3, 1),
        ),
    ),
    DatasetInfo(
        name="pneumonia_mnist",
        description="chest X-rays, 28x28 grey, unbalanced: 4,708 train, 524 validation, 624 test",
        shape=(1, 28, 28),
        classes=("normal", "pneumonia"),
        source="MedMNIST v2 (Yang et al. 2023), from Kermany et al. 2018; CC BY 4.0",
    ),
)

DATASETS: dict[str, DatasetInfo] = {info.name: info for info in _ALL}
