"""What a check found, and how serious it is."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

Severity = Literal["error", "warning", "note"]

# every check and how serious its findings are, unless the options say otherwise
CHECKS: dict[str, Severity] = {
    "files": "error",
    "columns": "error",
    "values": "error",
    "nulls": "error",
    "labels": "error",
    "ids": "error",
    "time_unit": "error",
    "mixed_units": "error",
    "history": "error",
    "empty_split": "error",
    "split_overlap": "warning",
    "contamination": "warning",
    "duplicates": "warning",
    "label_rate": "warning",
    "label_window": "warning",
    "label_window_suspected": "warning",
    "label_leakage": "error",
    "label_leakage_suspected": "warning",
    "further_columns": "note",
    "id_like_dense": "warning",
    "unknown_ids": "note",
    "moved_ids": "warning",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
        check: a name of `CHECKS`.
        message: place, value, rule and remedy.
    """

    check: str
    message: str

    def __post_init__(self) -> None:
        assert self.check in CHECKS, self.check


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """What the doctor looks at.

    Attributes:
        read_rows: read every row; otherwise footers, their statistics and `sample_rows` rows.
        sample_rows: training rows in which fields are tried as predictors of the labels.
        suspect_auc: a single field with a higher AUC is suspected to know the label.
        leakage_auc: a single field with a higher AUC knows the label.
        max_duplicate_share: more rows of a split that repeat another one are worth a finding.
        max_unknown_share: more values of an id field with id 0 are worth a finding.
        label_windows: label -> how long after a sample it may become 1, in the data set's unit of
            time; samples that the log's end is nearer to are worth a finding.
        severities: check -> "error", "warning", "note" or "off", in place of the default.
    """

    read_rows: bool = True
    sample_rows: int = 200_000
    suspect_auc: float = 0.95
    leakage_auc: float = 0.99
    max_duplicate_share: float = 0.01
    max_unknown_share: float = 0.5
    label_windows: Mapping[str, int] = dataclasses.field(default_factory=dict)
    severities: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sample_rows < 1:
            raise ValueError(f"sample_rows ({self.sample_rows}) must be at least 1")
        if not 0.5 <= self.suspect_auc <= self.leakage_auc <= 1:
            raise ValueError(
                f"suspect_auc ({self.suspect_auc}) and leakage_auc ({self.leakage_auc}) must be in "
                "[0.5, 1], the first not above the second"
            )
        for name in ("max_duplicate_share", "max_unknown_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be in [0, 1]")
        for label, window in self.label_windows.items():
            if window < 1:
                raise ValueError(f"label_windows.{label} ({window}) must be at least 1")
        for check, severity in self.severities.items():
            if check not in CHECKS:
                raise ValueError(f"severities names the unknown check {check!r}: {list(CHECKS)}")
            if severity not in (*get_args(Severity), "off"):
                raise ValueError(
                    f"severities.{check} is {severity!r}, must be error, warning, note or off"
                )

    def severity_of(self, check: str) -> str:
        """Returns how serious a check's findings are, or "off"."""
        return self.severities.get(check, CHECKS[check])


def of_severity(findings: Iterable[Finding], options: DoctorOptions, severity: str) -> list[str]:
    """Returns the messages of the findings that are so serious."""
    return [f.message for f in findings if options.severity_of(f.check) == severity]
