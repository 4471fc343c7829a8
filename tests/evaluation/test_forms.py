"""Forms of a model are timed, and one is taken only where it saves enough."""

import pytest
import torch
from torch import nn

from danskin.errors import DanskinWarning, InputError
from danskin.evaluation import Form, fastest
from danskin.testing.models import convnet

X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Clock:
    """Stands for the clock: so many seconds for a pass of a form."""

    def __init__(self, model, **seconds):
        self.model, self.seconds, self.calls = model, seconds, []

    def __call__(self, timed, x):
        if timed is self.model:
            name = "plain"
        else:
            name = ("low" if timed.low else "") + ("last" if timed.channels_last else "")
        self.calls.append(name)
        return self.seconds[name]


@pytest.mark.parametrize(
    ("low", "last", "lowlast", "chosen"),
    [
        ((0.7, 0.7), (1.0, 1.0), (0.5, 0.6), Form("bfloat16", True)),
        ((0.5, 0.6), (1.0, 1.0), (0.5, 0.7), Form("bfloat16", False)),
        ((1.5, 1.6), (0.7, 0.7), (1.5, 0.7), Form("model", True)),
        ((0.8, 0.4), (1.0, 0.7), (0.76, 0.5), Form()),  # a quarter of both passes, or it is not worth its questions
        ((0.5, 0.8), (1.0, 0.7), (0.5, 0.8), Form()),
    ],
)
def test_the_quickest_form_is_taken_where_it_saves_a_quarter(low, last, lowlast, chosen, monkeypatch):
    model = convnet(4)
    clock = Clock(model, plain=(2.0, 4.0), **{k: (2 * a, 4 * b) for k, (a, b) in
                  {"low": low, "last": last, "lowlast": lowlast}.items()})  # fmt: skip
    monkeypatch.setattr("danskin.evaluation.forms._seconds", clock)
    form = fastest(model, X, rounds=3)
    assert (form.precision, form.channels_last) == (chosen.precision, chosen.channels_last)
    assert form.seconds["bfloat16"] == pytest.approx(low) and form.seconds["channels_last"] == pytest.approx(last)
    assert clock.calls.count("plain") == clock.calls.count("low") == 4


def test_forms_compute_as_they_say_and_the_model_is_left_as_it_is():
    model = convnet(4).train()
    form = fastest(model, X, rounds=1)
    assert set(form.seconds) == {"bfloat16", "channels_last", "bfloat16, channels_last"}
    assert all(s > 0 for pair in form.seconds.values() for s in pair)
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert Form().of(model) is None
    assert torch.allclose(Form(channels_last=True).of(model)(X), model.eval()(X), atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Form("bfloat16").of(model)(X), model(X))


class OnlyFloat32(nn.Module):
    """A model that autocast breaks."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(192, 4)

    def forward(self, x):
        z = self.linear(x.flatten(1))
        if z.dtype != torch.float32:
            raise RuntimeError("no kernel for bfloat16")
        return z


def test_a_form_that_does_not_compute_is_left_out():
    with pytest.warns(DanskinWarning) as told:
        form = fastest(OnlyFloat32(), X, rounds=1)
    assert [str(w.message).partition("work in ")[2] for w in told] == [
        f"{name}, got no kernel for bfloat16; left out" for name in ("bfloat16", "bfloat16, channels_last")
    ]
    assert set(form.seconds) == {"channels_last"} and form.precision == "model"


def test_what_cannot_be_timed_is_refused():
    with pytest.raises(InputError, match="got an empty batch"):
        fastest(convnet(4), X[:0])
    with pytest.raises(InputError, match=r"expected an nn\.Module"):
        fastest(lambda x: x.flatten(1), X)
