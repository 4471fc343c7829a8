"""Numbers that should not be quoted: accuracy near chance, and inputs on another scale than in training."""

import json

import pytest
import torch
from torch import nn

from danskin import Linf, Verdict, evaluate
from danskin.attacks import PGD
from danskin.evaluation.counted import Counted
from danskin.evaluation.standing import near_chance, scaled_otherwise
from danskin.run.card import card

BALL = Linf(0.1)
SUITE = [PGD(BALL, steps=3, stop=True)]


def flagged(labels, right):
    flag = near_chance(torch.tensor(labels), torch.tensor(right))
    return flag and flag.name


def test_a_constant_answer_is_chance_however_often_its_class_occurs():
    y = [0] * 90 + [1] * 10
    assert flagged(y, [label == 0 for label in y]) == "near_chance"  # 90 % right
    informed = [True] * 85 + [False] * 5 + [True] * 8 + [False] * 2
    assert flagged(y, informed) is None


@pytest.mark.parametrize(("hits", "seen"), [(3, True), (10, True), (16, True), (18, False), (60, False)])
def test_ten_balanced_classes(hits, seen):
    """Of 100: Wilson's interval of 16 % begins at 10.1 %, and that of 16 % in the mean over classes below 10 %."""
    right = torch.zeros(100, dtype=torch.bool)
    right[:: 100 // hits][:hits] = True
    y = torch.arange(100) % 10
    right = right[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    assert int(right.sum()) == hits
    assert (near_chance(y, right) is not None) == seen


def test_what_cannot_tell_is_not_flagged():
    assert flagged([3] * 20, [True] * 15 + [False] * 5) is None  # one class
    assert flagged([0, 1], [True, True]) is None  # no error
    assert flagged([0, 1], [False, False]) == "nothing_right"


class Brightness(nn.Module):
    """Three classes of brightness b, cut at 0.8 and 0.9, for inputs in [-1, 1]: b = (z + 1) / 2."""

    def forward(self, z):
        b = (z.flatten(1).mean(1) + 1) / 2
        return torch.stack([0 * b, 40 * (b - 0.8), 80 * (b - 0.85)], 1)


@pytest.fixture
def fussy():
    """(the net, the same with its normalization, x, y): on inputs in [0, 1] the bare net is right for 70 %."""
    b = (torch.arange(90) + 0.5) / 90
    x = b[torch.randperm(90, generator=torch.Generator().manual_seed(0))][:, None, None, None].expand(-1, 1, 4, 4)
    bare = Brightness().eval()

    class Whole(nn.Module):
        def forward(self, z):
            return bare(2 * z - 1)

    return bare, Whole().eval(), x, Whole()(x).argmax(1)


def test_a_missing_normalization_is_named(fussy):
    bare, whole, x, y = fussy
    right = bare(x).argmax(1) == y
    assert int(right.sum()) == 63 and near_chance(y, right) is None  # accuracy alone does not tell
    flag = scaled_otherwise(Counted(bare), x, y, right)
    assert flag.name == "scaled_otherwise" and "put the scaling before it" in flag.text
    assert flag.numbers == {"right": 63, "rescaled": 90, "examples": 90, "inputs": "in [-1, 1]"}
    assert scaled_otherwise(Counted(whole), x, y, whole(x).argmax(1) == y) is None


def test_a_poor_model_is_not_taken_for_a_fussy_one(digits_net):
    _, x, y = digits_net
    torch.manual_seed(1)
    poor = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    asked = Counted(poor)
    assert scaled_otherwise(asked, x, y, poor(x).argmax(1) == y) is None
    assert asked.cost.forwards <= 8

    def refuses(z):
        if z.min() < 0 or z.max() > 1:
            raise ValueError("outside")
        return poor(z)

    assert scaled_otherwise(Counted(refuses), x, y, poor(x).argmax(1) == y) is None


def test_the_table_does_not_offer_such_a_number(fussy):
    bare, whole, x, y = fussy
    found = evaluate(bare, (x, y), BALL, SUITE, diagnostics=90)
    assert not found.quotable and "to quote" not in str(found) and "not to be quoted" in str(found)
    again = evaluate(whole, (x, y), BALL, SUITE)
    assert again.quotable and "<- the number to quote" in str(again)


def test_near_chance_is_about_all_examples_of_all_shards(digits_net):
    _, x, y = digits_net
    torch.manual_seed(1)
    poor = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    parts = [evaluate(poor, (x, y), BALL, SUITE, shard=(k, 3)) for k in range(3)]
    merged = Verdict.merge(parts)
    (flag,) = [f for f in merged.flags if f.name == "near_chance"]
    assert flag.numbers["examples"] == 90 and not merged.quotable
    good = evaluate(lambda z: digits_net[0](z), (x, y), BALL, SUITE)
    assert "near_chance" not in [f.name for f in good.flags]


def test_it_is_kept_in_json_and_on_the_card(digits_net):
    model, x, y = digits_net
    found = evaluate(model, (x, (y + 1) % 10), BALL, SUITE)
    written = json.loads(json.dumps(found.to_dict()))
    assert written["quotable"] is False and not Verdict.from_dict(written).quotable
    asked = {"danskin": "0", "model": {"name": "m"}, "data": {"name": "d"}, "settings": {}}
    made = card(asked | written)
    assert made["unreliable"] and made["danskin"]["quotable"] is False


def test_the_look_at_the_model_is_counted_and_within_a_tenth(digits_net):
    model, x, y = digits_net
    passed = [0]

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, z):
            passed[0] += len(z)
            return self.model(z)

    found = evaluate(Watch().eval(), (x, y), BALL, [PGD(BALL, steps=40)])
    assert found.cost.forwards == passed[0]
    own = sum(s.cost.forwards + 2 * s.cost.backwards for s in found.stages)
    look = found.diagnosis.cost
    assert found.flags == () and found.diagnosis.examples == 32
    assert 0 < look.forwards + 2 * look.backwards <= own / 10
    assert f"{found.diagnosis.examples} examples" in str(found)
    assert Verdict.from_dict(found.to_dict()).cost == found.cost
    without = evaluate(model, (x, y), BALL, [PGD(BALL, steps=40)], diagnostics=0)
    assert torch.equal(without.broken_by, found.broken_by) and without.diagnosis is None
    assert Verdict.from_dict({k: v for k, v in without.to_dict().items() if k != "diagnosis"}).diagnosis is None
