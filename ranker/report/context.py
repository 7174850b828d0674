"""What a report needs to know besides the predictions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ranker.metrics.evaluation import RowMetric
from ranker.report.baseline import Baseline


@dataclass(frozen=True, kw_only=True)
class TaskContext:
    """Words about one task."""

    name: str
    description: str = ""  # "click", "conversion after a click"
    condition: str = ""  # which rows have a label, in words: "click = 1"; empty for all rows


@dataclass(frozen=True, kw_only=True)
class ReportContext:
    """Words about a run, and how its intervals are made."""

    run: str
    split: str
    tasks: Sequence[TaskContext]
    created: str = ""  # when, as text: a report is a pure function of its inputs
    config: str = ""  # YAML
    environment: Mapping[str, str] = field(default_factory=dict)
    # of metrics.jsonl: {"kind": "train" or a split, "step": ..., "loss": ..., "ctr.auc": ...}
    records: Sequence[Mapping[str, Any]] = ()
    # facts of the data besides those of the rows themselves
    data: Mapping[str, str] = field(default_factory=dict)
    # of `read_search`, where encoders search the history
    search: Sequence[Mapping[str, Any]] = ()
    # what the run is held against
    baseline: Baseline | None = None
    # further metrics by the name under which they are shown
    metrics: Mapping[str, RowMetric] = field(default_factory=dict)
    # slice columns whose values are names, not quantities: rare ones are lumped, never ranged
    categories: Collection[str] = ()
    # what a value of a slice column (or of "domain") is called
    value_names: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    # by task, the share of negatives that training kept; the predictions are corrected for it
    negative_sampling_rates: Mapping[str, float] = field(default_factory=dict)
    time_unit: str = "s"
    level: float = 0.95
    num_replicates: int = 400
    seed: int = 0
    num_bins: int = 20  # of the calibration curve
    # a slice with fewer positives or fewer negatives is shown in grey
    min_slice_class_rows: int = 30
