"""The report on a data set: doctor.json and doctor.html, from what the doctor found."""

import dataclasses
import json
from pathlib import Path

from ranker.report.html import render_page
from ranker_data.doctor.examine import examine
from ranker_data.doctor.findings import DoctorOptions
from ranker_data.reader import DataError

# pixels of the bar of an AUC
_BAR = (2, 238)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorJob:
    """A data set to examine.

    Attributes:
        data: the prepared data set.
        out: folder of the report; None is `doctor` in the data set.
        options: what to look at.
    """

    data: Path
    out: Path | None
    options: DoctorOptions


def examine_data(job: DoctorJob) -> None:
    """Examines a data set, writes the report and says what is wrong.

    Raises:
        DataError: there are findings that are errors.
        SchemaError: there is no schema, or it contradicts itself.
    """
    found = examine(job.data, job.options)
    out = job.out or job.data / "doctor"
    report = found.as_dict()
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report, indent=1, ensure_ascii=False)
        (out / "doctor.json").write_text(text + "\n", encoding="utf-8")
        page = render_page("data.html.j2", report, bar=bar, share=share)
        (out / "doctor.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"{out} cannot be written ({error.strerror}); set out=<a folder you may write to>"
        ) from error
    for severity in ("warning", "note"):
        for message in found.messages(severity):
            print(f"{severity}: {message}")
    print(f"report: {out / 'doctor.html'}")
    errors = found.messages("error")
    if errors:
        listed = "\n  ".join(errors)
        raise DataError(f"{len(errors)} problem(s) in {job.data}:\n  {listed}")
    print(f"{job.data}: no errors, {len(found.messages('warning'))} warning(s)")


def bar(value: float, low: float, high: float = 1.0) -> float:
    """Returns the pixel at which the bar of a value in [low, high] ends."""
    begin, end = _BAR
    inside = min(max(value, low), high)
    return round(begin + (end - begin) * (inside - low) / (high - low), 1)


def share(number: int, total: int) -> float | None:
    """Returns a share, or None of nothing."""
    return number / total if total else None
