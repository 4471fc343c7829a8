"""What result.json of a lecture row holds, in whatever way the row is carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import danskin
from danskin.recipes.claims import Claims, Measured
from danskin.run.record import environment


class Row(Protocol):
    """What every plan knows of itself."""

    @property
    def row(self) -> str: ...  # noqa: D102
    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def scale(self) -> str: ...  # noqa: D102
    @property
    def says(self) -> str: ...  # noqa: D102
    @property
    def seeds(self) -> int: ...  # noqa: D102
    @property
    def names(self) -> Mapping[str, str]: ...  # noqa: D102


def result_of(
    plan: Row, numbers: Measured, *, columns: Mapping[str, Sequence[str]], configs: Any, **own: Any
) -> dict[str, Any]:
    """Numbers beside what was published, and the row's claims judged.

    Args:
        plan: the row at its scale.
        numbers: summaries by (case, method, column, weights); column and case in the order of `columns`.
        columns: of each case.
        configs: everything that decides the numbers.
        own: what only this kind of row has, in place of what is empty here.
    """
    claims = Claims.of(plan.row)
    rows = []
    for key, found in numbers.items():
        where = dict(zip(("case", "method", "column", "weights"), key, strict=True))
        rows.append(where | dict(found) | {"published": claims.published_of(key)})
    return {
        "danskin": danskin.__version__,
        "row": plan.row,
        "title": plan.title,
        "scale": plan.scale,
        "says": plan.says,
        "seeds": list(range(plan.seeds)),
        "cases": list(columns),
        "methods": dict(plan.names),
        "columns": {case: list(found) for case, found in columns.items()},
        "attacks": {},
        "weights": ["-"],
        "data": {},
        "measured": rows,
        "forward_equivalents": {},
        "claims": [verdict.to_dict() for verdict in claims.judged(plan.scale, numbers)],
        "published": claims.sources,
        "configs": configs,
        **own,
        "environment": environment(),
    }
