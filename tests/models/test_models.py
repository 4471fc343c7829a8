import pytest
import torch
from torch import nn

from danskin.errors import InputError
from danskin.models import (
    MODELS,
    Normalize,
    build,
    cifar_resnet,
    describe,
    linear,
    mlp,
    one_conv,
    preact_resnet18,
    resnet56,
    small_cnn,
    wide_resnet,
)

SMALL = {  # options that keep the tests quick
    "preact_resnet18": {"width": 8},
    "cifar_resnet": {"depth": 8},
    "wide_resnet": {"depth": 10, "width": 1},
}
SHAPES = [(3, 32, 32), (1, 28, 28), (1, 8, 8), (2, 9, 13), (7,)]
CASES = [(n, s) for n, i in MODELS.items() for s in SHAPES if len(s) == 3 or not i.images_only]


def make(name, shape, **options):
    torch.manual_seed(0)
    return build(name, input_shape=shape, classes=5, **(SMALL.get(name, {}) | options))


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [  # published, or counted by hand
        ("linear", {}, 3072 * 10 + 10),
        ("mlp", {"hidden": (7, 5)}, 3073 * 7 + 8 * 5 + 6 * 10),
        ("small_cnn", {}, 28 * 16 + 145 * 32 + 2049 * 100 + 1010),
        ("one_conv", {}, 28 * 16 + (16 * 1024 + 1) * 10),
        ("preact_resnet18", {}, 11_172_170),
        ("preact_resnet18", {"variant": "gradalign"}, 11_171_146),
        ("cifar_resnet", {"depth": 20}, 269_722),
        ("cifar_resnet", {"depth": 110}, 1_727_962),
        ("resnet56", {}, 853_018),
        ("wide_resnet", {}, 36_479_194),
        ("wide_resnet", {"depth": 34}, 46_160_474),
        ("wide_resnet", {"depth": 16, "width": 4}, 2_748_890),
    ],
)
def test_parameter_counts(name, options, count):
    with torch.device("meta"):
        model = build(name, input_shape=(3, 32, 32), classes=10, **options)
    assert describe(model).parameters == describe(model).trainable == count


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("name", "shape"), CASES)
def test_logits_and_input_gradients(name, shape, dtype):
    model = make(name, shape, normalize=((0.5,), (0.25,))).to(dtype).eval()
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    logits = model(x)
    assert logits.shape == (2, 5) and logits.dtype == dtype and logits.isfinite().all()
    (g,) = torch.autograd.grad(logits[:, 0].sum(), x)
    assert g.shape == x.shape and g.isfinite().all() and (g != 0).any()


@pytest.mark.parametrize("name", list(MODELS))
def test_examples_do_not_mix_in_eval_mode_and_training_runs(name):
    shape = (3, 16, 16)
    model = make(name, shape)
    x = torch.rand(4, *shape)
    nn.functional.cross_entropy(model(x), torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    assert torch.allclose(model(x)[2:3], model(x[2:3]), atol=1e-5)
    again = make(name, shape)
    assert torch.equal(again.eval()(x), make(name, shape).eval()(x))


@pytest.mark.parametrize("name", ["linear", "mlp", "small_cnn", "one_conv"])
def test_plain_models_are_flat_and_without_batch_norm(name):
    model = make(name, (3, 32, 32), normalize="cifar10")
    assert isinstance(model, nn.Sequential) and isinstance(model[0], Normalize)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm | nn.Sequential) for m in model[1:])
    assert not any(isinstance(m, Normalize) for m in make(name, (3, 32, 32)).modules())


def inputs_of(module, model, x):
    seen = []
    handle = module.register_forward_hook(lambda m, args, out: seen.append((args[0].detach(), out.detach())))
    model(x)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("variant", ["locuslab", "gradalign"])
