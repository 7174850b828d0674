"""MovieLens (Harper and Konstan 2015) in its original files, and in RecBole's atomic files.

A rating is a sample, liked if it is high enough, and an event for later samples. Three quarters of
the ratings share their second with another one of the same user: only strictly earlier ratings are
visible, ties are cut off.
"""

from pathlib import Path

import duckdb

from ranker_data.datasets.conversion import RawRelations, convert
from ranker_data.datasets.movielens_files import create_relations, find_format
from ranker_data.preparation.engine import Engine
from ranker_data.preparation.plan import LastSplit, Preparation, Split, TimeSplit
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

    def prepare(self, source: Path | None, out: Path, engine: Engine | None = None) -> Schema:
        """Converts the files in `source`."""
        if source is None:
            raise ValueError("MovieLens needs a source: the folder with its original files")
        files = find_format(source)

        def build(connection: duckdb.DuckDBPyConnection) -> RawRelations:
            user_columns = create_relations(connection, files)
            connection.execute(_EVENTS_SQL)
            connection.execute(_samples_sql(self._like_from, user_columns))
            return RawRelations(plan=self._plan(user_columns))

        settings = {
            "converter": "movielens",
            "like_from": self._like_from,
            "has_users": files.users is not None,
            "plan": self._plan(()).digest(),
        }
        return convert(build, out=out, settings=settings, engine=engine)

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
CREATE VIEW event AS
SELECT r.user_id AS "user", r."time", r.item_id, m.genres,
    CAST(CAST(r.rating AS DOUBLE) AS STRING) AS rating
FROM ratings r LEFT JOIN movies m ON r.item_id = m.item_id
"""


def _samples_sql(like_from: float, user_columns: tuple[str, ...]) -> str:
    profile = "".join(f", u.{name}" for name in user_columns)
    join = "LEFT JOIN users u ON r.user_id = u.user_id" if user_columns else ""
    return f"""
    CREATE VIEW sample AS
    SELECT r.user_id AS "user", r."time", r.user_id{profile}, r.item_id, m.genres,
        CASE WHEN r.rating >= {like_from!r} THEN 1 ELSE 0 END AS "like"
    FROM ratings r LEFT JOIN movies m ON r.item_id = m.item_id {join}
    """
