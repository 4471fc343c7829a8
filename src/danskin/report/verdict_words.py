"""What a verdict's report says in words: what was asked, what speaks against the number, what it does not say.

All functions take the content of verdict.json, and fail with KeyError, TypeError or ValueError where it is not such.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from danskin.report.page import count_text, duration_text, parse_number

#: What a suite is, and what its number must not be taken for.
SUITES = {
    "standard": (
        "AutoAttack standard: APGD on cross-entropy, APGD-T, FAB-T and Square, at the published budgets",
        "The suite is AutoAttack's standard one, written anew: numbers compare with those of leaderboards where the "
        "data, the order of channels and the normalization are theirs. Attacks made for this model may find more.",
    ),
    "plus": (
        "AutoAttack plus: six attacks with restarts",
        "The suite is AutoAttack plus, which looks longer than the standard one: its number may be lower than those "
        "of leaderboards for the same model. Attacks made for this model may find more.",
    ),
    "rand": (
        "AutoAttack rand, for models that are random: APGD with gradients over 20 draws",
        "The suite is AutoAttack's for random models: it attacks gradients averaged over draws, and has no attack "
        "without gradients.",
    ),
    "fast": (
        "danskin's fast suite: APGD on cross-entropy, BETA, and a random search that gradients go on from",
        "The suite is danskin's own, not AutoAttack: it asks the same question with less work, and may miss what only "
        "thousands of queries find. Beside numbers of AutoAttack say so, or judge again with --suite standard.",
    ),
    "deep": (
        "danskin's deep suite: AutoAttack standard, then long basin hopping on what it leaves",
        "The suite begins with AutoAttack's standard one and looks much longer: its number may be lower than those of "
        "leaderboards for the same model. What AutoAttack alone says is in the table of attacks, after square.",
    ),
}
#: The same for a list of attacks of the user's own.
OWN = (
    "attacks of the user's own choice",
    "The attacks were chosen by whoever asked: the number compares with others only if they come from the same list "
    "of attacks with the same settings.",
)


def _bound(bound: Any) -> str:
    """A bound of the box, or the least and the largest where there are several."""
    if not isinstance(bound, list):
        return f"{float(bound):g}"
    inner = [v for each in bound for v in (each if isinstance(each, list) else [each])]
    while any(isinstance(v, list) for v in inner):
        inner = [v for each in inner for v in each]
    low, high = min(inner), max(inner)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def asked(found: Mapping[str, Any]) -> dict[str, Any]:
    """The question: model, data, ball, suite, seed, as texts."""
    radius, box = found["radius"], found["box"]
    if isinstance(radius, list):
        spread = [float(r) for r in radius] or [math.nan]
        low, high = f"{min(spread):.4g}", f"{max(spread):.4g}"
        text, exact = low if low == high else f"{low} to {high}, one radius per example", ""
    else:
        value, text = parse_number(radius), "" if radius is None else str(radius)
        exact = f"{value:.4g}" if value is not None and "/" in text else ""
    suite, n = str(found["suite"]), int(found["n"])
    return {
        "model": str(found["model"]["name"]), "data": str(found["data"]["name"]),
        "examples": f"{count_text(n)} {'example' if n == 1 else 'examples'}",
        "classes": len(found["data"].get("classes") or []),
        "norm": str(found.get("set") or found["norm"]), "radius": text, "exact": exact,
        "box": [_bound(b) for b in box or []],
        "grid": (found.get("asked") or {}).get("grid"), "seed": found["seed"],
        "suite": suite, "suite_text": SUITES.get(suite, OWN)[0], "version": str(found.get("danskin", "")),
    }  # fmt: skip


def flags(found: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Warnings and notes, each with a title, a text and what was counted."""
    out: dict[str, list[dict[str, Any]]] = {"warnings": [], "notes": []}
    for flag in found["flags"]:
        title, text = str(flag["name"]).replace("_", " ").strip(), str(flag["text"])
        row = {"title": title[:1].upper() + title[1:], "text": text, "numbers": flag.get("numbers") or {}}
        out["notes" if flag["level"] == "note" else "warnings"].append(row)
    return out


