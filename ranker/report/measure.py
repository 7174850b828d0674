"""Every metric of a task with its interval, as the JSON of the report."""

from collections.abc import Collection

from ranker.metrics.auc import auc
from ranker.metrics.bootstrap import (
    cluster_index,
    paired_difference,
    percentile_interval,
    poisson_bootstrap,
)
from ranker.metrics.delong import delong_interval
from ranker.metrics.evaluation import EvaluationRows
from ranker.metrics.gauc import Gauc, group_aucs, summarize
from ranker.metrics.rows import Float64Array
from ranker.metrics.runs import score_runs
from ranker.report.context import ReportContext
from ranker.report.encoding import Json, difference_json, interval_json, metric_json
from ranker.report.estimates import build_statistics, not_nested, point_value

ALL_METRICS = (
    "auc",
    "gauc",
    "normalized_entropy",
    "pcoc",
    "logloss",
    "relative_information_gain",
    "expected_calibration_error",
    "brier",
    "average_precision",
)
# every resample biases the calibration error upwards; average precision would sort in each
_WITH_INTERVAL = frozenset(ALL_METRICS) - {"expected_calibration_error", "average_precision"}
SLICE_METRICS = ("auc", "gauc", "normalized_entropy", "pcoc")


def measure(rows: EvaluationRows, context: ReportContext, *, names: Collection[str]) -> Json:
    """Metrics by name: value, reason, rows, positives, and an interval where one is defined.

    Returns:
        {"metrics": {name: ...}, "bayes": {name: ...} or None where the truth is not known}.
    """
    parts = group_aucs(rows.logits, rows.labels, rows.groups, rows.weights)
    grouped = summarize(parts)
    metrics = {
        name: metric_json(point_value(name, rows, grouped, num_bins=context.num_bins))
        for name in ALL_METRICS
        if name in names
    }
    index, num_users = cluster_index(rows.users)
    statistics = build_statistics(rows, parts, index, num_users)
    replicates = poisson_bootstrap(
        {name: statistics[name] for name in statistics if name.removeprefix("truth_") in names},
        num_clusters=num_users,
        num_replicates=context.num_replicates,
        seed=context.seed,
    )
    for name, entry in metrics.items():
        if entry["value"] is not None and name in _WITH_INTERVAL:
            interval = (
                percentile_interval(replicates[name], num_clusters=num_users, level=context.level)
                if name in replicates
                else not_nested(context.level)
            )
            entry["interval"] = interval_json(interval)
    if "auc" in metrics and metrics["auc"]["value"] is not None:
        runs = score_runs(rows.logits, rows.labels, rows.weights)
        metrics["auc"]["delong"] = interval_json(delong_interval(runs, level=context.level))
    if "gauc" in metrics:
        metrics["gauc"] |= _gauc_json(grouped)
    bayes = _bayes(rows, metrics, replicates, num_users, context)
    return {"metrics": metrics, "bayes": bayes}


def _bayes(
    rows: EvaluationRows,
    metrics: Json,
    replicates: dict[str, Float64Array],
    num_users: int,
    context: ReportContext,
) -> Json | None:
    """How the true probability ranks the same rows, and what the model lacks to it."""
    if rows.truth is None:
        return None
    best = {
        "auc": auc(rows.truth, rows.labels, rows.weights),
        "gauc": summarize(
            group_aucs(rows.truth, rows.labels, rows.groups, rows.weights)
        ).impressions,
    }
    found: Json = {}
    for name, value in best.items():
        if name not in metrics:
            continue
        found[name] = metric_json(value) | {"gap": None}
        if value.value is not None and f"truth_{name}" in replicates:
            gap = paired_difference(
                value.value,
                metrics[name]["value"],
                replicates[f"truth_{name}"],
                replicates[name],
                num_clusters=num_users,
                level=context.level,
            )
            found[name]["gap"] = difference_json(gap)
    return found


def _gauc_json(grouped: Gauc) -> Json:
    return {
        "uniform": metric_json(grouped.uniform),
        "positive_weighted": metric_json(grouped.positive),
        "num_groups": grouped.num_groups,
        "skipped_groups_fraction": grouped.skipped_groups_fraction,
        "skipped_rows_fraction": grouped.skipped_rows_fraction,
    }
