"""What was published, and statements about measured numbers that can come out false.

`claims.yaml` of a row has tables of published numbers with their source, and claims: a difference of two measured
numbers (or one alone) with a bound. Shares are written in percent there. Numbers of papers and slides live in these
files only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from danskin.errors import ConfigError
from danskin.recipes.rows import ALL
from danskin.recipes.scales import SCALES
from danskin.run.recipe import read_mapping

Key = tuple[str, str, str, str]
Measured = Mapping[Key, Mapping[str, Any]]


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    Args:
        name: of the claim.
        says: the claim as a sentence.
        source: who says so.
        value: what was measured, in percent points for shares; None if it was not.
        bounds: (least, most) that the value may have, without tolerance; None where open.
        tolerance: by how much it may miss them.
        checked: whether this scale can decide it.
        holds: None where nothing was measured.
    """

    name: str
    says: str
    source: str
    value: float | None
    bounds: tuple[float | None, float | None]
    tolerance: float
    checked: bool
    holds: bool | None

    @property
    def outside(self) -> bool:
        """Whether it was to be decided here and did not come true."""
        return self.checked and not self.holds

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"bounds": list(self.bounds), "outside": self.outside}


@dataclass(frozen=True)
class Claims:
    """The claims file of a row.

    Args:
        sources: source and setting of the published tables, each once.
        published: in percent, by (case, method, column, weights).
        claims: as written.
    """

    sources: list[dict[str, Any]]
    published: dict[Key, float]
    claims: list[dict[str, Any]]

    @staticmethod
    def of(row: str) -> Claims:
        """The claims of a row."""
        return Claims.read(read_mapping(ALL[row] / "claims.yaml"))

    @staticmethod
    def read(node: Mapping[str, Any]) -> Claims:
        """From plain data.

        Raises:
            ConfigError: a claim without a bound, or of a scale that there is not.
        """
        sources: list[dict[str, Any]] = []
        published = {}
        for table in node.get("published") or []:
            source = {k: table[k] for k in ("source", "setting", "note") if k in table}
            sources += [source] if source not in sources else []
            for method, columns in table["table"].items():
                for column, numbers in columns.items():
                    numbers = numbers if isinstance(numbers, list) else [numbers]
                    for weights, number in zip(table["weights"], numbers, strict=True):
                        if number is not None:
                            published[str(table.get("case", "")), method, column, weights] = float(number)
        claims = list(node.get("claims") or [])
        for claim in claims:
            if not {"at_least", "at_most"} & claim.keys() or not set(claim["scales"]) <= set(SCALES):
                raise ConfigError(f"claim {claim.get('name')!r}: expected at_least or at_most, and known scales")
        return Claims(sources, published, claims)

    def published_of(self, key: Key) -> float | None:
        """The published number, in percent."""
        return self.published.get(key)

    def judged(self, scale: str, measured: Measured) -> list[Verdict]:
        """Every claim against what was measured; none at a scale of the row's own, which no claim is about."""
        if scale not in SCALES:
            return []
        return [_judged(claim, scale, measured) for claim in self.claims]


def _judged(claim: Mapping[str, Any], scale: str, measured: Measured) -> Verdict:
    more, less = _number(claim["more"], measured), _number(claim.get("less", 0), measured)
    value = None if more is None or less is None else more - less
    least, most = claim.get("at_least"), claim.get("at_most")
    tolerance, holds = float(claim.get("tolerance", 0)), None
    if value is not None:
        low, high = -math.inf if least is None else least, math.inf if most is None else most
        holds = low - tolerance <= value <= high + tolerance
    return Verdict(
        claim["name"], " ".join(claim["says"].split()), claim.get("source", ""), value, (least, most), tolerance,
        scale in claim["scales"], holds,
    )  # fmt: skip


def _number(node: Any, measured: Measured) -> float | None:
    """A number as written, the mean of a measured one (shares in percent), or `minus`: [one, another]."""
    if not isinstance(node, Mapping):
        return float(node)
    if "minus" in node:
        one, another = (_number(part, measured) for part in node["minus"])
        return None if one is None or another is None else one - another
    key = str(node.get("case", "")), node["method"], node["column"], node.get("weights", "-")
    found = measured.get(key)
    if found is None:
        return None
    return float(found["mean"]) * (100 if found["unit"] == "share" else 1)
