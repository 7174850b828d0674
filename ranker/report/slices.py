"""The same metrics on slices of the rows: per domain, per bucket of any integer column."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np

from ranker.metrics.rows import BoolArray, IntArray
from ranker.report.context import ReportContext
from ranker.report.encoding import Json
from ranker.report.evaluated import evaluation_mask, task_rows
from ranker.report.measure import SLICE_METRICS, measure
from ranker.report.predictions import Predictions
from ranker.report.worst import Cut

MAX_SLICES = 12
NUM_BUCKETS = 8


def cut_slices(predictions: Predictions, task: str, context: ReportContext) -> dict[str, list[Cut]]:
    """Label and mask [n] by column: the domain if there are several, then every slice column."""
    mask = evaluation_mask(predictions, task)
    if not mask.any():
        return {}
    tables = {}
    columns = {"domain": predictions.domain, **predictions.slices}
    for name, values in columns.items():
        found = np.unique(values[mask]).size
        if name == "domain" and found == 1:
            continue
        by_value = found <= MAX_SLICES or name in ("domain", *context.categories)
        names = context.value_names.get(name, {})
        tables[name] = list((_by_value if by_value else _by_range)(values, mask, names))
    return tables


def build_slices(
    predictions: Predictions, task: str, tables: Mapping[str, list[Cut]], context: ReportContext
) -> list[Json]:
    """Measures what `cut_slices` found: one table per column."""
    return [
        {
            "column": column,
            "slices": [
                _measure_slice(predictions, task, label, picked, context)
                for label, picked in slices
            ],
        }
        for column, slices in tables.items()
    ]


def _by_value(values: IntArray, mask: BoolArray, names: Mapping[int, str]) -> Iterator[Cut]:
    """One slice per value, in order; beyond MAX_SLICES the rarest values share the last."""
    found, counts = np.unique(values[mask], return_counts=True)
    if len(found) > MAX_SLICES:
        common = found[np.argsort(-counts, kind="stable")[: MAX_SLICES - 1]]
        found = np.sort(common)
        rest: BoolArray | None = mask & ~np.isin(values, common)
        num_rest = len(counts) - len(common)
    else:
        rest, num_rest = None, 0
    for value in found:
        yield names.get(int(value), str(value)), mask & (values == value)
    if rest is not None:
        yield f"{num_rest:,} other values", rest


def _by_range(values: IntArray, mask: BoolArray, names: Mapping[int, str]) -> Iterator[Cut]:
    """Ranges of integers with about equally many rows; heavy or named values stand alone."""
    picked = values[mask]
    marks = np.quantile(picked, np.arange(NUM_BUCKETS) / NUM_BUCKETS, method="higher")
    starts, hits = np.unique(marks, return_counts=True)
    alone = np.concatenate([starts[hits > 1], [name for name in names if name in picked]])
    edges = np.unique(np.concatenate([starts, alone, alone + 1, [picked.max() + 1]])).astype(int)
    for low, high in pairwise(edges):
        label = f"{low} to {high - 1}" if low < high - 1 else names.get(int(low), str(low))
        inside = mask & (values >= low) & (values < high)
        if inside.any():
            yield label, inside


def _measure_slice(
    predictions: Predictions, task: str, label: str, picked: BoolArray, context: ReportContext
) -> Json:
    rows = task_rows(predictions, task, picked)
    fewest = min(rows.positives, rows.count - rows.positives)
    return {
        "slice": label,
        "rows": rows.count,
        "positives": rows.positives,
        "small": fewest < context.min_slice_class_rows,
        # the gap to the truth is shown for the whole task only
        "metrics": measure(replace(rows, truth=None), context, names=SLICE_METRICS)["metrics"],
    }
