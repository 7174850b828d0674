"""Do the intervals hold what they promise? Coverage and false-positive rates on simulated data.

OMP_NUM_THREADS=1 python scripts/interval_coverage.py

Two worlds. In the first, rows are independent (what DeLong assumes). In the second, users differ in
how often they click, in how well they are ranked and in how many rows they have (what impressions
look like). Truth is the metric on a very large sample of the same world. A 95 % interval should
cover it in 93 to 97 % of the data sets; a test at 5 % of equal models should reject in 4 to 6 %.
"""

import argparse
import math
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import trange

from ranker.metrics.auc import auc
from ranker.metrics.bootstrap import (
    auc_statistic,
    cluster_index,
    debiased_interval,
    gauc_statistic,
    paired_difference,
    percentile_interval,
    poisson_bootstrap,
)
from ranker.metrics.calibration import error_of_runs, expected_calibration_error
from ranker.metrics.delong import delong_interval, delong_test
from ranker.metrics.evaluation import EvaluationRows
from ranker.metrics.gauc import group_aucs, summarize
from ranker.metrics.resample import Resampler
from ranker.metrics.roc import average_precision, average_precision_of_runs
from ranker.metrics.runs import score_runs
from ranker.metrics.value import Interval

Array = NDArray[Any]

COVERAGE_RANGE = (0.93, 0.97)
REJECTION_RANGE = (0.04, 0.06)
SIGNIFICANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Rows scored by two models that are equally good but err differently."""

    users: Array  # [n]
    labels: Array  # [n]
    first: Array  # [n]
    second: Array  # [n]


def draw_independent(generator: np.random.Generator, rows: int) -> Sample:
    """Rows of their own: three in ten positive, scores of positives shifted by one."""
    labels = generator.random(rows) < 0.3
    common = generator.standard_normal(rows)
    noise = generator.standard_normal((2, rows))
    scores = labels + 0.8 * common + 0.6 * noise
    return Sample(users=np.arange(rows), labels=labels, first=scores[0], second=scores[1])


def draw_users(generator: np.random.Generator, num_users: int) -> Sample:
    """Rows of users: rate, ranking quality, score level and activity are the user's own."""
    counts = 1 + generator.geometric(0.08, num_users)
    users = np.repeat(np.arange(num_users), counts)
    rate = 1 / (1 + np.exp(1.2 - 0.8 * generator.standard_normal(num_users)))
    labels = generator.random(len(users)) < rate[users]
    quality = 1 + 0.5 * generator.standard_normal((2, num_users))
    level = 0.5 * generator.standard_normal((2, num_users))
    common = generator.standard_normal(len(users))
    noise = generator.standard_normal((2, len(users)))
    scores = quality[:, users] * labels + level[:, users] + 0.8 * common + 0.6 * noise
    return Sample(users=users, labels=labels, first=scores[0], second=scores[1])


class Tally:
    """How often an event happened, with the standard error of the share."""

    def __init__(self, name: str, allowed: tuple[float, float]) -> None:
        self.name, self.allowed = name, allowed
        self.hits = self.count = 0

    def add(self, happened: bool) -> None:
        """Counts one data set."""
        self.hits += happened
        self.count += 1

    @property
    def holds(self) -> bool:
        """Whether the share is in the allowed range."""
        return self.allowed[0] <= self.hits / self.count <= self.allowed[1]

    def __str__(self) -> str:
        share = self.hits / self.count
        error = math.sqrt(share * (1 - share) / self.count)
        verdict = "ok" if self.holds else "OUT OF RANGE"
        low, high = self.allowed
        return (
            f"{self.name:58s} {share:6.1%} +- {error:.1%}  (allowed {low:.0%} to {high:.0%}, "
            f"{self.count:,} data sets)  {verdict}"
        )


def covers(interval: Interval, truth: float) -> bool:
    """Whether the truth is inside."""
    low, high = interval.bounds()
    return low <= truth <= high


def check_delong(num_datasets: int, rows: int, seed: int) -> list[Tally]:
    """DeLong's interval and paired test on independent rows."""
    # positives and negatives are N(1, 1) and N(0, 1): AUC = Phi(1 / sqrt 2)
    truth = 0.5 * (1 + math.erf(0.5))
    coverage = Tally(f"DeLong interval of the AUC, {rows} independent rows", COVERAGE_RANGE)
    rejections = Tally(f"DeLong paired test, {rows} independent rows", REJECTION_RANGE)
    for number in trange(num_datasets, desc="DeLong", disable=None):
        sample = draw_independent(np.random.default_rng((seed, 0, number)), rows)
        coverage.add(covers(delong_interval(score_runs(sample.first, sample.labels)), truth))
        test = delong_test(sample.first, sample.second, sample.labels)
        assert test.p_value is not None
        rejections.add(test.p_value < SIGNIFICANCE)
    return [coverage, rejections]


