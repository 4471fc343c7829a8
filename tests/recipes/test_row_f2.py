"""Row F2: every method on every problem, carried out, gone on with, told with its claims."""

import re

import pytest

from danskin.errors import ConfigError
from danskin.gan import CONSTRAINTS
from danskin.recipes.f2.cost import estimate
from danskin.recipes.f2.plan import GANPlan, place, plan_of
from danskin.recipes.f2.study import gathered, run_study
from danskin.run.recipe import parse_yaml


@pytest.mark.slow
def test_smoke_runs_goes_on_with_more_seeds_and_refuses_another_plan(tmp_path):
    plan = plan_of("F2", "smoke")
    said = []
    result = run_study(plan, tmp_path / "f2", resume=False, say=said.append)
    assert len(said) == 1 + len(plan.configs) and not result["diverged"]
    assert {m["column"] for m in result["measured"] if m["case"] == "digits"} >= {
        *("W1", "floor of W1", "precision", "recall", "density", "coverage", "Fréchet", "nearer to training data"),
    }
    assert "F2" in (tmp_path / "f2/table.md").read_text() and (tmp_path / "f2/report.html").is_file()
    assert {p.stem for p in (tmp_path / "f2/figures").iterdir()} >= {"samples-digits", "w1-8-gaussians"}
    assert (tmp_path / "f2" / place("digits", "r3", 0) / "report.html").is_file()
    again = run_study(plan, tmp_path / "f2", resume=True, say=said.append)
    assert again["measured"] == result["measured"]
    with pytest.raises(ConfigError, match="new or empty"):
        run_study(plan, tmp_path / "f2", resume=False, say=said.append)
    other = GANPlan(**vars(plan) | {"configs": plan_of("F2", "small").configs})
    with pytest.raises(ConfigError, match="another plan"):
        run_study(other, tmp_path / "f2", resume=True, say=said.append)


@pytest.mark.parametrize("scale", ["smoke", "small", "images", "full"])
def test_plans_have_every_objective_and_constraint_and_say_what_they_can_show(scale):
    plan = plan_of("F2", scale)
    assert plan.says and plan.title and set(plan.names) == {m for _, m in plan.configs}
    assert len(list(plan.tasks())) == plan.seeds * len(plan.configs)
    if scale != "smoke":
        trainers = [config.trainer for config in plan.configs.values()]
        assert {type(t.objective).__name__ for t in trainers} >= {"Saturating", "NonSaturating", "Wasserstein"}
        assert {type(t.constraint).__name__ for t in trainers} >= {"WeightClip", "GradientPenalty", "R1R2"}
    published = plan_of("F2", "small").configs["8 Gaussians", "clip_published"].trainer
    assert published.constraint.c == 0.01 and published.critic_optimizer.lr == 5e-5 and published.critic_steps == 5


def test_vanilla_methods_have_no_constraint_and_digits_and_images_meet_every_one():
    small, images = (plan_of("F2", scale).configs for scale in ("small", "images"))
    for (_, method), config in (small | images).items():
        free = type(config.trainer.constraint) is CONSTRAINTS["none"]
        assert free == (method in ("saturating", "non_saturating")), method
    for case in ("digits", "MNIST", "Fashion-MNIST"):
        met = {type(config.trainer.constraint) for (c, _), config in (small | images).items() if c == case}
        assert met == set(CONSTRAINTS.values()), case


def judged(w1):
    return {
        "judged": {"n": 9, "w1": w1, "w1_floor": 0.04, "w2": w1, "certified": None, "copying": {"closer": 0.5},
                   "coverage": {"covered": 8, "modes": 8, "high_quality": 0.5, "near": 0.7}},
        "seconds": 1.0, "flags": [],
    }  # fmt: skip


def test_a_density_above_1_keeps_its_interval():
    plan = plan_of("F2", "small", 2)
    manifold = {"precision": 1.0, "recall": 0.5, "density": 4.0, "coverage": 0.25}
    image = judged(0.1)
    image["judged"] |= {"coverage": None, "classes": {"covered": 3, "classes": 10}, "manifold": manifold}
    result = gathered(plan, {("digits", "r3", s): image for s in range(2)})
    measured = {m["column"]: m for m in result["measured"]}
    assert measured["density"]["unit"] == "number" and measured["density"]["interval"] == [4, 4]
    assert measured["coverage"]["unit"] == "share" and measured["classes"]["mean"] == 0.3


def test_numbers_of_seeds_are_summarised_and_claims_can_come_out_false():
    plan = plan_of("F2", "small", 2)
    found = {(c, m, s): judged(0.1 + 0.02 * s) for c, m, s in plan.tasks() if c == "8 Gaussians"}
    result = gathered(plan, found)
    number = next(m for m in result["measured"] if (m["method"], m["column"]) == ("gp", "W1"))
    assert number["mean"] == pytest.approx(0.11) and number["n"] == 2 and number["interval"] is not None
    claims = {c["name"]: c for c in result["claims"]}
    assert claims["gradient penalty on 8 Gaussians"]["holds"]
    assert claims["clipping as published fails"]["outside"]  # had it come near the floor, it would be told
    assert claims["R3GAN on 25 Gaussians"]["holds"] is None
    lost = gathered(plan, found | {("8 Gaussians", "gp", 0): None})
    assert lost["diverged"] == ["8-gaussians/gp/seed-0"] and "1 runs diverged" in lost["note"]


def test_a_dry_run_says_what_it_will_cost(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("reproduce", "F2", "--dry-run")
    assert parse_yaml(done.out, "out")["runs"]["digits"]["r3"]["trainer"]["objective"]["name"] == "relativistic"
    assert re.search(r"about [0-9.]+ min of training", done.err) and not list(tmp_path.iterdir())
    assert estimate(plan_of("F2", "smoke")).count("s each") == len(plan_of("F2", "smoke").configs)
