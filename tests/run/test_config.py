"""Recipes: what is read is what is meant; what is wrong is told with its path."""

import pytest
import torch

from danskin.attacks import FGSM, PGD
from danskin.errors import ConfigError, MissingError
from danskin.minmax import L2, Linf
from danskin.recipes import RECIPES
from danskin.run.config import DataConfig, EvaluationConfig, TrainConfig, load_config
from danskin.run.recipe import override, parse_yaml, read_recipe, to_yaml
from danskin.run.schema import build, plain
from danskin.training import SGD, AdamW, AdversarialTraining, Augment, Cosine, OneCycle, Piecewise, StandardTraining

RECIPE = """
data: {name: cifar10, validation: 1000}
model: {name: small_cnn, options: {width: 32}}
attack: {name: pgd, ball: {name: linf, radius: 8/255}, steps: 10, step: 2/255, keep: last}
trainer:
  optimizer: {name: sgd, lr: 0.05, momentum: 0.8}
  schedule: {name: one_cycle, peak: 0.3}
"""


@pytest.fixture
def recipe(tmp_path):
    """A recipe that is not one of those shipped, which may change."""
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return path


def read(text):
    return build(TrainConfig, parse_yaml(text, "test"))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_shipped_recipes_survive_the_round_trip(name):
    config = load_config(name)
    assert config.name == name
    assert build(TrainConfig, plain(config)) == config
    assert read(to_yaml(config)) == config
    assert to_yaml(read(to_yaml(config))) == to_yaml(config)


def test_default_config_survives_the_round_trip():
    assert read(to_yaml(TrainConfig())) == TrainConfig()


def test_everything_set_survives_the_round_trip():
    text = """
    attack: {name: pgd, ball: {name: l2, radius: 128/255}, steps: 3, step: 2.5*radius/steps, box: null}
    monitor: {name: fgsm, ball: {name: linf, radius: 0.1}, loss: margin}
    trainer:
      optimizer: {name: adamw, betas: [0.5, 0.9]}
      schedule: {name: piecewise, milestones: [0.3, 0.6], factor: 0.2}
      ema: 0.99
      clip: 1
      augment: {crop: 2, flip: true}
    evaluation:
      attacks:
        - {name: fgsm, ball: {name: linf, radius: 1/255}}
        - {name: pgd, ball: {name: l2, radius: 1}}
    """
    config = read(text)
    assert config.attack == PGD(L2("128/255"), 3, "2.5*radius/steps", box=None)
    assert config.trainer.optimizer == AdamW(betas=(0.5, 0.9))
    assert config.trainer.schedule == Piecewise((0.3, 0.6), 0.2)
    assert config.trainer.augment == Augment(2, True)
    assert config.evaluation.attacks == (FGSM(Linf("1/255")), PGD(L2(1)))
    assert read(to_yaml(config)) == config


def test_fractions_are_kept_and_printed(recipe):
    config = load_config(recipe)
    assert config.attack.ball == Linf("8/255")
    assert "radius: 8/255" in to_yaml(config)
    assert "Linf(radius='8/255')" in repr(config.attack)
    assert float(torch.as_tensor(config.attack.ball.value)) == pytest.approx(8 / 255)


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1E-3"])
def test_numbers_with_exponents_are_numbers(text, recipe):
    assert load_config(recipe, [f"trainer.optimizer.lr={text}"]).trainer.optimizer.lr == 0.001


