"""The report of a predictions file, whoever made it."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ranker.metrics.evaluation import RowMetric
from ranker.report.any_predictions import Columns, read_any_predictions
from ranker.report.baseline import Baseline
from ranker.report.context import ReportContext, TaskContext
from ranker.report.derived import add_slices, field_of, trained_field_of
from ranker.report.report import build_report, write_report


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What to report on.

    Attributes:
        predictions: Parquet file.
        out: folder to write report.json, report.md and report.html into; null takes the file's.
        name: title of the report; null takes the file's name.
        split: name of the rows, for people.
        slices: derived slice columns: user_activity, hour, count.<column of columns.slices>.
        categories: slice columns of the file whose integers are names, not quantities.
        time_unit: of the time column: "s", "ms" or "us".
        negative_sampling_rates: by task, the share of negatives that training kept, to correct for.
        baseline: another file with the same columns and rows: the report tells what changed.
        num_replicates: bootstrap replicates behind the intervals.
        level: confidence level of the intervals.
    """

    predictions: str
    out: str | None = None
    name: str | None = None
    split: str = "predictions"
    slices: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    time_unit: str = "s"
    baseline: str | None = None
    negative_sampling_rates: Mapping[str, float] = field(default_factory=dict)
    num_replicates: int = 400
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.time_unit not in ("s", "ms", "us"):
            raise ValueError(f"time_unit is {self.time_unit!r}; must be s, ms or us")


def report_file(options: ReportOptions, columns: Columns, metrics: Mapping[str, RowMetric]) -> None:
    """Reads, measures and writes; prints the summary and where the page is.

    Args:
        options: what to report on.
        columns: of the file.
        metrics: further ones by the name they are shown under.

    Raises:
        ValueError: the file or an option does not fit.
    """
    path = Path(options.predictions)
    named = read_any_predictions(path, columns)
    predictions = named.predictions
    for name in options.slices:
        wanted = field_of(name)
        unknown = wanted == name or wanted not in predictions.slices
        if wanted is not None and (unknown or trained_field_of(name)):
            raise ValueError(
                f"slices names {name!r}; give user_activity, hour or count.<column> with a column "
                f"of columns.slices ({', '.join(predictions.slices) or 'none given'})"
            )
    predictions = add_slices(
        predictions, options.slices, fields=predictions.slices, time_unit=options.time_unit
    )
    baseline = None
    if options.baseline is not None:
        other = Path(options.baseline)
        baseline = Baseline(
            run=other.name if other.name != path.name else str(other),
            predictions=read_any_predictions(other, columns).predictions,
        )
    context = ReportContext(
        run=options.name or path.name,
        split=options.split,
        tasks=[TaskContext(name=name) for name in predictions.tasks],
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        environment={"predictions": str(path)},
        metrics=metrics,
        categories=(*named.value_names, *options.categories),
        value_names=named.value_names,
        negative_sampling_rates=options.negative_sampling_rates,
        time_unit=options.time_unit,
        baseline=baseline,
        level=options.level,
        num_replicates=options.num_replicates,
    )
    report = build_report(predictions, context)
    _, page = write_report(Path(options.out) if options.out else path.parent, report)
    print(f"{report['summary']}\nreport: {page}")
