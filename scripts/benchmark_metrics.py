"""Exact AUC, GAUC and the user bootstrap against scikit-learn and torchrec, in one process.

    OMP_NUM_THREADS=1 python scripts/benchmark_metrics.py --rows 1e7 --group-rows 1e6
    OMP_NUM_THREADS=1 python scripts/benchmark_metrics.py --rows 1e8 --cold

Prints CPU seconds (best of `--repeats`, peers once), the ratio to ours on the same arrays, and the
difference in value. Ratios of one run are comparable between machines, seconds are not.
"""

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torchrec.metrics.auc import compute_auc

from ranker.metrics.auc import auc
from ranker.metrics.bootstrap import (
    auc_statistic,
    cluster_index,
    gauc_statistic,
    poisson_bootstrap,
)
from ranker.metrics.gauc import gauc, group_aucs

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Scored impressions of users whose activity follows a power law, 10 % of them positive."""

    logits: Array  # [n] float32
    labels: Array  # [n] bool
    users: Array  # [n]


def draw_sample(rows: int, num_users: int) -> Sample:
    """A sample with an AUC of about 0.71; deterministic."""
    generator = np.random.default_rng(7)
    activity = 1 / np.arange(1, num_users + 1) ** 0.8
    bounds = np.cumsum(activity / activity.sum())
    users = np.searchsorted(bounds, generator.random(rows)).clip(0, num_users - 1)
    labels = generator.random(rows) < 0.1
    logits = generator.standard_normal(rows) + 0.8 * labels - 2
    return Sample(logits=logits.astype(np.float32), labels=labels, users=users)


def cpu_seconds(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Least CPU time of a call, and what it returned."""
    least, value = float("inf"), None
    for _ in range(repeats):
        start = time.process_time()
        value = function()
        least = min(least, time.process_time() - start)
    return least, value


def report(title: str, ours: tuple[float, float], peers: dict[str, tuple[float, float]]) -> None:
    """Print one workload: seconds, ratio to ours, and by how much the value differs from ours."""
    print(f"\n{title}")
    print(f"  {'ranker.metrics':24s} {ours[0]:9.3f} s            {ours[1]:.12f}")
    for name, (seconds, value) in peers.items():
        print(f"  {name:24s} {seconds:9.3f} s  {seconds / ours[0]:7.1f}x  {value - ours[1]:+.1e}")


def ours_auc(scores: Array, labels: Array) -> float:
    """Exact AUC of this project."""
    return float(auc(scores, labels))


def sklearn_auc(scores: Array, labels: Array) -> float:
    """Exact AUC of scikit-learn."""
    return float(roc_auc_score(labels, scores))


def torchrec_auc(scores: Array, labels: Array) -> float:
    """AUC of torchrec, which takes ties in the order of the rows."""
    one = torch.ones(1, len(labels))
    target = torch.from_numpy(labels.astype(np.float32))[None]
    return float(compute_auc(1, [torch.from_numpy(scores)[None]], [target], [one])[0])


def benchmark_auc(sample: Sample, repeats: int) -> None:
    """Plain AUC on logits, on probabilities, and on probabilities rounded to 1e-3."""
    probabilities = (1 / (1 + np.exp(-sample.logits.astype(np.float64)))).astype(np.float32)
    for title, scores in (
        ("logits", sample.logits),
        ("probabilities", probabilities),
        ("probabilities rounded to 1e-3", np.round(probabilities, 3)),
    ):
        ours = cpu_seconds(partial(ours_auc, scores, sample.labels), repeats)
        sklearn = cpu_seconds(partial(sklearn_auc, scores, sample.labels), 1)
        torchrec = cpu_seconds(partial(torchrec_auc, scores, sample.labels), 1)
        report(
            f"AUC, {len(scores):,} rows, {title}",
            ours,
            {"scikit-learn": sklearn, "torchrec": torchrec},
        )