def test_yaml_is_version_1_2():
    assert parse_yaml("{a: no, b: off, c: 012, d: 1e3}", "test") == {"a": "no", "b": "off", "c": 12, "d": 1000.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: {epoch: 3}", r"^trainer\.epoch: expected a known key, got 'epoch'; did you mean 'epochs'\?$"),
        ("atack: pgd", r"^atack: expected a known key, got 'atack'; did you mean 'attack'\?$"),
        ("attack: {name: pdg, ball: {name: linf, radius: 1}}", r"^attack\.name: .* got 'pdg'; did you mean 'pgd'\?$"),
        ("attack: {name: pgd, ball: {name: li, radius: 1}}", r"^attack\.ball\.name: .*'li'; did you mean 'linf'\?$"),
        ("attack: {name: pgd, ball: {name: linf, eps: 1}}", r"^attack\.ball\.eps: .*; choose from radius$"),
        ("attack: {name: pgd, ball: {radius: 1}}", r"^attack\.ball\.name: .*, got nothing; choose from l1, l2, linf$"),
        ("attack: fgsm", r"^attack: expected a value for 'ball', got none; add it$"),
        ("trainer: {epochs: many}", r"^trainer\.epochs: expected integer.*, got 'many'; see"),
        ("trainer: {epochs: 2.5}", r"^trainer\.epochs: expected integer.*, got 2\.5; see"),
        ("trainer: 3", r"^trainer: expected a mapping of keys and values, got 3; write key: value$"),
        ("trainer: {precision: float16}", r"^trainer\.precision: expected 'float32' or 'bfloat16', got 'float16'"),
        ("data: {name: [1]}", r"^data\.name: expected string, got \[1\]"),
        ("loss: entropy", r"^loss: expected .*'cross_entropy'.*, got 'entropy'"),
        ("attack: {name: pgd, ball: {name: linf, radius: -0.1}}", r"^attack\.ball: .*radius.*-0\.1"),
        (
            "attack: {name: pgd, ball: {name: linf, radius: 8/}}",
            r"^attack\.ball: .*got '8/'; write for example",
        ),
        (
            "evaluation: {attacks: {name: fgsm}}",
            r"^evaluation\.attacks: expected a list, got .*; write it as \[",
        ),
        (
            "evaluation: {attacks: [{name: fgsm, ball: {name: linf, radius: 1}}, {name: fsgm}]}",
            r"^evaluation\.attacks\[1\]\.name: .*'fsgm'; did you mean 'fgsm'\?$",
        ),
        ("evaluation: {batch_size: 0}", r"^evaluation: batch_size: expected at least 1, got 0"),
        ("objectives: [standard, standard]", r"^objectives: expected .*each once, got \['standard', 'standard'\]"),
        ("objectives: []", r"^objectives: expected 'standard', 'adversarial' or both"),
        ("objectives: [robust]", r"^objectives: expected 'standard' or 'adversarial', got"),
        ("seed: -1", r"^seed: expected a number >= 0, got -1"),
        ("checkpoint_every: -1", r"^checkpoint_every: expected a number >= 0, got -1"),
        ("trainer: {ema: 2}", r"^trainer: Trainer\.ema: expected a decay between 0 and 1, got 2\.0"),
        ("trainer: {optimizer: {name: sgd, lr: 0}}", r"^trainer\.optimizer: SGD\.lr: expected a number above 0"),
        ("- 1", r"^recipe: expected a mapping of keys and values, got \[1\]"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(text, message):
    with pytest.raises(ConfigError, match=message):
        read(text)


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "just words\n", ""])
def test_recipe_that_is_not_a_mapping(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"r\.yaml: expected a mapping of keys and values, got (list|str|NoneType);"):
        read_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize("text", ["a: [1, 2", "a: b: c", "\tx: 1", "a: 1\na: 2\n", "%%%"])
def test_recipe_that_is_not_yaml(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"r\.yaml: expected YAML, got a text that does not parse"):
        read_recipe(tmp_path / "r.yaml")


def test_recipe_that_is_not_text(tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match=r"r\.yaml: expected"):
        read_recipe(tmp_path / "r.yaml")


def test_yaml_runs_no_code():
    with pytest.raises(ConfigError):
        parse_yaml("!!python/object/apply:os.system [exit 1]", "test")


def test_unknown_recipe():
    with pytest.raises(MissingError, match=r"recipe: expected a file or one of .*, got 'digit'; did you mean 'digits'"):
        read_recipe("digit")


def test_unknown_data_set():
    with pytest.raises(ConfigError, match=r"data\.name: expected a known .*, got 'cifar'; did you mean 'cifar10'"):
        load_config("digits", ["data.name=cifar"])


def test_own_recipe_is_named_by_its_file(recipe):
    assert load_config(recipe).name == "mine"


NODE = {"a": {"name": "x", "p": 1, "q": {"r": 2}}, "s": 3}


