"""EB-NeRD (Ekstra Bladet News Recommendation Dataset, Kruse et al. 2024), in its original files.

Every article shown in an impression is a candidate of one request. There is hardly any article that
was there yesterday, so past-only statistics of the article matter more than its id.
"""

from pathlib import Path

import duckdb

from ranker_data.datasets.conversion import RawRelations, convert
from ranker_data.datasets.ebnerd_sql import (
    EVENT_SQL,
    READS_SQL,
    SHOWN_SQL,
    STATISTICS,
    WINDOW_HOURS,
    sample_sql,
    statistics_sql,
)
from ranker_data.preparation.engine import Engine
from ranker_data.preparation.plan import Preparation, TimeSplit
from ranker_data.preparation.source import check_file_columns
from ranker_data.preparation.sql import quote_text
from ranker_data.schema import Field, Label, Schema, Task

_FOLDERS = ("train", "validation")
_BEHAVIORS_COLUMNS = (
    "impression_id",
    "user_id",
    "impression_time",
    "device_type",
    "article_ids_inview",
    "article_ids_clicked",
    "next_read_time",
    "next_scroll_percentage",
    "is_sso_user",
    "is_subscriber",
    "gender",
    "age",
)
_HISTORY_COLUMNS = (
    "user_id",
    "impression_time_fixed",
    "article_id_fixed",
    "read_time_fixed",
    "scroll_percentage_fixed",
)


class EbnerdConverter:
    """Converts `behaviors.parquet` and `history.parquet` of the folders `train` and `validation`.

    The files may also lie flat, as `train_behaviors.parquet` and so on.

    labels
        click    the article is in `article_ids_clicked`
        read     clicked, then read for 30 s or more; null if clicked, but the time is not known
        scroll   clicked, then scrolled through half of it or more; null likewise
    events
        reads of the history files, and clicks after the end of the user's history. An event counts
        from the end of its reading, because only then are its read time and scroll depth known.
    statistics
        clicks and impressions of the article in the last 1, 6 and 24 hours, hours since it was
        first seen, and how often this user was shown it, up to `delay_seconds` before the
        impression, as a stream processor would have them.
    """

    def __init__(
        self,
        *,
        read_seconds: float = 30.0,
        scroll_percentage: float = 50.0,
        delay_seconds: int = 60,
        prior_click_rate: float = 0.09,
        prior_impressions: float = 20.0,
        valid_fraction: float = 0.1,
        test_fraction: float = 0.1,
        min_article_count: int = 1,
        num_parts: int = 16,
    ):
        """Sets the definitions.

        Args:
            read_seconds: least read time of the label `read`.
            scroll_percentage: least depth of the label `scroll`.
            delay_seconds: how old an impression must be to count in the statistics, at least 1.
            prior_click_rate: rate towards which click rates of rarely shown articles are smoothed.
            prior_impressions: weight of the prior, in impressions.
            valid_fraction: share of the samples for validation.
            test_fraction: share of the samples for testing, the last ones.
            min_article_count: articles seen less often than this before validation get id 0.
            num_parts: number of co-partitioned files.
        """
        if delay_seconds < 1:
            raise ValueError(
                f"dataset.converter.delay_seconds ({delay_seconds}) must be at least 1: "
                "statistics are of the past"
            )
        if not 0 < prior_click_rate < 1 or prior_impressions <= 0:
            raise ValueError(
                f"dataset.converter.prior_click_rate ({prior_click_rate}) must be in (0, 1) and "
                f"prior_impressions ({prior_impressions}) positive"
            )
        self.read_seconds = read_seconds
        self.scroll_percentage = scroll_percentage
        self.delay_seconds = delay_seconds
        self.prior_click_rate = prior_click_rate
        self.prior_impressions = prior_impressions
        self.plan = build_plan(
            split=TimeSplit(valid_fraction=valid_fraction, test_fraction=test_fraction),
            min_article_count=min_article_count,
            num_parts=num_parts,
        )

    def prepare(self, source: Path | None, out: Path, engine: Engine | None = None) -> Schema:
        """Converts the files in `source`."""
        if source is None:
            raise ValueError("EB-NeRD needs a source: the folder with its original files")
        behaviors, history = find_files(source)
        check_file_columns(behaviors, _BEHAVIORS_COLUMNS)
        check_file_columns(history, _HISTORY_COLUMNS)

        def build(connection: duckdb.DuckDBPyConnection) -> RawRelations:
            self._create_relations(connection, behaviors, history)
            return RawRelations(plan=self.plan)

        settings = {"converter": "ebnerd", **vars(self), "plan": self.plan.digest()}
        return convert(build, out=out, settings=settings, engine=engine)

    def _create_relations(
        self, connection: duckdb.DuckDBPyConnection, behaviors: list[Path], history: list[Path]
    ) -> None:
        for name, paths in (("behaviors", behaviors), ("history", history)):
            files = ", ".join(quote_text(str(path)) for path in paths)
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{files}])")
        connection.execute(SHOWN_SQL)
        connection.execute(READS_SQL)
        connection.execute(EVENT_SQL)
        connection.execute(
            statistics_sql(self.delay_seconds, self.prior_click_rate, self.prior_impressions)
        )
        connection.execute(
            sample_sql(self.read_seconds, self.scroll_percentage, self.delay_seconds)
        )


