"""The examination: every check, and what it found, as data for a report."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ranker_data.columns import Array, Column, Ragged, offsets_of, plain, take
from ranker_data.doctor.findings import DoctorOptions, Finding, of_severity
from ranker_data.doctor.footers import Footers, check_statistics, read_footers
from ranker_data.doctor.label_window import LabelWindow
from ranker_data.doctor.leakage import field_aucs
from ranker_data.doctor.rows import RowCounts, check_counts, read_rows
from ranker_data.layout import SPLITS, STATS_FILE, samples_path
from ranker_data.reader import DataError, read_samples
from ranker_data.schema import Schema, read_schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found in a data set.

    Attributes:
        root: the data set.
        schema: of the data set.
        findings: of all checks.
        field_aucs: (label, field) -> AUC of the field alone.
        counts: of rows by split, and of the behaviours, if rows were read.
        num_rows: split -> rows, by the footers.
        options: what was looked at.
    """

    root: Path
    schema: Schema
    findings: list[Finding]
    field_aucs: dict[tuple[str, str], float]
    counts: dict[str, RowCounts]
    num_rows: dict[str, int]
    options: DoctorOptions

    def messages(self, severity: str) -> list[str]:
        """Returns what was found of one severity."""
        return of_severity(self.findings, self.options, severity)

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as JSON values, with what preparation wrote in `stats.json`."""
        stats = self.root / STATS_FILE
        return {
            "data": str(self.root),
            "name": self.schema.name,
            "findings": [
                {"check": f.check, "severity": severity, "message": f.message}
                for f in self.findings
                if (severity := self.options.severity_of(f.check)) != "off"
            ],
            "rows": self.num_rows,
            "counts": {name: dataclasses.asdict(found) for name, found in self.counts.items()},
            "field_aucs": [
                {"label": label, "field": field, "auc": round(auc, 6)}
                for (label, field), auc in sorted(
                    self.field_aucs.items(), key=lambda item: (item[0][0], -item[1], item[0][1])
                )
            ],
            "stats": json.loads(stats.read_text(encoding="utf-8")) if stats.is_file() else None,
        }


def examine(root: Path, options: DoctorOptions, schema: Schema | None = None) -> Examination:
    """Examines a prepared data set.

    Args:
        root: the data set.
        options: what to look at.
        schema: with the fields that matter; all of the data set if None.

    Raises:
        SchemaError: there is no schema, or it contradicts itself.
    """
    schema = schema or read_schema(root)
    footers, findings = read_footers(root, schema)
    findings += check_statistics(footers, schema)
    counts: dict[str, RowCounts] = {}
    aucs: dict[tuple[str, str], float] = {}
    # with a file that cannot be read, only the files are a subject
    if not any(finding.check in ("files", "columns") for finding in findings):
        if options.read_rows:
            window = _label_window(schema, footers, options)
            counts, found = read_rows(root, schema, len(footers.behaviors), window)
            findings += _merge_overlaps(findings, found)
            findings += window.findings() if window is not None else []
            findings += check_counts(counts, schema, options)
        aucs, found = _find_leakage(root, schema, footers, options)
        findings += found
    return Examination(
        root=root,
        schema=schema,
        findings=findings,
        field_aucs=aucs,
        counts=counts,
        num_rows={split: footers.num_rows(split) for split in SPLITS},
        options=options,
    )


def _label_window(schema: Schema, footers: Footers, options: DoctorOptions) -> LabelWindow | None:
    labels = [label.name for label in schema.labels]
    for name in options.label_windows:
        if name not in labels:
            raise ValueError(f"label_windows names the unknown label {name!r}; labels are {labels}")
    times = [found for split in SPLITS if (found := footers.times(split)) is not None]
    if not times:
        return None
    first, last = min(low for low, _ in times), max(high for _, high in times)
    ends = [footer.ranges["time"][1] for footer in footers.behaviors if "time" in footer.ranges]
    return LabelWindow(
        schema,
        first=int(first),
        last=int(last),
        end=int(max([last, *ends])),
        windows=options.label_windows,
    )


def _merge_overlaps(findings: list[Finding], found: list[Finding]) -> list[Finding]:
    """Splits that overlap for all users together may still be in order for each of them."""
    if not any(finding.check == "split_overlap" for finding in found):
        findings[:] = [finding for finding in findings if finding.check != "split_overlap"]
    return found


# rows in which fields are tried at the start of training
_START_ROWS = 20_000
# fewer whole numbers may differ by chance
_ROWS_OF_AN_ID = 1000


def check_at_start(root: Path, schema: Schema, severities: Mapping[str, str]) -> list[str]:
    """Examines what can be had in seconds, before anything else is done with the data.

    Args:
        root: the data set.
        schema: with the fields that the model sees.
        severities: as in `DoctorOptions`.

    Returns:
        Warnings.

    Raises:
        DataError: lists everything that is wrong, in all files.
    """
    # training only compares times, whatever they count from
    options = DoctorOptions(
        read_rows=False,
        sample_rows=_START_ROWS,
        severities={"time_unit": "warning", **severities},
    )
    found = examine(root, options, schema)
    errors = found.messages("error")
    if errors:
        listed = "\n  ".join(errors)
        raise DataError(
            f"{len(errors)} problem(s) in the data of {root}:\n  {listed}\n"
            f"scripts/doctor.py data={root} says more"
        )
    return found.messages("warning")


def _find_leakage(
    root: Path, schema: Schema, footers: Footers, options: DoctorOptions
) -> tuple[dict[tuple[str, str], float], list[Finding]]:
    try:
        columns = _sample_columns(root, schema, footers, options.sample_rows)
    except DataError as error:
        return {}, [Finding("values", str(error))]
    if columns is None:
        return {}, []
    aucs = field_aucs(columns, schema)
    findings = [
        Finding(
            "id_like_dense",
            f"dense field {field.name!r} has whole numbers that hardly ever repeat: is it an id, "
            "whose size means nothing?",
        )
        for field in schema.fields
        if field.kind == "dense" and _is_like_an_id(plain(columns[field.name]))
    ]
    for (label, field), auc in aucs.items():
        if auc <= options.suspect_auc:
            continue
        check = "label_leakage" if auc > options.leakage_auc else "label_leakage_suspected"
        findings.append(
            Finding(
                check,
                f"field {field!r} alone predicts label {label!r} with AUC {auc:.4f}: is it known "
                f"before the label? If not, leave it out (dataset.exclude=[{field}])",
            )
        )
    return aucs, findings


def _is_like_an_id(values: Array) -> bool:
    if len(values) < _ROWS_OF_AN_ID or (values != np.round(values)).any():
        return False
    # counts and ages repeat; amounts in a small unit are not as dense
    distinct = len(np.unique(values))
    return distinct > 0.9 * len(values)


def _sample_columns(
    root: Path, schema: Schema, footers: Footers, num_rows: int
) -> dict[str, Column] | None:
    """Returns training rows spread over as few parts as hold enough of them; None if none do."""
    pieces: list[dict[str, Column]] = []
    found = 0
    for part, footer in enumerate(footers.samples["train"]):
        if footer.num_rows and found < num_rows:
            columns = read_samples(samples_path(root, "train", part), schema)
            kept = np.linspace(0, footer.num_rows - 1, min(footer.num_rows, num_rows - found))
            rows = np.unique(kept.astype(np.int64))
            pieces.append({name: take(column, rows) for name, column in columns.items()})
            found += len(rows)
    if not pieces:
        return None
    return {name: _stack([piece[name] for piece in pieces]) for name in pieces[0]}


def _stack(columns: list[Column]) -> Column:
    ragged = [column for column in columns if isinstance(column, Ragged)]
    if not ragged:
        return np.concatenate([plain(column) for column in columns])
    lengths = np.concatenate([column.lengths for column in ragged])
    return Ragged(offsets_of(lengths), np.concatenate([column.values for column in ragged]))