def test_the_two_preact_resnets(variant):
    torch.manual_seed(0)
    model = preact_resnet18(variant=variant, width=8).eval()
    x = torch.rand(2, 3, 32, 32)
    block = model.blocks[2]  # the first with a shortcut convolution
    raw, _ = inputs_of(block, model, x)
    seen, _ = inputs_of(block.shortcut, model, x)
    features, _ = inputs_of(model.fc, model, x)
    _, last = inputs_of(model.blocks, model, x)
    assert [b.shortcut is not None for b in model.blocks] == [False, False] + [True, False] * 3
    if variant == "locuslab":
        assert torch.equal(seen, block.bn1(raw).relu()) and (raw < 0).any()
        assert torch.equal(features, model.final(last).mean((2, 3))) and (features >= 0).all()
    else:
        assert torch.equal(seen, raw) and model.final is None
        assert torch.equal(features, last.mean((2, 3))) and (features < 0).any()
        w = model.blocks[6].conv1.weight  # its fan-in is half its fan-out
        assert abs(float(w.detach().std()) / (2 / (9 * w.shape[0])) ** 0.5 - 1) < 0.05
        assert (model.fc.bias == 0).all()


def test_shortcuts_of_the_wide_resnet_see_the_activated_tensor():
    model = wide_resnet(depth=10, width=2).eval()
    x = torch.rand(2, 3, 16, 16)
    for block in model.blocks:
        raw, _ = inputs_of(block, model, x)
        seen, _ = inputs_of(block.shortcut, model, x)
        assert torch.equal(seen, block.bn1(raw).relu()) and not torch.equal(seen, raw)


def test_shortcut_of_option_a():
    block = cifar_resnet(depth=8).blocks[1].eval()
    nn.init.zeros_(block.bn2.weight)  # leaves the shortcut alone
    x = torch.rand(2, 16, 6, 6)
    out = block(x)
    assert out.shape == (2, 32, 3, 3) and torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any() and not out[:, 24:].any()


def test_depths_and_blocks():
    with torch.device("meta"):
        assert len(resnet56().blocks) == 27 and len(wide_resnet().blocks) == 12
    convs = [m for m in cifar_resnet(depth=20).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(convs) == 20
    for depth in (27, 4, 5, 0):
        with pytest.raises(InputError, match=r"depth: expected"):
            wide_resnet(depth=depth)
    for depth in (18, 2, 57):
        with pytest.raises(InputError, match=r"depth: expected 6 n \+ 2"):
            cifar_resnet(depth=depth)
    with pytest.raises(InputError, match="dropout"):
        wide_resnet(dropout=1.0)
    model = wide_resnet(depth=10, width=1, dropout=0.5)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5] * 3


def test_one_conv_is_he_normal():
    torch.manual_seed(0)
    model = one_conv(input_shape=(3, 32, 32))
    assert abs(float(model[-1].weight.detach().std()) / (2 / 16384) ** 0.5 - 1) < 0.02
    assert abs(float(model[0].weight.detach().std()) / (2 / 27) ** 0.5 - 1) < 0.15
    assert not model[0].bias.any() and not model[-1].bias.any()


def test_activations_and_widths():
    model = mlp(input_shape=(4,), hidden=(6, 5), activation="softplus", classes=3)
    kinds = [type(m).__name__ for m in model]
    assert kinds == ["Flatten", "Linear", "Softplus", "Linear", "Softplus", "Linear"]
    assert [m.out_features for m in model if isinstance(m, nn.Linear)] == [6, 5, 3]
    assert len(mlp(input_shape=(4,), hidden=())) == 2 and linear(input_shape=(4,), bias=False)[1].bias is None
    assert small_cnn(input_shape=(1, 8, 8), width=4)[2].out_channels == 8
    smooth = preact_resnet18(width=8, activation="softplus")
    assert not any(isinstance(m, nn.ReLU) for m in smooth.modules())


def test_groups_in_place_of_batches():
    torch.manual_seed(0)
    model = preact_resnet18(width=12, norm="group")
    kinds = {type(m) for m in model.modules() if m.__class__.__name__.endswith("Norm") or "BatchNorm" in str(type(m))}
    assert kinds == {nn.GroupNorm}
    assert [model.blocks[i].bn1.num_groups for i in (0, 3, 5, 7)] == [3, 6, 8, 8]
    assert preact_resnet18(width=9, norm="group").blocks[0].bn1.num_groups == 1  # 2 do not divide 9
    x = torch.rand(4, 3, 32, 32)
    assert torch.allclose(model.train()(x)[:1], model(x[:1]), atol=1e-5)  # no example sees another


