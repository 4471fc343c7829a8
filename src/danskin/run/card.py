"""A model's card: what RobustBench keeps of an entry, and what it should keep."""

from __future__ import annotations

from typing import Any

_SETS = {"cifar10": "cifar10", "cifar100": "cifar100", "imagenet": "imagenet"}


def card(result: dict[str, Any]) -> dict[str, Any]:
    """The card of a verdict (the content of verdict.json).

    Holds the fields of a RobustBench entry under their names (accuracies in percent, as text) where they are known,
    the fields about a paper empty for the author to fill in, and under "danskin" all that tells one evaluation from
    another: hashes of model and data, suite with budgets, seed, counts and intervals, certificate, flags, cost.
    """
    suite, robust, name = result["suite"], result["robust"], result["model"]["name"]
    is_aa = suite in ("standard", "plus", "rand")
    return {
        "link": "",
        "name": name,
        "authors": "",
        "additional_data": None,
        "number_forward_passes": 1,
        "dataset": _SETS.get(result["data"]["name"], result["data"]["name"]),
        "venue": "",
        "architecture": "",
        "eps": result["radius"],
        "norm": result.get("set") or result["norm"].capitalize(),
        "clean_acc": f"{100 * result['clean']['value']:.2f}",
        "reported": None,
        "autoattack_acc": f"{100 * robust['value']:.2f}" if is_aa else None,
        "best_known_acc": f"{100 * robust['value']:.2f}",
        "AA+": suite == "plus",
        "external": None,
        "unreliable": any(flag["level"] == "warning" for flag in result["flags"]),
        "footnote": " ".join(flag["text"] for flag in result["flags"]),
        "danskin": {
            "version": result["danskin"],
            "model": result["model"],
            "data": result["data"],
            "suite": suite,
            "stages": result["stages"],
            "box": result["box"],
            "seed": result["seed"],
            "clean": result["clean"],
            "robust": robust,
            "certified": result["certified"],
            "expected": result["expected"],
            "per_class": result["per_class"],
            "flags": result["flags"],
            "quotable": result["quotable"],
            "settings": result["settings"],
            "cost": result["cost"],
        },
    }