def doubtful(found: Mapping[str, Any]) -> bool:
    """Whether a flag says that the number is not to be quoted; older verdicts do not tell."""
    return found.get("quotable") is False


def diagnosis(found: Mapping[str, Any]) -> str:
    """What the model was looked at for faults on, and for how many passes; empty where it was not."""
    look = found.get("diagnosis")
    if not look:
        return ""
    n, tried, cost = int(look["examples"]), int(look["attacked"]), look["cost"]
    passes = f"{count_text(cost['forwards'])} forwards and {count_text(cost['backwards'])} backwards"
    attacked = f", and cheap attacks tried on {count_text(tried)}" if tried else ""
    one = "example" if n == 1 else "examples"
    return f"The model was looked at on {count_text(n)} {one}{attacked}: {passes}, counted in the cost."


def certifying(found: Mapping[str, Any]) -> dict[str, Any]:
    """What each method of the certificate was asked and proved, and the budget; empty where nothing is told."""
    proofs = found["certified"] or {}
    rows = [
        {
            "name": str(step["method"]), "tried": count_text(step["tried"]), "proved": count_text(step["proved"]),
            "over": count_text(step["over"]), "broken": count_text(step["broken"]),
            "seconds": duration_text(step["seconds"]),
        }
        for step in proofs.get("by_method") or []
    ]  # fmt: skip
    budget = proofs.get("budget")
    return {"rows": rows, "budget": "" if budget is None else f"{float(budget):.2g}"} if rows else {}


def expected(found: Mapping[str, Any]) -> str:
    """The mean over draws of being right, of a random model; empty where it is robust accuracy itself."""
    value = found.get("expected")
    random = isinstance(value, float) and abs(value - float(found["robust"]["value"])) > 1e-9
    return f"{100 * value:.2f} %" if random else ""  # type: ignore[operator]


def limits(found: Mapping[str, Any]) -> list[str]:
    """What the number does not say."""
    low, high = found["robust"]["interval"]
    n, random = int(found["n"]), expected(found)
    out = [
        "Attacks find errors, but cannot show that there are no others: robust accuracy is an upper bound, and a "
        "stronger attack may lower it.",
        "The certified share is a lower bound: what is proven, no attack in this ball can break, and none here "
        "broke an example that is proven. One that is not proven may still be safe: the proof may just be too coarse."
        if found["certified"]
        else "There are no certificates here, so nothing is proven from below; --certify auto asks for them.",
        SUITES.get(str(found["suite"]), OWN)[1],
    ]
    for stage in found["stages"]:
        if stage["left_out"]:
            out.append(f"The attack {stage['name']} was not run ({stage['left_out']}): the suite is not complete.")
    picked = "one example" if n == 1 else f"{count_text(n)} examples"
    out.append(
        f"The intervals say what chance does in picking {picked}, not how good the attacks are. That of robust "
        f"accuracy is ± {50 * (high - low):.1f} points; it takes about four "
        "times as many examples to halve it."
    )
    out.append("Other norms, larger radii, and changes such as rotations, blur or new classes were not asked about.")
    if random or found["suite"] == "rand" or any(flag["name"] == "random" for flag in found["flags"]):
        mean = f"; in the mean over draws {random} are right (expected robust accuracy)" if random else ""
        out.append(
            "The model is random: an example counts as robust if it is right in most draws at the worst point "
            f"found{mean}. With other draws this may come out a little different."
        )
    if (found.get("settings") or {}).get("precision") == "bfloat16":
        out.append(
            "Gradients were taken in bfloat16, which can only make attacks weaker; each success was confirmed in full "
            "precision."
        )
    return out
