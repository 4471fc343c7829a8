"""Write src/danskin/games/certificates.json: worst cases of solvers over classes of problems, by PEPit.

    python bench/game_certificates.py            # a few minutes; needs pepit

The steps of a solver are given as multiples of 1 / L. Bounds are rounded up by 2e-6. Where the semidefinite solver
did not reach the accuracy asked for, the entry ends before that number of steps.
"""

from __future__ import annotations

import json
import math
import sys
from importlib import metadata

from danskin.games import WeakMinty
from danskin.games.certificates import FILE, settings_of
from danskin.games.zoo import Bilinear
from danskin.minmax import GDA, RAPP, EGPlus, Extragradient, Lookahead, OptimisticGDA, PastExtragradient
from danskin.testing.certificates import worst_case

STEPS = 8
FAR = 30.0  # a bound that large says nothing


def asked():
    """(solver, class, rho, measure)."""
    solvers = [GDA(0.1), *(make(h) for make in (Extragradient,) for h in (0.1, 0.5, 1.0))]
    solvers += [make(h) for make in (OptimisticGDA, PastExtragradient) for h in (0.1, 0.5)]
    solvers += [EGPlus(h, 0.5) for h in (0.1, 0.5, 1.0)]
    solvers += [RAPP(0.5), RAPP(0.9), RAPP(0.1), Lookahead(GDA(0.1), 5, 0.5), Lookahead(Extragradient(0.1), 5, 0.5)]
    for solver in solvers:
        for kind in ("bilinear", "monotone", "constrained"):
            yield solver, kind, None, "residual"
    for rho, alpha in ((-0.1, 0.5), (-0.3, 0.3)):
        yield EGPlus(1.0, alpha), "weak_minty", rho, "distance"


def entry(solver, kind, rho, measure):
    bounds = []
    for n in range(1, STEPS + 1):
        try:
            value = worst_case(solver, n, kind, rho=rho or 0.0, measure=measure)
        except Exception as error:  # the semidefinite solver gave up
            print(f"  {n} steps: {type(error).__name__}: {error}", file=sys.stderr)
            break
        if not 0 < value < FAR:
            break
        bounds.append(math.ceil(value * (1 + 2e-6) * 1e6) / 1e6)
    saddle = (Bilinear() if rho is None else WeakMinty(rho)).saddle()
    found = {"solver": settings_of(solver, saddle), "class": kind, "rho": rho, "measure": measure, "bounds": bounds}
    print(json.dumps(found), file=sys.stderr)
    return found


def main():
    entries = [found for found in (entry(*question) for question in asked()) if found["bounds"]]
    versions = {name: metadata.version(name) for name in ("pepit", "cvxpy", "clarabel")}
    lines = ",\n  ".join(json.dumps(found) for found in entries)
    head = f'"by": "bench/game_certificates.py",\n "versions": {json.dumps(versions)}'
    FILE.write_text(f'{{{head},\n "entries": [\n  {lines}\n ]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
