"""The ranking of fields as features.json, features.html and a table on the screen."""

import dataclasses
import json
from pathlib import Path

from ranker.report.data_report import bar
from ranker.report.encoding import Json
from ranker.report.html import render_page
from ranker_data.doctor.feature_ranking import NUM_BINS, FieldScore, rank_fields
from ranker_data.layout import SPLITS
from ranker_data.schema import Schema, read_schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankJob:
    """Fields to rank.

    Attributes:
        data: the prepared data set.
        out: folder of the report; None is `features` in the data set.
        split: whose samples are counted.
        max_rows: stop after about so many; None takes all.
    """

    data: Path
    out: Path | None = None
    split: str = "train"
    max_rows: int | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split is {self.split!r}, must be one of {', '.join(SPLITS)}")
        if self.max_rows is not None and self.max_rows < 1:
            raise ValueError(f"max_rows ({self.max_rows}) must be at least 1, or null")


def rank_features(job: RankJob) -> None:
    """Ranks the fields of a data set and writes the report.

    Raises:
        DataError: the split has no rows, or a file breaks the contract of the schema.
        SchemaError: there is no schema, or it contradicts itself.
    """
    schema = read_schema(job.data)
    scores = rank_fields(job.data, schema, job.split, job.max_rows)
    report = describe_scores(scores, schema, job)
    out = job.out or job.data / "features"
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report, indent=1, ensure_ascii=False)
        (out / "features.json").write_text(text + "\n", encoding="utf-8")
        page = render_page("features.html.j2", report, bar=bar)
        (out / "features.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"{out} cannot be written ({error.strerror}); set out=<a folder you may write to>"
        ) from error
    for label in report["labels"]:
        print(f"{label['name']}: share of its entropy of {label['entropy']:.4f} nats")
        for field in label["fields"]:
            print(
                f"  {field['field']:<24} {field['share']:>9.3%}  {field['num_values']:>10,} values"
            )
    print(f"report: {out / 'features.html'}")


def describe_scores(scores: list[FieldScore], schema: Schema, job: RankJob) -> Json:
    """Returns the scores as JSON values, label by label."""
    labels = []
    for label in schema.labels:
        found = [score for score in scores if score.label == label.name]
        entropy = max((score.entropy for score in found), default=0.0)
        fields = [
            dataclasses.asdict(score) | {"share": score.score / entropy if entropy else 0.0}
            for score in found
        ]
        largest = max((score.score for score in found), default=0.0)
        labels.append(
            {
                "name": label.name,
                "entropy": entropy,
                "largest": largest if largest > 0 else 1.0,
                "fields": fields,
            }
        )
    return {
        "data": str(job.data),
        "name": schema.name,
        "split": job.split,
        "num_bins": NUM_BINS,
        "labels": labels,
    }
