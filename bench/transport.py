"""Distances between samples beside POT called directly, scipy and geomloss: seconds, and what each answers.

    python bench/transport.py [--rounds 7] [--out bench/results/transport.json]

- exact: `wasserstein` (checks, plan, potentials, bracket, gradient-ready cost) beside `ot.dist` and `ot.emd2`, which
  returns a value. The overhead is the median over rounds of the difference of times that follow each other.
- line: beside scipy.stats.wasserstein_distance.
- sinkhorn: the time to a bracket within 0.1 %, its width, and where the truth lies; geomloss at three blurs beside it.
- batch: exact in a loop beside POT's batched solver.

One thread, and seconds of the processor that this process had: on a shared machine the clock measures others, too.
Peers that are not installed have no row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path

import torch
from measure import commit, machine, version

from danskin.transport import wasserstein, wasserstein_batch


def clouds(n, d, law, seed):
    """Two samples: a shifted normal law, or the same uniform law twice."""
    g = torch.Generator().manual_seed(seed)
    draw = torch.rand if law == "one law" else torch.randn
    x, y = (draw(n, d, generator=g, dtype=torch.float64) for _ in range(2))
    return x, y + (law == "shift")


def seconds(call, repeats):
    began = time.process_time()
    for _ in range(repeats):
        found = call()
    return (time.process_time() - began) / repeats, found


def paired(first, second, rounds, repeats):
    """Medians of both, and of their differences and ratios, round by round in turn."""
    first(), second()
    times = []
    for k in range(rounds):
        pair = [None, None]
        for side in (0, 1) if k % 2 else (1, 0):
            pair[side] = seconds((first, second)[side], repeats)[0]
        times.append(pair)
    return {
        "danskin_seconds": statistics.median(a for a, _ in times),
        "peer_seconds": statistics.median(b for _, b in times),
        "overhead_milliseconds": 1e3 * statistics.median(a - b for a, b in times),
        "ratio": statistics.median(a / b for a, b in times),
        "ratios": [a / b for a, b in times],
    }


def exact(rounds):
    import ot

    rows = []
    for n, d, law in ((16, 2, "shift"), (64, 2, "shift"), (256, 2, "shift"), (512, 2, "shift"), (512, 2, "one law"),
                      (512, 64, "shift"), (1024, 2, "shift"), (1024, 784, "shift"), (2048, 2, "shift")):  # fmt: skip
        x, y = clouds(n, d, law, n)
        u, v = x.numpy(), y.numpy()

        def direct(u=u, v=v):
            return ot.emd2([], [], ot.dist(u, v, metric="euclidean"), numItermax=10**9)

        found = paired(lambda x=x, y=y: wasserstein(x, y), direct, rounds, max(1, 2048 // n))
        row = {"n": n, "d": d, "law": law, **found, "difference": float(wasserstein(x, y).distance) - float(direct())}
        rows.append(row)
        print(f"exact    n {n:5d} d {d:3d} {law:8s} danskin {row['danskin_seconds'] * 1e3:9.3f} ms  POT "
              f"{row['peer_seconds'] * 1e3:9.3f} ms  overhead {row['overhead_milliseconds']:7.3f} ms  ratio "
              f"{row['ratio']:.3f}")  # fmt: skip
    return rows


def line(rounds):
    from scipy.stats import wasserstein_distance

    rows = []
    for n in (100, 10_000, 1_000_000):
        x, y = (part[:, 0] for part in clouds(n, 1, "shift", n))
        found = paired(
            lambda x=x, y=y: wasserstein(x, y), lambda x=x, y=y: wasserstein_distance(x.numpy(), y.numpy()),
            rounds if n < 10**6 else 3, max(1, 10_000 // n),
        )  # fmt: skip
        rows.append({"n": n, **found})
        print(f"line     n {n:7d} danskin {found['danskin_seconds'] * 1e3:9.3f} ms  scipy "
              f"{found['peer_seconds'] * 1e3:9.3f} ms")  # fmt: skip
    return rows


def sinkhorn():
    rows = []
    for n in (64, 256, 1024):
        for law in ("shift", "one law"):
            for q in (1, 2):
                for seed in range(3 if n < 1000 else 1):
                    x, y = clouds(n, 2, law, seed)
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        taken = min(
                            seconds(lambda x=x, y=y, q=q: wasserstein(x, y, q, method="sinkhorn"), 1)[0] for _ in "abc"
                        )
                        found = wasserstein(x, y, q, method="sinkhorn").bracket
                    exact_taken, known = seconds(lambda x=x, y=y, q=q: wasserstein(x, y, q), 3)
                    truth = known.bracket.value
                    rows.append({
                        "n": n, "law": law, "q": q, "seed": seed, "seconds": taken, "exact_seconds": exact_taken,
                        "gap": found.gap,
                        "lower_over_exact": found.lower / truth, "upper_over_exact": found.upper / truth,
                    })  # fmt: skip
                mine = [r for r in rows if (r["n"], r["law"], r["q"]) == (n, law, q)]
                print(f"sinkhorn n {n:5d} {law:8s} q {q}  " + "  ".join(
                    f"{1e3 * r['seconds']:6.1f} ms (gap {100 * r['gap']:.3f} %)" for r in mine))  # fmt: skip
    return rows


def geomloss():
    try:
        from geomloss import SamplesLoss
    except ImportError:
        return []
    rows = []
    x, y = clouds(256, 2, "shift", 0)
    truth = wasserstein(x, y).bracket.value
    for blur in (0.5, 0.05, 0.005):
        loss = SamplesLoss("sinkhorn", p=1, blur=blur, backend="tensorized")
        taken, value = seconds(lambda loss=loss: loss(x, y), 1)
        rows.append({"blur": blur, "seconds": taken, "over_exact": float(value) / truth})
        print(f"geomloss n   256 blur {blur:5g}  {1e3 * taken:8.1f} ms  value / exact {float(value) / truth:.4f}")
    return rows


def batch():
    import ot.batch

    x = torch.stack([clouds(32, 2, "one law", k)[0] for k in range(16)])
    y = torch.stack([clouds(32, 2, "one law", k)[1] for k in range(16)])
    cost = torch.cdist(x, y)
    taken, found = seconds(lambda: wasserstein_batch(x, y, threads=1), 3)
    quick, bracket = seconds(lambda: wasserstein_batch(x, y, method="sinkhorn"), 1)
    other, solved = seconds(lambda: ot.batch.solve_batch(cost), 1)
    wrong = (solved.plan * cost).sum((1, 2)) / found.distance
    row = {
        "pairs": 16, "n": 32, "exact_seconds": taken, "sinkhorn_seconds": quick,
        "sinkhorn_gap": float(((bracket.upper - bracket.lower) / bracket.upper).max()), "pot_batch_seconds": other,
        "pot_batch_over_exact_mean": float(wrong.mean()), "pot_batch_over_exact_worst": float(wrong.max()),
    }  # fmt: skip
    print(f"batch    16 pairs of 32: exact {1e3 * taken:.1f} ms, sinkhorn {1e3 * quick:.1f} ms, POT's batch "
          f"{1e3 * other:.0f} ms and {row['pot_batch_over_exact_mean']:.3f} of the value")  # fmt: skip
    return [row]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "transport.json")
    words = parser.parse_args()
    torch.set_num_threads(1)
    found = {"machine": machine(), "commit": commit(Path(__file__).parent),
             "versions": {name: version(name) for name in ("torch", "pot", "scipy", "geomloss")}}  # fmt: skip
    found |= {"exact": exact(words.rounds), "line": line(words.rounds), "sinkhorn": sinkhorn(), "geomloss": geomloss(),
              "batch": batch()}  # fmt: skip
    words.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