# ---- normalisation


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_normalize_is_exact(dtype):
    layer = Normalize.of("cifar10")
    x = torch.rand(4, 3, 5, 6).to(dtype)
    out = layer(x)
    assert out.dtype == dtype
    for k, (mean, std) in enumerate(zip((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), strict=True)):
        mean, std = (torch.tensor(v).to(dtype) for v in (mean, std))
        assert torch.equal(out[:, k], (x[:, k] - mean) / std)


def test_normalize_vectors_and_single_channel():
    x = torch.rand(4, 3)
    assert torch.equal(Normalize((0, 1, 2), (1, 2, 4))(x), (x - torch.tensor([0, 1, 2])) / torch.tensor([1, 2, 4]))
    assert torch.equal(Normalize((0.5,), (0.25,))(x), (x - 0.5) / 0.25)
    layer = Normalize.of("mnist")
    assert torch.equal(layer(x[:, :, None, None]), layer(x)[:, :, None, None])
    assert list(layer.parameters()) == [] and set(layer.state_dict()) == {"mean", "std"}
    assert "0.1307" in repr(layer)


def test_normalize_refuses():
    for mean, std, text in (
        ((0.5,), (0.1, 0.2), "one mean and one std"),
        ((), (), "one mean and one std"),
        ((0.5,), (0.0,), "positive stds"),
        ((float("nan"),), (1.0,), "finite means"),
    ):
        with pytest.raises(InputError, match=text):
            Normalize(mean, std)
    with pytest.raises(InputError, match="did you mean 'cifar10'"):
        Normalize.of("cifar-10")
    with pytest.raises(InputError, match=r"expected x of shape \(N, 3, ...\), got \(2, 1, 4, 4\)"):
        Normalize.of("cifar10")(torch.rand(2, 1, 4, 4))
    with pytest.raises(InputError, match="expected 1 or 1 channels"):
        small_cnn(input_shape=(1, 28, 28), normalize="cifar10")


def test_normalised_model_is_the_model_of_normalised_inputs():
    for name in MODELS:
        with_layer, plain = make(name, (3, 8, 8), normalize="cifar10").eval(), make(name, (3, 8, 8)).eval()
        x = torch.rand(2, 3, 8, 8)
        assert torch.equal(with_layer(x), plain(Normalize.of("cifar10")(x)))


# ---- by name


def test_build_refuses():
    for name, options, text in (
        ("preact_resnet", {}, "did you mean 'preact_resnet18'"),
        ("mlp", {"hiden": (3,)}, "option of mlp: expected a known name, got 'hiden'; did you mean 'hidden'"),
        ("linear", {"hidden": (3,)}, "choose from bias, normalize"),
        ("mlp", {"activation": "rleu"}, "did you mean 'relu'"),
        ("mlp", {"hidden": (0,)}, "hidden: expected an integer of 1 or more"),
        ("small_cnn", {"width": 1.5}, "width: expected an integer"),
        ("preact_resnet18", {"variant": "gradaling"}, "did you mean 'gradalign'"),
        ("preact_resnet18", {"norm": "groups"}, "did you mean 'group'"),
    ):
        with pytest.raises(InputError, match=text):
            build(name, input_shape=(3, 32, 32), classes=10, **options)
    for shape, text in (
        ((), "got \\(\\)"),
        ((10,), "use linear or mlp"),
        ((3, 7, 8), "8 or more"),
        ((0, 8, 8), "integer"),
    ):
        with pytest.raises(InputError, match=text):
            build("resnet56", input_shape=shape, classes=10)
    with pytest.raises(InputError, match="classes: expected an integer of 1 or more, got 0"):
        build("linear", input_shape=(3,), classes=0)


def test_registry():
    for name, info in MODELS.items():
        assert name == info.name and info.description
        assert "normalize" in info.options and "classes" not in info.options
    assert MODELS["preact_resnet18"].options["variant"] == "locuslab"


def test_describe():
    model = mlp(input_shape=(4,), hidden=(6,), classes=3, normalize=((0.5,), (1.0,)))
    model[2].weight.requires_grad_(False)
    got = describe(model)
    assert (got.parameters, got.trainable, got.buffers) == (51, 27, 2)
    assert str(got) == "51 parameters (24 of them frozen)"
