"""MovieLens (Harper and Konstan 2015) in its original files, and in RecBole's atomic files.

A rating is a sample, liked if it is high enough, and an event for later samples. Three quarters of
the ratings share their second with another one of the same user: only strictly earlier ratings are
visible, ties are cut off.
"""

import tempfile
from pathlib import Path

from ranker_data.datasets.movielens_files import create_relations, find_format
from ranker_data.preparation.engine import connect
from ranker_data.preparation.plan import LastSplit, Preparation, Split, TimeSplit, digest_of
from ranker_data.preparation.prepare import prepare
from ranker_data.preparation.source import quote_text
from ranker_data.schema import Field, Label, Schema, Task


class MovielensConverter:
    """Converts `ratings.dat`, `ratings.csv` or RecBole's `inter`, with movies and users if there.

    label
        like     the rating is `like_from` or more
    events
        all ratings, with the rating as a cross feature
    """

    def __init__(
        self,
        *,
        like_from: float = 4.0,
        split: str = "last",
        valid_samples: int = 10,
        test_samples: int = 10,
        valid_fraction: float = 0.1,
        test_fraction: float = 0.1,
        min_item_count: int = 1,
        num_parts: int = 16,
        memory_limit: str = "4GB",
        num_threads: int = 2,
    ):
        """Sets the definitions.

        Args:
            like_from: least rating of a like.
            split: "last" holds out each user's last ratings, "time" splits all at the same moments.
            valid_samples: ratings of a user for validation, with split "last".
            test_samples: ratings of a user for testing, with split "last".
            valid_fraction: share of the ratings for validation, with split "time".
            test_fraction: share of the ratings for testing, with split "time".
            min_item_count: movies rated less often than this before validation get id 0.
            num_parts: number of co-partitioned files.
            memory_limit: of the engine.
            num_threads: of the engine.
        """
        self._split: Split
        if split == "last":
            self._split = LastSplit(valid_samples=valid_samples, test_samples=test_samples)
        elif split == "time":
            self._split = TimeSplit(valid_fraction=valid_fraction, test_fraction=test_fraction)
        else:
            raise ValueError(f"dataset.converter.split is {split!r}, must be 'last' or 'time'")
        self._like_from = like_from
        self._min_item_count = min_item_count
        self._num_parts = num_parts
        self._memory_limit = memory_limit
        self._num_threads = num_threads

    def prepare(self, source: Path | None, out: Path) -> Schema:
        """Converts the files in `source`."""
        if source is None:
            raise ValueError("MovieLens needs a source: the folder with its original files")
        files = find_format(source)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.raw-", dir=out.parent) as folder:
            events, samples = Path(folder) / "events.parquet", Path(folder) / "samples.parquet"
            with connect(
                memory_limit=self._memory_limit,
                num_threads=self._num_threads,
                spill=Path(folder) / "engine",
            ) as connection:
                user_columns = create_relations(connection, files)
                for path, sql in (
                    (events, _EVENTS_SQL),
                    (samples, _samples_sql(self._like_from, user_columns)),
                ):
                    target = quote_text(str(path))
                    connection.execute(f"COPY ({sql}) TO {target} (FORMAT parquet)")
            plan = self._plan(user_columns)
            return prepare(
                plan,
                events=events,
                samples=samples,
                out=out,
                digest=digest_of({"plan": plan.digest(), "like_from": self._like_from}),
                memory_limit=self._memory_limit,
                num_threads=self._num_threads,
            )

    def _plan(self, user_columns: tuple[str, ...]) -> Preparation:
        user_fields = (Field(name=n, kind="id", side="user", table=n) for n in user_columns)
        return Preparation(
            name="movielens",
            time_unit="s",
            fields=(
                Field(name="user_id", kind="id", side="user", table="user"),
                *user_fields,
                Field(name="item_id", kind="id", table="item"),
                Field(name="genres", kind="ids", table="genre"),
            ),
            behaviors=(
                Field(name="item_id", kind="id", table="item"),
                Field(name="genres", kind="ids", table="genre"),
                Field(name="rating", kind="id", table="rating"),
            ),
            labels=(Label(name="like"),),
            tasks=(Task(name="like", label="like"),),
            group="user",
            split=self._split,
            min_count={"item": self._min_item_count},
            num_parts=self._num_parts,
        )


_EVENTS_SQL = """
SELECT r.user_id AS "user", r."time", r.item_id, m.genres,
    CAST(CAST(r.rating AS DOUBLE) AS STRING) AS rating
FROM ratings r LEFT JOIN movies m ON r.item_id = m.item_id
"""


def _samples_sql(like_from: float, user_columns: tuple[str, ...]) -> str:
    profile = "".join(f", u.{name}" for name in user_columns)
    join = "LEFT JOIN users u ON r.user_id = u.user_id" if user_columns else ""
    return f"""
    SELECT r.user_id AS "user", r."time", r.user_id{profile}, r.item_id, m.genres,
        CASE WHEN r.rating >= {like_from!r} THEN 1 ELSE 0 END AS "like"
    FROM ratings r LEFT JOIN movies m ON r.item_id = m.item_id {join}
    """
