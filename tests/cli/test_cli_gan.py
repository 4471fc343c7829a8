"""`danskin gan` on the command line."""

import json

FEW = ["data.train=400", "data.test=160", "trainer.steps=20", "judging.live=40", "judging.examples=60", "threads=1",
       "trainer.batch_size=16"]  # fmt: skip


def test_gan_trains_and_prints_its_numbers(cli, tmp_path):
    done = cli("gan", "gan_8_gaussians", *FEW, "--out", tmp_path / "a")
    assert done.code == 0, done.err
    assert "W1 to held-out examples" in done.out and "floor" in done.out and "modes covered" in done.out
    assert "step 2: W1" in done.err and (tmp_path / "a/report.html").is_file()
    again = cli("gan", "--resume", tmp_path / "a", "--json", "-q")
    assert again.code == 0 and json.loads(again.out)["steps"] == 20
    assert cli("report", tmp_path / "a").out.strip().endswith("report.html")
    assert cli("gan", *FEW, "--out", tmp_path / "a").code == 2
    assert cli("train", "--resume", tmp_path / "a").code == 2  # another kind of run


def test_gan_dry_run_and_errors(cli):
    done = cli("gan", "gan_digits", *FEW, "--dry-run")
    assert done.code == 0 and "relativistic" in done.out and "generator steps" in done.err
    assert cli("gan", "gan_digit").code == 4
    bad = cli("gan", "gan_digits", "trainer.stesp=3")
    assert bad.code == 2 and "did you mean 'steps'" in bad.err
    listed = {"constraints": "gradient_penalty", "objectives": "relativistic", "gan_recipes": "gan_digits",
              "player_optimizers": "extra_adam"}  # fmt: skip
    for kind, name in listed.items():
        assert name in cli("list", kind).out
    assert "lambda >= 0" in cli("show", "gradient_penalty").out
    assert "see `danskin show config`" in cli("gan", "trainer.constraint={name: spectral, mode: exakt}").err
    assert "generator_optimizer:" in cli("show", "config").out and "objectives:" in cli("show", "config").out
