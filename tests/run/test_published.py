"""Recipes of released code: each builds, says what it follows, and trains a step at small size."""

import pytest
import torch

from danskin.run.config import load_config
from danskin.run.recipe import RECIPES
from danskin.training import SGD, Constant, StandardTraining, Trainer

PUBLISHED = [name for name, path in RECIPES.items() if path.parent.name == "published"]
#: What a figure of each depends on that the defaults do not do.
QUIRKS = {
    "pgd_rice_2020": lambda c: (
        c.trainer.clean_pass and c.objective("pgd10").batchnorm == "train_update" and c.data.validation == "test"
    ),
    "fast_wong_2020": lambda c: [c.trainer.schedule.momentum(p) for p in (0, 0.5, 1)] == [0.9, 0.8, 0.9],
    "free_wong_2020": lambda c: c.objective("free").replays == 8,
    "gradalign_2020": lambda c: c.model.options["variant"] == "gradalign" and c.evaluation.weights == "last",
    "n_fgsm_2022": lambda c: c.attack.noise == 2,
    "elle_2024": lambda c: c.trainer.steps_per_batch == 2 and c.objective("llr").terms[0].quirks == "released",
    "trades_2019": lambda c: float(c.attack.ball.value) == 0.031 and c.trainer.optimizer.weight_decay == 2e-4,
    "mart_2020": lambda c: c.trainer.optimizer.weight_decay == 3.5e-3 and c.attack.start_noise == 0.001,
    "awp_2020": lambda c: c.objective("awp").decay == c.trainer.optimizer.weight_decay,
    "cfol_2023": lambda c: c.objective("cfol").gamma == 0.5,
    "cure_2019": lambda c: c.objective("cure").terms[0].rise == (0.02, 0.08, 0.16, 0.36) and c.trainer.epochs == 15,
    "trades_modern_2023": lambda c: c.objective("trades").batchnorm == "batch_frozen" and c.trainer.ema == 0.995,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_released_conventions_are_in_the_recipe(name):
    config = load_config(name)
    assert QUIRKS[name](config)
    assert RECIPES[name].read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_objective_makes_a_step(name):
    config = load_config(name, ["model.options.width=1" if "wide" in name else "model.options={}"])
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
                                torch.nn.Flatten(), torch.nn.Linear(900, 10))  # fmt: skip
    x, y = torch.rand(10, 3, 32, 32), torch.arange(10)
    for label in config.objectives:
        objective = config.objective(label)
        loss = objective(model, x, y, memory=objective.begin(), index=torch.arange(10))
        loss.backward()
        assert torch.isfinite(loss)


def test_a_clean_pass_reaches_the_buffers_and_nothing_else():
    x, y = torch.rand(8, 5), torch.arange(8) % 2
    seen = []
    for clean in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
        trainer = Trainer(epochs=1, batch_size=4, clean_pass=clean, optimizer=SGD(0.1), schedule=Constant())
        trainer.fit(trainer.start(model), StandardTraining(), (x, y), (x, y))
        seen.append((int(model[1].num_batches_tracked), [p.detach() for p in model.parameters()]))
    assert [tracked for tracked, _ in seen] == [2, 4]
    assert all(torch.equal(a, b) for a, b in zip(seen[0][1], seen[1][1], strict=True))


def test_two_steps_a_batch_are_two_steps_with_one_gradient():
    x, y = torch.rand(4, 5), torch.arange(4) % 2
    weights = []
    for steps in (1, 2):
        torch.manual_seed(0)
        model = torch.nn.Linear(5, 2)
        start = model.weight.detach().clone()
        plain = SGD(0.1, momentum=0.0, weight_decay=0.0)
        trainer = Trainer(epochs=1, batch_size=4, steps_per_batch=steps, optimizer=plain, schedule=Constant())
        trainer.fit(trainer.start(model), StandardTraining(), (x, y), (x, y))
        weights.append(model.weight.detach() - start)
    torch.testing.assert_close(weights[1], 2 * weights[0])
