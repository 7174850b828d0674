"""KuaiRand (Gao et al. 2022): a month of short videos shown, with six kinds of feedback.

All three sizes (Pure, 1K, 27K) have the same columns. The file with statistics of the videos is not
read: they are of the whole month, so they know the future of every sample.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from ranker_data.datasets.conversion import RawRelations, convert, count_rows
from ranker_data.datasets.original_files import check_has_columns, table_sql
from ranker_data.preparation.engine import Engine
from ranker_data.preparation.plan import Preparation, TimeSplit
from ranker_data.schema import Field, Label, Schema, Task

_LOG = (
    "user_id",
    "video_id",
    "time_ms",
    "is_click",
    "is_like",
    "is_follow",
    "is_comment",
    "is_forward",
    "long_view",
    "play_time_ms",
    "duration_ms",
    "is_rand",
    "tab",
)
_PROFILE = (
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{number}" for number in range(18)),
)
_VIDEO = ("author_id", "video_type", "upload_type", "music_type", "tag")
# files of these names, of which the large sizes have several parts
_PATTERNS = {
    "log": "log_*.csv*",
    "user": "user_features_*.csv*",
    "video": "video_features_basic_*.csv*",
}
_LABELS = {
    "click": "is_click",
    "like": "is_like",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
    "long_view": "long_view",
}


class KuairandConverter:
    """Converts `log_*.csv`, `user_features_*.csv` and `video_features_basic_*.csv`.

    labels
        click, like, follow, comment, forward, long_view, as in the log; none requires another
    events
        videos that were clicked, from the end of the playing, when its length is known
    """

    def __init__(
        self,
        *,
        random_exposures: bool = True,
        valid_fraction: float = 0.1,
        test_fraction: float = 0.1,
        min_video_count: int = 1,
        num_parts: int = 16,
    ):
        """Sets the definitions.

        Args:
            random_exposures: whether the videos of the log of random exposures are samples. Field
                `random` marks them.
            valid_fraction: share of the samples for validation.
            test_fraction: share of the samples for testing, the last ones.
            min_video_count: videos seen less often than this before validation get id 0.
            num_parts: number of co-partitioned files.
        """
        self._random_exposures = random_exposures
        self._plan = _plan(
            TimeSplit(valid_fraction=valid_fraction, test_fraction=test_fraction),
            min_video_count,
            num_parts,
        )

    def prepare(self, source: Path | None, out: Path, engine: Engine | None = None) -> Schema:
        """Converts the files in `source`."""
        files = _find_files(source)
        settings = {
            "converter": "kuairand",
            "random_exposures": self._random_exposures,
            "plan": self._plan.digest(),
        }
        return convert(
            lambda connection: self._build(connection, files),
            out=out,
            settings=settings,
            engine=engine,
        )

    def _build(
        self, connection: duckdb.DuckDBPyConnection, files: Mapping[str, Sequence[Path]]
    ) -> RawRelations:
        for name, columns in (
            ("log", _LOG),
            ("user", ("user_id", *_PROFILE)),
            ("video", ("video_id", *_VIDEO)),
        ):
            for path in files[name]:
                check_has_columns(connection, path, table_sql(path), columns)
            # by name: the parts need not have their columns in one order
            tables = " UNION ALL BY NAME ".join(
                f"SELECT * FROM {table_sql(path)}" for path in files[name]
            )
            connection.execute(f'CREATE VIEW "{name}_file" AS {tables}')
        connection.execute(_VIDEO_SQL)
        connection.execute(_EVENTS_SQL)
        chosen = "true" if self._random_exposures else "is_rand = '0'"
        connection.execute(_samples_sql(chosen))
        left_out = count_rows(connection, "log_file", f"NOT ({chosen})")
        return RawRelations(
            plan=self._plan,
            counts={
                "random_exposures_left_out": left_out,
                "samples_without_video_row": count_rows(
                    connection, "log_file l ANTI JOIN videos v ON l.video_id = v.item_id"
                ),
            },
        )


def _find_files(source: Path | None) -> dict[str, list[Path]]:
    if source is None:
        raise ValueError(
            f"source is missing; give the folder with {', '.join(_PATTERNS.values())} of KuaiRand"
        )
    # archives have their files in a folder called data
    folder = source / "data" if (source / "data").is_dir() else source
    files = {name: sorted(folder.glob(pattern)) for name, pattern in _PATTERNS.items()}
    for name, pattern in _PATTERNS.items():
        if not files[name]:
            raise ValueError(f"{folder} has no {pattern} of KuaiRand; check source")
    return files


_VIDEO_SQL = """
CREATE TABLE videos AS
SELECT video_id AS item_id, any_value(author_id) AS author, any_value(video_type) AS video_type,
    any_value(upload_type) AS upload_type, any_value(music_type) AS music_type,
    coalesce(string_split(any_value(tag), ','), CAST([] AS VARCHAR[])) AS tags