@pytest.mark.parametrize(
    ("texts", "result"),
    [
        (["s=4"], {**NODE, "s": 4}),
        (["a.p=5"], {"a": {"name": "x", "p": 5, "q": {"r": 2}}, "s": 3}),
        (["a.q.r=[1, 2]"], {"a": {"name": "x", "p": 1, "q": {"r": [1, 2]}}, "s": 3}),
        (["a.name=y"], {"a": {"name": "y"}, "s": 3}),  # the old options belonged to x
        (["a.name=x"], NODE),
        (["a.name=y", "a.p=7"], {"a": {"name": "y", "p": 7}, "s": 3}),
        (["a.p=7", "a.name=y"], {"a": {"name": "y", "p": 7}, "s": 3}),  # the name first, wherever it stands
        (["a.q.r=9", "a.q.name=u", "a.name=y", "a=z"], {"a": {"name": "y", "q": {"name": "u", "r": 9}}, "s": 3}),
        (["s=4", "s=5"], {**NODE, "s": 5}),
        (["new.b.c=1"], {**NODE, "new": {"b": {"c": 1}}}),
        (["s.p=1"], {**NODE, "s": {"p": 1}}),
        (["a="], {"a": None, "s": 3}),
        (["a=z", "a.p=2"], {"a": {"name": "z", "p": 2}, "s": 3}),
        (["a={p: 8/255}"], {"a": {"p": "8/255"}, "s": 3}),
        ([" s = 4"], {**NODE, "s": 4}),
        (["s=a=b"], {**NODE, "s": "a=b"}),
    ],
)
def test_override(texts, result):
    import copy

    assert override(copy.deepcopy(NODE), texts) == result


@pytest.mark.parametrize("text", ["epochs", "=3", " =3"])
def test_override_without_key_or_value(text):
    with pytest.raises(ConfigError, match=r"override: expected key=value, got .*; write for example trainer\.epochs=5"):
        override({}, [text])


def test_override_that_is_not_yaml():
    with pytest.raises(ConfigError, match=r"override a: expected YAML"):
        override({}, ["a=[1"])


def test_another_attack_keeps_what_all_attacks_have(recipe):
    attack = load_config(recipe, ["attack.loss=margin", "attack.name=fgsm"]).attack
    assert attack == FGSM(Linf("8/255"), loss="margin")


def test_another_ball_does_not_keep_the_radius(recipe):
    with pytest.raises(ConfigError, match=r"attack\.ball: expected a value for 'radius', got none; add it"):
        load_config(recipe, ["attack.ball.name=l2"])
    assert load_config(recipe, ["attack.ball.name=l2", "attack.ball.radius=0.5"]).attack.ball == L2(0.5)


def test_another_optimiser_schedule_model_start_from_their_defaults(recipe):
    words = ["trainer.optimizer.name=adamw", "trainer.schedule=cosine", "model.name=mlp"]
    config = load_config(recipe, words)
    assert (config.trainer.optimizer, config.trainer.schedule, config.model.options) == (AdamW(), Cosine(), {})


def test_name_of_the_recipe_itself_replaces_nothing(recipe):
    config = load_config(recipe, ["name=other"])
    assert (config.name, config.trainer.optimizer) == ("other", SGD(0.05, 0.8))


def test_objectives_of_a_config(recipe):
    config = load_config(recipe, ["batchnorm=batch_frozen", "loss=margin"])
    assert config.objective("standard") == StandardTraining("margin")
    assert config.objective("adversarial") == AdversarialTraining(config.attack, "margin", "batch_frozen")


def test_configs_are_values():
    assert DataConfig() == DataConfig() and hash(EvaluationConfig()) == hash(EvaluationConfig())


def test_a_choice_without_a_name_is_the_default_one(tmp_path):
    (tmp_path / "r.yaml").write_text("seed: 1\n")
    config = load_config(tmp_path / "r.yaml", ["trainer.optimizer.lr=0.02", "trainer.schedule.peak=0.3"])
    assert config.trainer.optimizer == SGD(lr=0.02)
    assert config.trainer.schedule == OneCycle(peak=0.3)
