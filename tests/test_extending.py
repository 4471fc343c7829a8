"""The code of docs/extending.md runs as it stands, from top to bottom, and what it makes works on the command line."""

import re
import sys
from pathlib import Path

import torch

from danskin.minmax import Linf
from danskin.run.own_set import OwnSet
from danskin.run.schema import build, plain
from danskin.run.verdict import parse_ball

PAGE = Path(__file__).parent.parent / "docs/extending.md"


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    code = "\n".join(blocks())
    assert len(blocks()) >= 6
    (tmp_path / "page_of_extending.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("page_of_extending")
    sys.modules.pop("page_of_extending")
    assert "the number to quote" in capsys.readouterr().out


def test_every_check_that_the_page_names_is_there():
    from danskin.testing import ATTACK_CHECKS

    for name in re.findall(r"skip=\[(.*?)\]", PAGE.read_text(encoding="utf-8"))[0].split(", "):
        assert name.strip('"') in ATTACK_CHECKS


SETS = '''
from dataclasses import dataclass
import torch
from danskin.minmax import Linf

@dataclass(frozen=True)
class Half(Linf):
    """l_inf on the left half."""
    def project(self, y):
        y = Linf.project(self, y).clone()
        y[..., y.shape[-1] // 2:] = 0
        return y
    def lmo(self, g):
        return self.project(Linf.lmo(self, g))
    def sample(self, like, generator):
        return self.project(Linf.sample(self, like, generator))
    def violation(self, y):
        beside = y[..., y.shape[-1] // 2:].abs().flatten(1).amax(1)
        return torch.maximum(Linf.violation(self, y), beside)

def make(radius=0.1):
    return Half(radius)

def nothing():
    return 3
'''


def test_a_set_by_its_factory(tmp_path, monkeypatch):
    (tmp_path / "halves_for_test.py").write_text(SETS)
    monkeypatch.chdir(tmp_path)
    ball = parse_ball("halves_for_test:make")
    assert repr(ball) == "Half(radius=0.1)"
    y = torch.ones(2, 1, 4, 4)
    assert torch.equal(ball.project(y)[..., 2:], torch.zeros(2, 1, 4, 2))
    from danskin.attacks import Attack

    node = {"name": "pgd", "ball": {"make": "halves_for_test:make", "arguments": {"radius": 0.2}}}
    attack = build(Attack, node, "attack")
    assert repr(attack.ball) == "Half(radius=0.2)"
    assert build(Attack, plain(attack), "attack") == attack
    assert isinstance(build(Attack, {"name": "pgd", "ball": "halves_for_test:make"}, "attack").ball, OwnSet)
    assert isinstance(parse_ball("linf:0.1"), Linf)


def test_what_makes_no_set_is_refused(tmp_path, monkeypatch):
    import pytest

    from danskin.errors import ConfigError

    (tmp_path / "nothing_for_test.py").write_text(SETS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="expected a factory that returns a set, got int"):
        parse_ball("nothing_for_test:nothing")
