"""Every metric of a task with its interval, as the JSON of the report."""

from collections.abc import Collection, Mapping

from ranker.metrics.auc import auc
from ranker.metrics.bootstrap import (
    cluster_index,
    debiased_interval,
    paired_difference,
    percentile_interval,
    poisson_bootstrap,
)
from ranker.metrics.delong import delong_interval
from ranker.metrics.evaluation import EvaluationRows, RowMetric
from ranker.metrics.gauc import Gauc, group_aucs, summarize
from ranker.metrics.resample import ResampledMetric, Resampler
from ranker.metrics.rows import Float64Array
from ranker.metrics.runs import score_runs
from ranker.report.context import ReportContext
from ranker.report.encoding import Json, difference_json, interval_json, metric_json
from ranker.report.estimates import (
    build_statistics,
    not_nested,
    not_resampled,
    point_value,
)

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
_WEIGHTED = {"uniform": "uniform", "positive": "positive_weighted"}
SLICE_METRICS = ("auc", "gauc", "normalized_entropy", "pcoc")


def measure(
    rows: EvaluationRows,
    context: ReportContext,
    *,
    names: Collection[str],
    further: Mapping[str, RowMetric] | None = None,
) -> Json:
    """Metrics by name: value, reason, rows, positives, and an interval where one is defined.

    Args:
        rows: of one task.
        context: how intervals are made.
        names: of ALL_METRICS.
        further: metrics by the name they are shown under.

    Returns:
        {"metrics": {name: ...}, "more": {name of further: ...}, "bayes": {name: ...} or None where
        the truth is not known}.
    """
    further = further or {}
    parts = group_aucs(rows.logits, rows.labels, rows.groups, rows.weights)
    grouped = summarize(parts)
    metrics = {
        name: metric_json(point_value(name, rows, grouped, num_bins=context.num_bins))
        for name in ALL_METRICS
        if name in names
    }
    more = {name: metric_json(metric(rows)) for name, metric in further.items()}
    resampler = Resampler(rows, *cluster_index(rows.users))
    replicates = poisson_bootstrap(
        build_statistics(resampler, parts, names, num_bins=context.num_bins)
        | {
            f"more_{name}": statistic
            for name, metric in further.items()
            if more[name]["value"] is not None
            and isinstance(metric, ResampledMetric)
            and (statistic := metric.statistic(resampler)) is not None
        },
        num_clusters=resampler.num_clusters,
        num_replicates=context.num_replicates,
        seed=context.seed,
    )
    intervals = _Intervals(replicates, resampler.num_clusters, context.level)
    if "gauc" in metrics:
        metrics["gauc"] |= _gauc_json(grouped)
        for name in ("uniform", "positive"):
            intervals.add(metrics["gauc"][_WEIGHTED[name]], f"gauc_{name}")
    for name, entry in metrics.items():
        intervals.add(entry, name)
    for name, entry in more.items():
        if isinstance(further[name], ResampledMetric):
            intervals.add(entry, f"more_{name}")
        elif entry["value"] is not None:
            entry["interval"] = interval_json(not_resampled(context.level))
    if "auc" in metrics and metrics["auc"]["value"] is not None:
        runs = score_runs(rows.logits, rows.labels, rows.weights)
        metrics["auc"]["delong"] = interval_json(delong_interval(runs, level=context.level))
    bayes = _bayes(rows, metrics, replicates, resampler.num_clusters, context)
    return {"metrics": metrics, "more": more, "bayes": bayes}


class _Intervals:
    """Puts intervals beside values."""

    def __init__(
        self, replicates: Mapping[str, Float64Array], num_users: int, level: float
    ) -> None:
        self.replicates, self.num_users, self.level = replicates, num_users, level

    def add(self, entry: Json, name: str) -> None:
        """Adds the interval of the replicates of that name, or says why there is none."""
        if entry["value"] is None:
            return
        drawn, chosen = self.replicates.get(name), {"num_clusters": self.num_users}
        if drawn is None:
            interval = not_nested(self.level)
        elif name == "expected_calibration_error":
            interval = debiased_interval(entry["value"], drawn, level=self.level, **chosen)
        else:
            interval = percentile_interval(drawn, level=self.level, **chosen)
        entry["interval"] = interval_json(interval)


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
