"""Proven worst cases: the committed ones are what PEPit finds, runs stay below them, bilinear games attain them."""

import json
import math

import pytest
import torch

from danskin.errors import InputError
from danskin.games import Bilinear, ConstrainedBilinear, Forsaken, MatrixGame, WeakMinty
from danskin.games.certificates import FILE, certificate
from danskin.minmax import (
    GDA,
    RAPP,
    SOLVERS,
    AlternatingGDA,
    CurvatureEGPlus,
    EGPlus,
    Extragradient,
    OptimisticGDA,
    PastExtragradient,
    Saddle,
)
from danskin.testing.certificates import worst_case

ENTRIES = json.loads(FILE.read_text())["entries"]


@pytest.fixture(scope="module")
def pepit():
    return pytest.importorskip("PEPit", reason="PEPit, which proves worst cases, is not installed")


def made(settings):
    values = {k: v for k, v in settings.items() if k != "name"}
    if "base" in values:
        values["base"] = made(values["base"])
    return SOLVERS[settings["name"]](**values)


@pytest.mark.parametrize(
    "entry", ENTRIES, ids=lambda e: f"{e['solver']['name']}-{e['solver'].get('step_size')}-{e['class']}"
)
def test_committed_bounds_are_what_pepit_proves(entry, pepit):
    for n in (1, 2):
        if n <= len(entry["bounds"]):
            found = worst_case(
                made(entry["solver"]), n, entry["class"], rho=entry["rho"] or 0, measure=entry["measure"]
            )
            assert entry["bounds"][n - 1] == pytest.approx(found, rel=1e-3, abs=1e-4)


def test_extragradient_has_its_known_worst_cases(pepit):
    """Of monotone F: 0.8125, 0.6741, 0.4657; of bilinear games (13/16)^n."""
    for n, wanted in ((1, 0.8125), (2, 0.6741), (4, 0.4657)):
        assert worst_case(Extragradient(0.5), n) == pytest.approx(wanted, abs=1e-4)
        assert worst_case(Extragradient(0.5), n, "bilinear") == pytest.approx((13 / 16) ** n, abs=1e-5)
    assert worst_case(GDA(0.2), 3) == pytest.approx(1.04**3, abs=1e-5)


def test_bounds_do_not_depend_on_units(pepit):
    a, b = worst_case(Extragradient("0.5/L"), 2), worst_case(Extragradient("0.5/L"), 2, lipschitz=7.0)
    assert a == pytest.approx(b, rel=1e-3)


@pytest.mark.parametrize("rho", [-0.1, -0.3, -0.45])
def test_the_limit_of_the_second_step_of_eg_plus_comes_out(rho, pepit):
    """The distance never grows exactly while alpha <= 1 + 2 rho / gamma: found by bisection, without that formula."""
    low, high = 0.001, 1.0
    for _ in range(9):
        middle = (low + high) / 2
        grows = worst_case(EGPlus(1.0, middle), 1, "weak_minty", rho=rho, measure="distance") > 1 + 1e-4
        low, high = (low, middle) if grows else (middle, high)
    assert low == pytest.approx(1 + 2 * rho, abs=0.01)


def test_beyond_the_limit_a_game_attains_growth_and_before_it_none_does():
    for alpha, grows in ((0.35, False), (0.45, True)):
        game = WeakMinty(-0.3)
        z = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        saddle, solver = game.saddle(), EGPlus(1.0, alpha)
        state = solver.begin(saddle, z)
        for _ in range(200):
            state = solver.step(saddle, state)
        assert bool(state.z.norm() > 1) is grows


CASES = [
    (Bilinear(), solver)
    for solver in (GDA(0.1), Extragradient(0.5), Extragradient(0.1), OptimisticGDA(0.5), PastExtragradient(0.5),
                   RAPP(0.5), EGPlus(0.5))
] + [
    (Bilinear(3), Extragradient(0.5)),
    (Bilinear(radius=1.0), Extragradient(0.5)),
    (ConstrainedBilinear(0.0), Extragradient(0.5)),
    (ConstrainedBilinear(0.0), EGPlus(0.5)),
    (MatrixGame(), Extragradient("0.5/L")),
    (WeakMinty(-0.1), EGPlus(1.0)),
    (WeakMinty(-0.3), EGPlus(1.0, 0.3)),
]  # fmt: skip


@pytest.mark.parametrize(("game", "solver"), CASES, ids=repr)
def test_runs_on_the_zoo_stay_below_the_bound(game, solver):
    found = certificate(game, solver, game.starts(20))
    assert found is not None and found.holds and len(found.bounds) >= 1
    assert all(math.isfinite(m) and m >= 0 for m in found.measured)


SOLVED = [GDA(0.1), Extragradient(0.5), EGPlus(1.0), OptimisticGDA(0.5), PastExtragradient(0.5), RAPP(0.5)]


@pytest.mark.parametrize("solver", SOLVED, ids=repr)
def test_some_bilinear_game_attains_the_bound_of_their_class(solver):
    """Of F = c (y, -x) with c <= 1, all of them 1-Lipschitz, the worst c attains it; often it is 1."""
    bounds = certificate(Bilinear(), solver, Bilinear().starts(2)).bounds
    assert len(bounds) >= 6
    worst = torch.zeros(len(bounds), dtype=torch.float64)
    for c in torch.linspace(0.02, 1, 197, dtype=torch.float64):
        saddle = Saddle(Bilinear(scale=float(c)).saddle().operator, 1, lipschitz=1.0)
        state = solver.begin(saddle, torch.tensor([[1.0, 0.0]], dtype=torch.float64))
        for n in range(len(bounds)):
            state = solver.step(saddle, state)
            worst[n] = max(worst[n], float(saddle(state.z).square().sum()))
    assert worst.tolist() == pytest.approx(bounds, rel=2e-4)
    assert bool((worst <= torch.tensor(bounds, dtype=torch.float64)).all())


@pytest.mark.parametrize("solver", [GDA(0.1), Extragradient(0.1), OptimisticGDA(0.1), PastExtragradient(0.1)], ids=repr)
def test_with_short_steps_every_start_of_the_bilinear_game_attains_it(solver):
    found = certificate(Bilinear(), solver, Bilinear().starts(5))
    assert len(found.bounds) >= 6
    assert found.measured == pytest.approx(found.bounds, rel=2e-5)


def test_a_run_above_its_bound_is_told():
    found = certificate(Bilinear(), Extragradient(0.5), Bilinear().starts(3))
    low = type(found)(found.kind, found.measure, tuple(b / 2 for b in found.bounds), found.measured)
    assert not low.holds


@pytest.mark.parametrize(("game", "solver"), [
    (Forsaken(), Extragradient(0.5)),  # of no class
    (Bilinear(), Extragradient(0.37)),  # not in the file
    (Bilinear(), Extragradient("0.5/(t+1)")),  # changes
    (ConstrainedBilinear(0.1), Extragradient(0.5)),  # noise
    (Bilinear(), CurvatureEGPlus()),
], ids=repr)  # fmt: skip
def test_no_certificate_is_made_up(game, solver):
    assert certificate(game, solver, game.starts(2)) is None


def test_what_cannot_be_certified_is_refused(pepit):
    for solver in (AlternatingGDA(0.1), CurvatureEGPlus()):
        with pytest.raises(InputError, match="whose step is linear"):
            worst_case(solver, 1)
    with pytest.raises(InputError, match="expected a class of"):
        worst_case(GDA(0.1), 1, "convex")
