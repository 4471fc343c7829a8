"""Row E6: it runs, its order holds, and a wrong bound would be seen."""

import pytest

from danskin.recipes.e6.cells import _told, cell, network
from danskin.recipes.sampling_study import plan_of, run_study


@pytest.mark.slow
def test_smoke_runs_and_its_claims_hold(tmp_path):
    result = run_study(plan_of("E6", "smoke"), tmp_path / "e6")
    assert not [c for c in result["claims"] if c["outside"]]
    assert (tmp_path / "e6" / "figures" / "bounds.svg").is_file() and (tmp_path / "e6" / "table.md").is_file()


def test_a_cell_is_multiples_of_the_exact_constant_in_order():
    settings = {"kind": "sine", "norm": 2, "exact": True, "sizes": [2, 4, 1], "steps": 20, "budget": 30}
    found = cell(settings, 0)
    numbers = found["numbers"]
    assert found["shares"]["in order"] == 1 and "exact (absolute)" in numbers
    assert 0.9 < numbers["search"] <= 1 + 1e-6 <= numbers["product"] + 2e-6
    assert numbers["LipSDP-neuron"] <= numbers["ECLipsE-Fast"] <= numbers["product"]


def test_a_bound_out_of_order_is_told():
    class Fake:
        def __init__(self, rows):
            self.bounds = rows
            self.lower = rows[0]

        def __getitem__(self, name):
            return next(b for b in self.bounds if b.method == name)

    from danskin.lipschitz import LipschitzBound

    rows = [LipschitzBound(v, k, m) for v, k, m in ((1.0, "lower", "search"), (0.9, "upper", "LipSDP-neuron"),
                                                    (2.0, "upper", "product"))]  # fmt: skip
    assert _told(Fake(rows), False)["shares"]["in order"] == 0


def test_networks_come_from_their_seed():
    settings = {"kind": "sine", "sizes": [2, 3, 1], "steps": 3}
    one, two, other = (network(settings, seed)[0][0].weight for seed in (0, 0, 1))
    assert bool((one == two).all()) and not bool((one == other).any())
