"""Models of other packages: transformers, timm. Each test runs where its package is installed and works."""

import importlib
import json
import sys
import warnings

import pytest
import torch
from torch import nn

from danskin.attacks import PGD
from danskin.errors import CheckpointError, ConfigError, DanskinWarning, MissingError, ModelError
from danskin.foreign import check_model, open_model
from danskin.foreign.hub import _front
from danskin.minmax import Linf

CPU = torch.device("cpu")
X = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0])


def working(name):
    """The package, or a skip: a torchvision for another torch breaks its users with RuntimeError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except Exception as error:
        pytest.skip(f"{name}: {error}")


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()


def opened(spec, x=X, **options):
    return check_model(open_model(str(spec), device=CPU, **options), x)


@pytest.mark.parametrize("package, spec", [("transformers", "hf:."), ("timm", "timm:resnet18"), ("onnx", "net.onnx")])
def test_missing_packages_are_named_with_the_command(tmp_path, monkeypatch, package, spec):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "net.onnx").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingError, match=rf"{package} is needed.*pip install {package}") as caught:
        open_model(spec, device=CPU)
    assert caught.value.command.startswith(f"pip install {package} ")


def test_a_torchvision_that_does_not_fit_is_told(tmp_path, monkeypatch):
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    for name in [n for n in sys.modules if n.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingError, match=r"torchvision::nms.*install the torchvision that was built for torch"):
        open_model("timm:resnet18", device=CPU)


# What image processors do to numbers, against doing it step by step to 0..255.

RGB = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.5]


def by_steps(config, x):
    pixels, kind = 255 * x.double(), config.get("image_processor_type", "")
    if config.get("do_flip_channel_order"):
        pixels = torch.stack([pixels[:, 2], pixels[:, 1], pixels[:, 0]], 1)
    if config.get("do_rescale", True):
        pixels = pixels * config.get("rescale_factor", 1 / 255)
        if kind.startswith("EfficientNet") and config.get("rescale_offset"):
            pixels = pixels - 1
    mean, std = (
        torch.tensor(config.get(k, d)).view(-1, 1, 1) for k, d in (("image_mean", [0.0]), ("image_std", [1.0]))
    )
    if config.get("do_normalize", not config.get("do_flip_channel_order")):
        pixels = (pixels - mean) / std
    if kind.startswith("EfficientNet") and config.get("include_top", True):
        pixels = pixels / std
    return pixels.float()


STATISTICS = {"image_mean": MEAN, "image_std": STD}
PROCESSORS = [
    {"do_normalize": True, **STATISTICS},
    {"do_normalize": False, **STATISTICS},
    STATISTICS,
    {"do_normalize": True, "image_mean": [0.5], "image_std": [0.25]},
    {"do_rescale": False, **STATISTICS},
    {"rescale_factor": 1 / 127.5, **STATISTICS},
    {"rescale_offset": True, **STATISTICS},
    {"do_flip_channel_order": True, **STATISTICS},
    {"do_flip_channel_order": False, "do_normalize": True, **STATISTICS},
    {"image_processor_type": "EfficientNetImageProcessor", **STATISTICS},
    {"image_processor_type": "EfficientNetImageProcessor", "include_top": False, **STATISTICS},
    {"image_processor_type": "EfficientNetImageProcessor", "do_normalize": False, **STATISTICS},
    {
        "image_processor_type": "EfficientNetImageProcessor",
        "rescale_offset": True,
        "rescale_factor": 1 / 127.5,
        **STATISTICS,
    },
]


@pytest.mark.parametrize("config", PROCESSORS, ids=str)
def test_processors_as_first_layers(config):
    layers, _ = _front(config, "hf:x")
    torch.testing.assert_close(nn.Sequential(*layers)(RGB), by_steps(config, RGB), rtol=1e-5, atol=1e-5)


def test_notes_on_processors():
    _, notes = _front({"do_normalize": False, "size": {"height": 28}}, "hf:x")
    assert notes == ["no normalisation", "its processor makes images of size {'height': 28}; give images of that size"]
    with pytest.warns(DanskinWarning, match="does not say by what"):
        _front({"do_normalize": True}, "hf:x")
    with pytest.warns(DanskinWarning, match="no processor config"):
        assert _front(None, "hf:x")[0] == []


# transformers


@pytest.fixture
def vit(tmp_path):
    """A tiny ViT saved to a folder, and the model."""
    transformers = working("transformers")
    try:
        cls = transformers.ViTForImageClassification
    except Exception as error:
        pytest.skip(f"transformers: {error}")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4,
        num_channels=1, num_labels=3,
    )  # fmt: skip
    model = cls(config).eval()
    model.save_pretrained(tmp_path / "vit")
    (tmp_path / "vit/preprocessor_config.json").write_text(
        json.dumps({"do_normalize": True, "image_mean": [0.5], "image_std": [0.25], "do_rescale": True})
    )
    return tmp_path / "vit", model


@pytest.mark.filterwarnings("ignore")
def test_transformers_folder(vit):
    folder, model = vit
    found = opened(f"hf:{folder}", classes=3)
    torch.testing.assert_close(found.model(X), model((X - 0.5) / 0.25).logits)
    assert found.differentiable and found.note == "first layer Normalize(mean=(0.5), std=(0.25))"
    assert len(found.hash) == 64 and found.hash == opened(f"hf:{folder}").hash
    assert PGD(Linf(0.1), steps=2)(found.model, X, Y).x.shape == X.shape


@pytest.mark.filterwarnings("ignore")
def test_transformers_that_are_refused(vit, tmp_path):
    folder, model = vit
    with pytest.raises(MissingError, match=r"got nothing there; did you mean 'vit'\?"):
        opened(f"hf:{tmp_path}/vitt")
    with pytest.raises(MissingError, match=r"expected config.json in this folder"):
        opened(f"hf:{tmp_path}")
    with pytest.raises(ConfigError, match="expected no other weights"):
        opened(f"hf:{folder}", weights=tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="no argument but revision, got 'trust_remote_code'"):
        opened(f"hf:{folder}", arguments={"trust_remote_code": True})
    model.vit.save_pretrained(tmp_path / "headless")
    with pytest.raises(ModelError, match=r"got none for 2 .classifier.bias.*which would be random"):
        opened(f"hf:{tmp_path}/headless")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(MissingError, match="expected an image classifier with safetensors"):
        opened(f"hf:{folder}")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "zork", "auto_map": {"AutoModelForImageClassification": "code.Net"}})
    )
    (folder / "code.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w')\n")
    with pytest.raises(MissingError, match="without code of its own"):
        opened(f"hf:{folder}")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.filterwarnings("ignore")
def test_transformers_in_half_precision_are_widened(vit):
    folder, model = vit
    model.half().save_pretrained(folder)
    found = opened(f"hf:{folder}")
    assert {p.dtype for p in found.model.parameters()} == {torch.float32}
    torch.testing.assert_close(found.model(X), model.float()((X - 0.5) / 0.25).logits)


# timm


@pytest.mark.filterwarnings("ignore")
def test_timm(tmp_path):
    timm = working("timm")
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3).eval()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    x = torch.rand(3, 3, 32, 32)
    found = opened("timm:test_resnet", x, weights=tmp_path / "w.pt", classes=3)
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    torch.testing.assert_close(found.model(x), model((x - mean) / std))
    assert "first layer Normalize" in found.note and not any(m.training for m in found.model.modules())
    own = opened(
        "timm:test_resnet", x[:, :1], weights=None, classes=3, arguments={"in_chans": 1, "mean": 0.5, "std": [0.25]}
    )
    assert "random weights" in own.note and "mean=(0.5), std=(0.25)" in own.note
    for spec, arguments, words in (
        ("timm:test_resnt", {}, "did you mean"),
        ("timm:test_resnet", {"widht": 3}, "unexpected keyword argument 'widht'"),
        ("timm:test_resnet", {"checkpoint_path": "w.pt"}, "write --weights FILE"),
        ("timm:test_resnet", {"in_chans": 1}, "expected mean and std of 1 channels, got 3"),
    ):
        with pytest.raises(ConfigError, match=words):
            opened(spec, x, arguments=arguments)
    with pytest.raises(CheckpointError, match="of other shape"):
        opened("timm:test_resnet", x, weights=tmp_path / "w.pt", classes=4)
