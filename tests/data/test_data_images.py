import numpy as np
import pytest

from danskin.data import load, load_folder, sheets
from danskin.errors import InputError, MissingError


def same(data, arrays):
    for key in ("x_train", "x_test"):
        assert np.array_equal(getattr(data, key).numpy()[:, 0], arrays[key])
        assert np.array_equal(getattr(data, key.replace("x", "y")).numpy(), arrays[key.replace("x", "y")])
    return True


def write_images(folder, arrays, names=None, ending="png"):
    from PIL import Image

    for part in ("train", "test"):
        for i, (x, y) in enumerate(zip(arrays[f"x_{part}"], arrays[f"y_{part}"], strict=True)):
            place = folder / part / (names[y] if names else str(y))
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x).save(place / f"{i:03d}.{ending}")


def in_class_order(arrays):
    order = {p: np.argsort(arrays[f"y_{p}"], kind="stable") for p in ("train", "test")}
    return {k: v[order[k[2:]]] for k, v in arrays.items()}


def test_image_folder(tmp_path, grey):
    write_images(tmp_path / "mnist", grey)
    assert same(load("mnist", tmp_path), in_class_order(grey))
    (tmp_path / "mnist" / "train" / "3").rename(tmp_path / "mnist" / "train" / "three")
    with pytest.raises(MissingError, match="holds other classes"):
        load("mnist", tmp_path)


def test_image_folder_of_a_named_set_keeps_its_label_order(tmp_path, rng):
    from danskin.data import DATASETS

    names = DATASETS["cifar10"].classes
    x = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    arrays = {"x_train": x, "y_train": np.arange(20) % 10, "x_test": x[:5], "y_test": np.arange(5)}
    write_images(tmp_path, arrays, names)
    data, expected = load("cifar10", tmp_path), in_class_order(arrays)
    assert np.array_equal(data.x_train.numpy(), expected["x_train"].transpose(0, 3, 1, 2))
    assert data.y_train.tolist() == expected["y_train"].tolist() and data.classes == names


def test_image_folder_of_your_own(tmp_path, rng):
    x = rng.integers(0, 256, (4, 9, 11), dtype=np.uint8)
    arrays = {"x_train": x, "y_train": np.array([0, 1, 0, 1]), "x_test": x[:2], "y_test": np.array([1, 1])}
    write_images(tmp_path / "pets", arrays, ("dog", "cat"))
    (tmp_path / "pets" / "train" / "cat" / "notes.txt").write_text("not an image")
    data = load(f"folder:{tmp_path / 'pets'}")
    assert data.classes == ("cat", "dog") and data.image_shape == (1, 9, 11) and data.name == "folder:pets"
    assert data.y_train.tolist() == [0, 0, 1, 1] and data.y_test.tolist() == [0, 0]
    assert np.array_equal(data.x_train.numpy()[:, 0], x[[1, 3, 0, 2]])


def test_image_folder_errors(tmp_path, rng):
    from PIL import Image

    x = rng.integers(0, 256, (4, 9, 11), dtype=np.uint8)
    arrays = {"x_train": x, "y_train": np.array([0, 1, 0, 1]), "x_test": x[:2], "y_test": np.array([1, 1])}
    with pytest.raises(MissingError, match="expected a folder of class folders"):
        load_folder(tmp_path)
    write_images(tmp_path, arrays, ("dog", "cat"))
    image = tmp_path / "train" / "dog" / "000.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:60])
    with pytest.raises(InputError, match=r"000.png: expected a complete image, got 60 bytes"):
        load_folder(tmp_path)
    for wrong in (Image.new("L", (9, 9)), Image.new("RGB", (11, 9))):
        wrong.save(image)
        with pytest.raises(InputError, match="bring all images to one size and mode"):
            load_folder(tmp_path)
    Image.new("I;16", (11, 9)).save(image)
    with pytest.raises(InputError, match="8 bits per channel"):
        load_folder(tmp_path)
    image.write_bytes(whole)
    (tmp_path / "test" / "bird").mkdir()
    with pytest.raises(InputError, match="expected a class of train"):
        load_folder(tmp_path)


@pytest.fixture
def sheet_folder(tmp_path, rng, monkeypatch):
    """Sheets of 3 x 3 tiles: train 1 and 4, and test; the images in order."""
    from PIL import Image

    monkeypatch.setattr(sheets, "GRID", 3)
    sums, images = {}, {}
    for name in ("cifar10_train_1.webp", "cifar10_train_4.webp", "cifar10_test.webp"):
        x = rng.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
        sheet = np.zeros((96, 96, 3), dtype=np.uint8)
        for k in range(9):
            sheet[k // 3 * 32 : k // 3 * 32 + 32, k % 3 * 32 : k % 3 * 32 + 32] = x[k]
        Image.fromarray(sheet).save(tmp_path / name, lossless=True)
        sums[name], images[name] = int(x.sum(dtype=np.uint64)), x.transpose(0, 3, 1, 2)
    monkeypatch.setattr(sheets, "SUMS", sums)
    y = rng.integers(0, 10, 45)
    np.savez(tmp_path / "cifar10_labels.npz", y_train=y, y_test=y[:9])
    return tmp_path, images, y


def test_sheets(sheet_folder):
    folder, images, y = sheet_folder
    data = load("cifar10", folder)
    train = np.concatenate([images["cifar10_train_1.webp"], images["cifar10_train_4.webp"]])
    assert np.array_equal(data.x_train.numpy(), train)
    assert np.array_equal(data.x_test.numpy(), images["cifar10_test.webp"])
    assert data.y_train.tolist() == [*y[:9], *y[27:36]] and data.y_test.tolist() == y[:9].tolist()
    assert data.canonical is False


def test_sheets_broken(sheet_folder, monkeypatch):
    from PIL import Image

    folder, _, y = sheet_folder
    sheet = folder / "cifar10_train_4.webp"
    whole = sheet.read_bytes()
    sheet.write_bytes(whole[:999])
    with pytest.raises(InputError, match=r"train_4.webp: expected a complete image, got 999 bytes"):
        load("cifar10", folder)
    Image.new("RGB", (96, 96)).save(sheet, lossless=True)
    with pytest.raises(InputError, match=r"train_4.webp: expected pixels that sum to"):
        load("cifar10", folder)
    Image.new("RGB", (64, 96)).save(sheet, lossless=True)
    with pytest.raises(InputError, match=r"expected 96 x 96 RGB pixels"):
        load("cifar10", folder)
    sheet.write_bytes(whole)
    np.savez(folder / "cifar10_labels.npz", y_train=y[:8], y_test=y[:9])
    with pytest.raises(InputError, match="expected 45 and 9 labels"):
        load("cifar10", folder)
    (folder / "cifar10_labels.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="y_train and y_test"):
        load("cifar10", folder)
    for name in ("cifar10_labels.npz", "cifar10_test.webp"):
        (folder / name).unlink()
        with pytest.raises(MissingError, match=f"sheets but not {name}"):
            load("cifar10", folder)