FROM video_file GROUP BY video_id
"""

# an event is visible when its playing is over
_EVENTS_SQL = """
CREATE VIEW event AS
SELECT l.user_id AS "user",
    CAST(l.time_ms AS BIGINT) + greatest(CAST(l.play_time_ms AS BIGINT), 0) AS "time",
    l.video_id AS item_id, v.author, v.tags, l.tab,
    ln(1 + greatest(CAST(l.play_time_ms AS DOUBLE), 0) / 1000) AS log_play_seconds,
    CASE WHEN CAST(l.duration_ms AS DOUBLE) > 0 THEN least(
        greatest(CAST(l.play_time_ms AS DOUBLE), 0) / CAST(l.duration_ms AS DOUBLE), 3
    ) ELSE 0 END AS played_fraction,
    l.is_like AS liked, l.long_view AS viewed_long
FROM log_file l LEFT JOIN videos v ON l.video_id = v.item_id
WHERE l.is_click = '1'
"""


def _samples_sql(chosen: str) -> str:
    profile = ", ".join(f"u.{name}" for name in _PROFILE)
    labels = ", ".join(f"CAST(l.{column} AS BIGINT) AS {name}" for name, column in _LABELS.items())
    return f"""
    CREATE VIEW sample AS
    WITH users AS (
        SELECT user_id, {", ".join(f"any_value({name}) AS {name}" for name in _PROFILE)}
        FROM user_file GROUP BY user_id
    ),
    shown AS (SELECT * FROM log_file WHERE {chosen})
    SELECT l.user_id AS "user", CAST(l.time_ms AS BIGINT) AS "time", l.user_id, {profile},
        l.video_id AS item_id, v.author, v.tags, v.video_type, v.upload_type, v.music_type,
        ln(1 + greatest(coalesce(CAST(l.duration_ms AS DOUBLE), 0), 0) / 1000) AS log_duration,
        l.tab, l.is_rand AS random,
        CAST((CAST(l.time_ms AS BIGINT) // 1000 + 28800) // 3600 % 24 AS BIGINT) AS hour, {labels}
    FROM shown l LEFT JOIN users u ON l.user_id = u.user_id
        LEFT JOIN videos v ON l.video_id = v.item_id
    """


def _plan(split: TimeSplit, min_video_count: int, num_parts: int) -> Preparation:
    return Preparation(
        name="kuairand",
        time_unit="ms",
        fields=(
            Field(name="user_id", kind="id", side="user", table="user"),
            *(Field(name=name, kind="id", side="user", table=name) for name in _PROFILE),
            Field(name="item_id", kind="id", table="item"),
            Field(name="author", kind="id", table="author"),
            Field(name="tags", kind="ids", table="tag"),
            Field(name="video_type", kind="id", table="video_type"),
            Field(name="upload_type", kind="id", table="upload_type"),
            Field(name="music_type", kind="id", table="music_type"),
            Field(name="log_duration", kind="dense"),
            Field(name="tab", kind="id", side="context", table="tab"),
            Field(name="random", kind="id", side="context", table="random"),
            Field(name="hour", kind="id", side="context", table="hour"),
        ),
        behaviors=(
            Field(name="item_id", kind="id", table="item"),
            Field(name="author", kind="id", table="author"),
            Field(name="tags", kind="ids", table="tag"),
            Field(name="tab", kind="id", table="tab"),
            Field(name="log_play_seconds", kind="dense"),
            Field(name="played_fraction", kind="dense"),
            Field(name="liked", kind="id", table="liked"),
            Field(name="viewed_long", kind="id", table="viewed_long"),
        ),
        labels=tuple(Label(name=name) for name in _LABELS),
        tasks=(
            Task(name="ctr", label="click"),
            *(Task(name=name, label=name) for name in _LABELS if name != "click"),
        ),
        group="user",
        domain="tab",
        split=split,
        min_count={"item": min_video_count},
        num_parts=num_parts,
    )