def check_bootstrap(
    num_datasets: int, num_users: int, num_replicates: int, seed: int
) -> list[Tally]:
    """The user bootstrap on correlated rows: intervals of AUC and GAUC, paired tests of both."""
    large = draw_users(np.random.default_rng((seed, 1)), 300_000)
    truth = {
        "auc": float(auc(large.first, large.labels)),
        "gauc": float(summarize(group_aucs(large.first, large.labels, large.users)).impressions),
    }
    coverage = {
        name: Tally(f"user bootstrap interval of {name}, {num_users} users", COVERAGE_RANGE)
        for name in truth
    }
    rejections = {
        name: Tally(f"user bootstrap paired test of {name}, {num_users} users", REJECTION_RANGE)
        for name in truth
    }
    naive = Tally("for contrast: DeLong interval of the AUC on these rows", (0.0, 1.0))
    for number in trange(num_datasets, desc="bootstrap", disable=None):
        sample = draw_users(np.random.default_rng((seed, 2, number)), num_users)
        values, replicates = resample(sample, num_replicates, seed=number)
        for name, true in truth.items():
            drawn = replicates[f"first {name}"], replicates[f"second {name}"]
            interval = percentile_interval(drawn[0], num_clusters=num_users)
            coverage[name].add(covers(interval, true))
            paired = paired_difference(
                values[f"first {name}"], values[f"second {name}"], *drawn, num_clusters=num_users
            )
            assert paired.p_value is not None
            rejections[name].add(paired.p_value < SIGNIFICANCE)
        naive.add(covers(delong_interval(score_runs(sample.first, sample.labels)), truth["auc"]))
    return [*coverage.values(), *rejections.values(), naive]


def check_curves(num_datasets: int, num_users: int, num_replicates: int, seed: int) -> list[Tally]:
    """Average precision, and the calibration error of probabilities that are off."""

    def evaluation(sample: Sample) -> EvaluationRows:
        chance = 1 / (1 + np.exp(1.4 - 0.8 * sample.first))
        return EvaluationRows(
            labels=sample.labels,
            logits=sample.first,
            probabilities=chance,
            weights=None,
            users=sample.users,
            groups=sample.users,
            requests=sample.users,
            truth=None,
        )

    error = partial(error_of_runs, num_bins=20)
    large = evaluation(draw_users(np.random.default_rng((seed, 3)), 300_000))
    true_precision = float(average_precision(large.logits, large.labels))
    true_error = float(expected_calibration_error(large.probabilities, large.labels))
    precision = Tally(f"user bootstrap interval of PR-AUC, {num_users} users", COVERAGE_RANGE)
    calibration = Tally(f"user bootstrap interval of ECE, {num_users} users", COVERAGE_RANGE)
    for number in trange(num_datasets, desc="curves", disable=None):
        rows = evaluation(draw_users(np.random.default_rng((seed, 4, number)), num_users))
        resampler = Resampler(rows, *cluster_index(rows.users))
        drawn = poisson_bootstrap(
            {
                "precision": resampler.of_logits(average_precision_of_runs),
                "error": resampler.of_probabilities(error),
            },
            num_clusters=num_users,
            num_replicates=num_replicates,
            seed=number,
        )
        interval = percentile_interval(drawn["precision"], num_clusters=num_users)
        precision.add(covers(interval, true_precision))
        value = float(expected_calibration_error(rows.probabilities, rows.labels))
        interval = debiased_interval(value, drawn["error"], num_clusters=num_users)
        calibration.add(covers(interval, true_error))
    return [precision, calibration]


def resample(
    sample: Sample, num_replicates: int, seed: int
) -> tuple[dict[str, float], dict[str, Array]]:
    """Values and replicates of AUC and GAUC of both models."""
    index, num_users = cluster_index(sample.users)
    statistics, values = {}, {}
    for model in ("first", "second"):
        scores = getattr(sample, model)
        parts = group_aucs(scores, sample.labels, sample.users)
        values[f"{model} auc"] = float(auc(scores, sample.labels))
        values[f"{model} gauc"] = float(summarize(parts).impressions)
        statistics[f"{model} auc"] = auc_statistic(scores, sample.labels, index)
        statistics[f"{model} gauc"] = gauc_statistic(parts, np.arange(num_users), num_users)
    replicates = poisson_bootstrap(
        statistics, num_clusters=num_users, num_replicates=num_replicates, seed=seed
    )
    return values, replicates


def main() -> int:
    """Runs both worlds; exit code 1 if a share is out of its range."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--datasets", type=int, default=4000, help="simulated data sets a check")
    parser.add_argument("--curve-datasets", type=int, default=1000, help="of PR-AUC and ECE")
    parser.add_argument("--rows", type=int, default=500, help="independent rows of a data set")
    parser.add_argument("--users", type=int, default=300, help="users of a data set")
    parser.add_argument("--replicates", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tallies = check_delong(options.datasets, options.rows, options.seed)
    tallies += check_bootstrap(options.datasets, options.users, options.replicates, options.seed)
    tallies += check_curves(options.curve_datasets, options.users, options.replicates, options.seed)
    for tally in tallies:
        print(tally)
    return 0 if all(tally.holds for tally in tallies) else 1


if __name__ == "__main__":
    sys.exit(main())
