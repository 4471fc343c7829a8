"""`danskin doctor`: what works here, tried rather than looked up."""

from __future__ import annotations

import importlib
import platform
import sys
from typing import Any

_PACKAGES = (
    ("numpy", "", True),
    ("torch", "", True),
    ("typer", "run", True),
    ("rich", "run", True),
    ("pydantic", "run", True),
    ("ruamel.yaml", "run", True),
    ("safetensors", "run", True),
    ("sklearn", "data", False),
    ("PIL", "data", False),
    ("matplotlib", "report", False),
    ("jinja2", "report", False),
    ("ot", "ot", False),
)


def _row(what: str, ok: bool, detail: str, needed: bool = False) -> dict[str, Any]:
    return {"what": what, "ok": ok, "needed": needed, "detail": detail}


def examine() -> list[dict[str, Any]]:
    """One row per thing: what, whether it works, whether it is essential, detail or the command that brings it."""
    rows = [_row("python", sys.version_info >= (3, 11), platform.python_version(), True)]
    rows += [_package(*package) for package in _PACKAGES]
    if all(row["ok"] for row in rows if row["needed"]):
        rows += _torch() + _data()
    return rows


def _package(name: str, extra: str, needed: bool) -> dict[str, Any]:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a broken torchvision raises RuntimeError on import
        broken = "" if isinstance(error, ImportError) else f"does not import ({type(error).__name__}: {error}); "
        command = f"pip install 'danskin[{extra}]'" if extra else f"pip install {name}"
        return _row(name, False, broken.splitlines()[0] + command if broken else command, needed)
    return _row(name, True, str(getattr(module, "__version__", "installed")), needed)


def _torch() -> list[dict[str, Any]]:
    import torch

    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    low = f"a matrix product takes {_bfloat16_ratio():.2f} of its float32 time on this CPU"
    return [
        _row("threads", True, str(torch.get_num_threads())),
        _row("cuda", torch.cuda.is_available(), cuda),
        _row("mps", torch.backends.mps.is_available(), "Apple GPU" if torch.backends.mps.is_available() else "none"),
        _row("bfloat16", True, low),
        _row("distributed", torch.distributed.is_available(), "torchrun --nproc-per-node 2 -m danskin.cli train ..."),
    ]


def _bfloat16_ratio() -> float:
    """Time of a bfloat16 matrix product over that of a float32 one, each the best of five, interleaved."""
    import time

    import torch

    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    for _ in range(5):
        for dtype in best:
            a = torch.ones(512, 512, dtype=dtype)
            started = time.perf_counter()
            a @ a
            best[dtype] = min(best[dtype], time.perf_counter() - started)
    return best[torch.bfloat16] / best[torch.float32]


def _data() -> list[dict[str, Any]]:
    from danskin.data import DATASETS, data_folder, load
    from danskin.errors import DanskinError, MissingError

    rows = [_row("data folder", data_folder(None).is_dir(), str(data_folder(None)))]
    for name in DATASETS:
        try:
            rows.append(_row(f"data: {name}", True, repr(load(name))))
        except MissingError as error:
            rows.append(_row(f"data: {name}", False, error.command))
        except DanskinError as error:
            rows.append(_row(f"data: {name}", False, str(error).splitlines()[0]))
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Rows as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for row in rows:
        mark = "[green]yes[/]" if row["ok"] else "[red]NO[/]" if row["needed"] else "[yellow]no[/]"
        table.add_row(mark, row["what"], row["detail"].replace("[", r"\["))
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)