def benchmark_cold(rows: int) -> None:
    """The first call of a process, which must touch fresh memory, and its peak."""
    generator = np.random.default_rng(7)
    logits, labels = np.empty(rows, dtype=np.float32), np.empty(rows, dtype=bool)
    # a block at a time, or drawing would leave memory behind that is fresh no more
    for start in range(0, rows, 1 << 20):
        block = slice(start, start + (1 << 20))
        labels[block] = generator.random(len(labels[block]), dtype=np.float32) < 0.1
        logits[block] = generator.standard_normal(len(labels[block]), dtype=np.float32) - 2
        logits[block] += 0.8 * labels[block]
    before = resource.getrusage(resource.RUSAGE_SELF)
    value = ours_auc(logits, labels)
    after = resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    print(f"\nAUC, {rows:,} rows, first call: {value:.12f}")
    print(f"  {user + system:.2f} CPU seconds, of which {system:.2f} in the kernel")
    print(f"  peak memory of the process {after.ru_maxrss / 2**20:.2f} GiB, rows included")


def loop_over_groups(sample: Sample) -> float:
    """GAUC as usually written: one scikit-learn call per user."""
    order = np.argsort(sample.users, kind="stable")
    bounds = np.flatnonzero(np.diff(sample.users[order])) + 1
    values, weights = [], []
    for rows in np.split(order, bounds):
        label = sample.labels[rows]
        if 0 < label.sum() < len(label):
            values.append(roc_auc_score(label, sample.logits[rows]))
            weights.append(len(rows))
    return float(np.average(values, weights=weights))


def benchmark_gauc(sample: Sample, repeats: int, *, with_loop: bool) -> None:
    """GAUC by user; the loop is slow, so only on the smaller sample."""
    ours = cpu_seconds(
        lambda: float(gauc(sample.logits, sample.labels, sample.users).impressions), repeats
    )
    peers = {}
    if with_loop:
        peers["loop over scikit-learn"] = cpu_seconds(lambda: loop_over_groups(sample), 1)
    num_users = np.unique(sample.users).size
    report(f"GAUC, {len(sample.labels):,} rows, {num_users:,} users", ours, peers)


def benchmark_bootstrap(sample: Sample, num_replicates: int) -> None:
    """User bootstrap of AUC and GAUC together, sorting included."""

    def run() -> dict[str, Array]:
        index, num_users = cluster_index(sample.users)
        parts = group_aucs(sample.logits, sample.labels, sample.users)
        return poisson_bootstrap(
            {
                "auc": auc_statistic(sample.logits, sample.labels, index),
                "gauc": gauc_statistic(parts, np.arange(num_users), num_users),
            },
            num_clusters=num_users,
            num_replicates=num_replicates,
        )

    seconds, replicates = cpu_seconds(run, 1)
    print(f"\nUser bootstrap, {len(sample.labels):,} rows, {num_replicates:,} replicates")
    print(
        f"  AUC and GAUC             {seconds:9.3f} s  {seconds / num_replicates * 1e3:.2f} ms each"
    )
    print(
        f"  standard errors          {replicates['auc'].std():.2e} {replicates['gauc'].std():.2e}"
    )


def main() -> None:
    """Run all workloads."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=float, default=1e7, help="rows of the AUC workload")
    parser.add_argument("--group-rows", type=float, default=1e6, help="rows of the GAUC loop")
    parser.add_argument("--replicates", type=int, default=200, help="of the bootstrap")
    parser.add_argument("--repeats", type=int, default=3, help="runs of which ours is the best")
    parser.add_argument("--cold", action="store_true", help="only the first call of the AUC")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.cold:
        benchmark_cold(int(options.rows))
        return
    large = draw_sample(int(options.rows), max(int(options.rows) // 50, 10))
    benchmark_auc(large, options.repeats)
    benchmark_gauc(large, options.repeats, with_loop=False)
    small = draw_sample(int(options.group_rows), max(int(options.group_rows) // 50, 10))
    benchmark_gauc(small, options.repeats, with_loop=True)
    benchmark_bootstrap(small, options.replicates)


if __name__ == "__main__":
    main()
