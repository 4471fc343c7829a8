"""The commands of `danskin`: arguments in, results on stdout, progress on stderr. No logic, lazy imports."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from danskin.cli import EXIT_INTERRUPTED, EXIT_MISSING, completion


class _Commands(TyperGroup):
    """Ctrl-C and SIGTERM end every command alike: with a sentence, and exit code 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:  # click would say "Aborted!" and end with 1
            print(f"danskin: interrupted; {stopped or 'nothing that was finished is lost'}", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from None


app = typer.Typer(
    name="danskin",
    cls=_Commands,
    help="Min-max machine learning: adversarial robustness, optimisers, games, distances, Lipschitz networks, GANs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, such as attack.ball.radius=4/255 seed=3.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Source = Annotated[Path, typer.Argument(help="Folder of a run, or a .safetensors file that danskin wrote.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Factory = Annotated[list[str] | None, typer.Option("--arg", help="key=value for the factory of a model.")]
Mean = Annotated[str | None, typer.Option(help="Per channel, 0.49,0.48,0.45: the model then sees (x-mean)/std.")]
Std = Annotated[str | None, typer.Option(help="Per channel, with --mean.")]
RunOut = Annotated[Path | None, typer.Option(help="Folder of the run; default runs/RECIPE/TIME.")]
Runs = Annotated[Path, typer.Option(help="Where runs are kept.")]
Resume = Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the full config and the work, and stop.")]


def _version(wanted: bool) -> None:
    if wanted:
        import danskin

        typer.echo(f"danskin {danskin.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


@app.command()
def train(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]...", help="A recipe (default: digits).", autocompletion=completion.recipes
        ),
    ] = None,
    resume: Resume = None,
    out: RunOut = None,
    runs: Runs = Path("runs"),
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train models, evaluate them, write a report. Under torchrun: on several processes."""
    from danskin.cli import training

    training.train(words or [], resume, out, runs, dry_run, as_json, quiet)


@app.command()
def gan(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]...",
            help="A recipe (default: gan_8_gaussians).",
            autocompletion=completion.gan_recipes,
        ),
    ] = None,
    resume: Resume = None,
    out: RunOut = None,
    runs: Runs = Path("runs"),
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a GAN, judge its samples by exact W1 beside the sampling floor, write a report. Under torchrun, too."""
    from danskin.cli import gan as command

    command.gan(words or [], resume, out, runs, dry_run, as_json, quiet)


@app.command()
def evaluate(
    source: Annotated[
        Path | None, typer.Argument(help="Folder of a run, or a .safetensors file that danskin wrote.")
    ] = None,
    overrides: Overrides = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Without SOURCE, any model: package.module:factory, a name of `danskin list models`, "
            "file.pt2, file.ts, file.onnx, hf:NAME, timm:NAME. With SOURCE: only this one of the run."
        ),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="fast, standard, plus, rand or deep: a full verdict with journal and report.")
    ] = None,
    ball: Annotated[str | None, typer.Option(help="linf:8/255, l2:0.5, l1:12; default with SOURCE: the run's.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights for --model: safetensors, or a torch state.")] = None,
    argument: Factory = None,
    mean: Mean = None,
    std: Std = None,
    data: Annotated[str | None, typer.Option(help="A name of `danskin list data`, folder:PATH or npz:FILE.")] = None,
    n: Annotated[
        int | None, typer.Option("--examples", "--n", help="The first N test examples; default: all.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the attacks of --suite.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Rows in the batch at a time; changes no result.", min=1)] = 256,
    precision: Annotated[
        str, typer.Option(help="model, bfloat16 for the gradients, or auto: what is quickest here.")
    ] = "model",
    uint8: Annotated[bool, typer.Option("--uint8", help="Only valid images of 8 bits count as adversarial.")] = False,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="Search in this memory format.")] = False,
    compile_: Annotated[bool, typer.Option("--compile", help="Search with torch.compile.")] = False,
    certify: Annotated[str, typer.Option(help="no, auto, lipschitz, ibp, crown-ibp, crown or alpha-crown.")] = "no",
    certify_budget: Annotated[
        float | None, typer.Option(help="Multiplications that --certify auto may spend on one example; default: 2e11.")
    ] = None,
    curve: Annotated[int, typer.Option(help="Examples for robust accuracy against the radius; 0: none.", min=0)] = 0,
    device: Device = "auto",
    out: Annotated[
        Path | None, typer.Option(help="With --suite the folder, else a JSON file. Asked again, nothing is redone.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """How robust is it, really? With --suite: AutoAttack or our fast suite, with journal, certificates and report.

    Without --suite: the attacks of the run's recipe (clean, FGSM, PGD, worst case). Under torchrun: on several
    processes.
    """
    from danskin.cli import judging

    if suite is None and source is not None:
        judging.evaluate(source, overrides or [], model, device, out, as_json, quiet)
        return
    judging.verdict(
        source, overrides or [], model, weights, argument or [], (mean, std), data,
        {"suite": suite or "standard", "n": n, "seed": seed, "batch_size": batch_size, "precision": precision,
         "channels_last": channels_last, "compile": compile_, "certificate": certify, "grid": 255 if uint8 else None,
         "budget": certify_budget, "curve": curve},
        ball, device, out, as_json, quiet,
    )  # fmt: skip


@app.command()
def attack(
    source: Source,
    overrides: Overrides = None,
    model: Annotated[str | None, typer.Option(help="Which model of the run; default: the last.")] = None,
    n: Annotated[int, typer.Option(help="Attack the first N test examples.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Of the attack.")] = 0,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Write x, y, adversarial, predictions to this .npz.")] = None,
    as_json: Json = False,
) -> None:
    """Attack a trained model on test examples; overrides change the attack (attack.name=fgsm)."""
    from danskin.cli import judging

    judging.attack(source, overrides or [], model, n, seed, device, out, as_json)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run or of a verdict.")],
) -> None:
    """Write report.html of a run or a verdict, finished or not, and print its path."""
    from danskin.cli import judging

    typer.echo(str(judging.report(run)))


@app.command()
def reproduce(
    row: Annotated[
        str,
        typer.Argument(help="A row of the lecture, such as C8 (`danskin list rows`).", autocompletion=completion.rows),
    ],
    scale: Annotated[
        str, typer.Option(help="smoke (a minute), small (a quarter of an hour) or full; G3 also mujoco.")
    ] = "smoke",
    seeds: Annotated[int | None, typer.Option(help="How many seeds; default: the recipe's own number.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time, a thread each; default: one per core.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default runs/reproduce/ROW-SCALE.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is there; seeds may be added.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Repeat a table or figure of the lecture: published numbers beside measured ones, claims checked.

    Exit code 3 when a claim that this scale can decide does not hold.
    """
    from danskin.cli import reproducing

    reproducing.reproduce(row, scale, seeds, jobs, out, resume, dry_run, as_json, quiet)


@app.command()
def play(
    game: Annotated[str, typer.Argument(help="A name of `danskin list games`.", autocompletion=completion.games)],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Settings of the game or of the solvers: eps=0.1 payoff=FILE.csv."
        ),
    ] = None,
    solver: Annotated[
        list[str] | None,
        typer.Option(
            help="A name of `danskin list solvers`; may be given several times. Default: gda and extragradient, or "
            "particles where a game is one of measures.",
            autocompletion=completion.solvers,
        ),
    ] = None,
    step: Annotated[
        str | None, typer.Option(help="Step size: 0.1, 0.5/L, or a text in t such as 0.5/(t+50)**0.75.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="How many; default: the game's own number.")] = None,
    starts: Annotated[int, typer.Option(help="How many, all in one batch; particles of each player.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the starts, and of the noise.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder; default runs/play/GAME/TIME.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let two players move: a game, solvers, a phase portrait, and whether what attracts is an equilibrium."""
    from danskin.cli import playing

    playing.play(game, words or [], solver or [], step, steps, starts, seed, out, as_json, quiet)


@app.command()
def sharpness(
    sources: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, or .safetensors files that danskin wrote.")
    ],
    split: Annotated[str, typer.Option(help="train (what was minimised) or test.")] = "train",
    n: Annotated[int, typer.Option("--examples", "--n", help="The first N examples.", min=1)] = 1000,
    radius: Annotated[str, typer.Option(help="Of the shift of all weights, in l2.")] = "0.05",
    adaptive_radius: Annotated[str, typer.Option(help="Of the shift relative to each weight.")] = "0.5",
    m: Annotated[int, typer.Option(help="Examples in a group with a worst shift of its own.", min=1)] = 64,
    steps: Annotated[int, typer.Option(help="Ascent steps of the thorough search.", min=1)] = 10,
    eigenvalues: Annotated[int, typer.Option(help="How many of the largest.", min=1)] = 3,
    draws: Annotated[int, typer.Option(help="Random vectors for the trace.", min=2)] = 50,
    lines: Annotated[int, typer.Option(help="Random directions of the figure.", min=1)] = 5,
    span: Annotated[str, typer.Option(help="How far along them, in lengths of the weights.")] = "1",
    points: Annotated[int, typer.Option(help="On a line, odd.", min=3)] = 21,
    plane: Annotated[int, typer.Option(help="Points on a side of a plane, odd; 0: no plane.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Of groups, vectors and directions.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Examples in a pass.", min=1)] = 256,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder; default runs/sharpness/TIME.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """How sharp are the minima? Hessian eigenvalues, trace, m-sharpness and loss surfaces of trained runs, compared."""
    from danskin.cli import sharp

    sharp.sharpness(
        sources,
        {"split": split, "examples": n, "radius": radius, "adaptive_radius": adaptive_radius, "m": m, "steps": steps,
         "eigenvalues": eigenvalues, "draws": draws, "lines": lines, "span": span, "points": points, "plane": plane,
         "seed": seed, "batch_size": batch_size},
        device, out, as_json, quiet,
    )  # fmt: skip


@app.command()
def distance(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="FILE.npy, FILE.npz, FILE.csv, a name of `danskin list data` or folder:PATH; with :train or :test.",
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="Likewise.")],
    q: Annotated[float, typer.Option(help="Order of W_q, at least 1.")] = 1.0,
    p: Annotated[str, typer.Option(help="Norm of the space: 1, 2 or inf.")] = "2",
    method: Annotated[str, typer.Option(help="exact, assignment or sinkhorn (a bracket).")] = "exact",
    tolerance: Annotated[float, typer.Option(help="Of sinkhorn's bracket, relative.")] = 1e-3,
    weights: Annotated[
        list[Path] | None, typer.Option(help="File with a weight for each point of A; once more: of B.")
    ] = None,
    sliced: Annotated[int, typer.Option(help="Sliced distances, too, over so many directions.", min=0)] = 0,
    points: Annotated[int, typer.Option(help="Of each sample at most; more are thinned out.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of thinning, halves and directions.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """How far is one sample from another? W_q with proof, beside the sampling floor: two halves of A."""
    from danskin.cli import measuring

    measuring.distance(
        (a, b), weights or [],
        {"q": q, "p": p, "method": method, "tolerance": tolerance, "points": points, "seed": seed,
         "directions": sliced},
        as_json, quiet,
    )  # fmt: skip


@app.command()
def lipschitz(
    model: Annotated[
        str,
        typer.Argument(
            help="Folder of a run, a .safetensors file that danskin wrote, or any model that evaluate --model opens: "
            "package.module:factory, a name of `danskin list models`, file.pt2, file.ts, file.onnx, hf:NAME, timm:NAME."
        ),
    ],
    norm: Annotated[str, typer.Option(help="2 or inf, of inputs and outputs alike.")] = "2",
    budget: Annotated[float, typer.Option(help="Seconds, for each model.")] = 30.0,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="search, regions, lipsdp, lipsdp-solver, lipsdp-layer, lipopt, seqlip, eclipse-fast or product; may "
            "be given several times; default: all that apply but lipsdp-solver."
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="Bounds near this input: the number of a test example, or a file.npy.")
    ] = None,
    radius: Annotated[float | None, typer.Option(help="With --at: of the ball (norm 2) or box (inf).")] = None,
    shape: Annotated[str | None, typer.Option(help="Of one input, such as 3,32,32; a run knows its own.")] = None,
    data: Annotated[str | None, typer.Option(help="In place of --shape: a name of `danskin list data`.")] = None,
    only: Annotated[str | None, typer.Option("--model", help="Only this model of a run.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights for a model that comes as code.")] = None,
    argument: Factory = None,
    mean: Mean = None,
    std: Std = None,
    seed: Annotated[int, typer.Option(help="Of the search for lower bounds.")] = 0,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """How far can outputs move when inputs do? Lower and upper bounds of the Lipschitz constant, side by side.

    For example: danskin lipschitz runs/digits/TIME, or danskin lipschitz mynets:net --shape 2 --norm inf.
    """
    from danskin.cli import bounding

    bounding.lipschitz(
        model, only, weights, argument or [], (mean, std), shape, data, norm, budget, method or [], at, radius, seed,
        device, as_json,
    )  # fmt: skip


@app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="attacks, balls, data, games, losses, models, solvers, rows, ...", autocompletion=completion.kinds
        ),
    ] = None,
    template: Annotated[bool, typer.Option("--template", help="Who is x, who is y, what is Y, what is Phi.")] = False,
    as_json: Json = False,
) -> None:
    """What there is, one line each."""
    from danskin.cli import catalog

    rows = catalog.template() if template else catalog.listing(kind)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        catalog.show_table(rows)


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A name from `danskin list`, a row such as C8, or config.", autocompletion=completion.names
        ),
    ],
) -> None:
    """What one thing is and which settings it has."""
    from danskin.cli import catalog

    typer.echo(catalog.describe(name))


@app.command()
def doctor(as_json: Json = False) -> None:
    """What works on this machine: torch, devices, extras, data sets. Exit code 4 if something essential is missing."""
    from danskin.cli import checkup

    rows: list[dict[str, Any]] = checkup.examine()
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        checkup.show(rows)
    if any(row["needed"] and not row["ok"] for row in rows):
        raise typer.Exit(EXIT_MISSING)