def build_plan(*, split: TimeSplit, min_article_count: int, num_parts: int) -> Preparation:
    """Returns fields, labels and tasks of EB-NeRD."""
    statistics = [f"{name}_{hours}h" for hours in WINDOW_HOURS for name in STATISTICS]
    return Preparation(
        name="ebnerd",
        time_unit="s",
        fields=(
            Field(name="user_id", kind="id", side="user", table="user"),
            Field(name="gender", kind="id", side="user", table="gender"),
            Field(name="age", kind="id", side="user", table="age"),
            Field(name="sso", kind="id", side="user", table="sso"),
            Field(name="subscriber", kind="id", side="user", table="subscriber"),
            Field(name="item_id", kind="id", table="item"),
            Field(name="device", kind="id", side="context", table="device"),
            Field(name="hour", kind="id", side="context", table="hour"),
            Field(name="log_num_shown", kind="dense", side="context"),
            Field(name="log_times_shown", kind="dense", side="context"),
            Field(name="log_age_hours", kind="dense", side="context"),
            *(Field(name=name, kind="dense", side="context") for name in statistics),
        ),
        behaviors=(
            Field(name="item_id", kind="id", table="item"),
            Field(name="log_read_seconds", kind="dense"),
            Field(name="scroll_fraction", kind="dense"),
            Field(name="scroll_known", kind="dense"),
        ),
        labels=(
            Label(name="click"),
            Label(name="read", requires="click"),
            Label(name="scroll", requires="click"),
        ),
        tasks=(
            Task(name="ctr", label="click"),
            Task(name="cvr", label="read", condition="click"),
            Task(name="ctcvr", label="read"),
            Task(name="scroll", label="scroll", condition="click"),
        ),
        group="request",
        domain="device",
        split=split,
        min_count={"item": min_article_count},
        num_parts=num_parts,
    )


def find_files(source: Path) -> tuple[list[Path], list[Path]]:
    """Returns the behaviors files and the history files, the training ones first.

    Raises:
        ValueError: there are none, or a file lacks its counterpart.
    """
    behaviors, history = [], []
    for folder in _FOLDERS:
        for pattern in (f"{folder}/{{}}.parquet", f"{folder}_{{}}.parquet"):
            pair = [source / pattern.format(name) for name in ("behaviors", "history")]
            there = [path.is_file() for path in pair]
            if any(there) and not all(there):
                raise ValueError(
                    f"{pair[there.index(False)]} is missing; EB-NeRD has both files in each folder"
                )
            if all(there):
                behaviors.append(pair[0])
                history.append(pair[1])
    if not behaviors:
        raise ValueError(
            f"{source} holds no EB-NeRD files; expected train/behaviors.parquet and "
            "train/history.parquet (or train_behaviors.parquet and train_history.parquet), and the "
            "same for validation"
        )
    return behaviors, history
