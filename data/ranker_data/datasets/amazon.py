"""Amazon reviews (McAuley et al. 2015; Ni et al. 2019; Hou et al. 2024), with DIN's protocol.

A review is a positive sample whose history are the user's earlier reviews; a product that the user
never reviewed, drawn uniformly, is its negative (Zhou et al. 2018, section 6.1).
"""

from pathlib import Path

import duckdb

from ranker_data.datasets.amazon_files import create_relations, find_files
from ranker_data.datasets.conversion import RawRelations, convert, count_rows
from ranker_data.datasets.negatives import negatives_sql
from ranker_data.preparation.engine import Engine
from ranker_data.preparation.plan import LastSplit, Preparation
from ranker_data.schema import Field, Label, Schema, Task


class AmazonConverter:
    """Converts the reviews of one category: JSON lines, or the CSV of ratings, and `meta_*`.

    label
        review    the user reviewed the product (1) or it was drawn (0)
    events
        all reviews, with the rating as a cross feature
    split
        each user's last review, with its negatives, is for testing and the one before for
        validation; reviews of one moment go together
    """

    def __init__(
        self,
        *,
        negatives: int = 1,
        seed: int = 2026,
        valid_reviews: int = 1,
        min_user_reviews: int = 5,
        num_parts: int = 16,
    ):
        """Sets the definitions.

        Args:
            negatives: drawn products per review.
            seed: of the draws.
            valid_reviews: reviews of a user for validation; 0 leaves them in training, as in the
                paper.
            min_user_reviews: users with fewer reviews are left out.
            num_parts: number of co-partitioned files.
        """
        if negatives < 1 or valid_reviews < 0 or min_user_reviews < 2:
            raise ValueError(
                f"dataset.converter.negatives ({negatives}) must be at least 1, valid_reviews "
                f"({valid_reviews}) not negative and min_user_reviews ({min_user_reviews}) at "
                "least 2"
            )
        self._negatives = negatives
        self._seed = seed
        self._min_user_reviews = min_user_reviews
        self._plan = _plan(
            LastSplit(valid_samples=valid_reviews * (1 + negatives), test_samples=1 + negatives),
            num_parts,
        )

    def prepare(self, source: Path | None, out: Path, engine: Engine | None = None) -> Schema:
        """Converts the files in `source`, or the file of reviews `source`."""
        files = find_files(source)

        def build(connection: duckdb.DuckDBPyConnection) -> RawRelations:
            create_relations(connection, files)
            return self._build(connection)

        settings = {
            "converter": "amazon",
            "negatives": self._negatives,
            "seed": self._seed,
            "min_user_reviews": self._min_user_reviews,
            "plan": self._plan.digest(),
        }
        return convert(build, out=out, settings=settings, engine=engine)

    def _build(self, connection: duckdb.DuckDBPyConnection) -> RawRelations:
        connection.execute(
            f"""
            CREATE TABLE kept AS
            SELECT r.*, min("time") OVER (PARTITION BY user_id) AS first_time FROM reviews r
            WHERE user_id IN (
                SELECT user_id FROM reviews GROUP BY user_id
                HAVING count(*) >= {self._min_user_reviews}
            )
            """
        )
        connection.execute(_RELATIONS_SQL)
        drawn = negatives_sql(
            positives="positive",
            pool="pool",
            refused="(SELECT DISTINCT user_id AS scope, item_id FROM reviews)",
            count=self._negatives,
            seed=self._seed,
        )
        connection.execute(f"CREATE TABLE drawn AS {drawn}")
        connection.execute(_SAMPLES_SQL)
        wanted = count_rows(connection, "positive") * self._negatives
        return RawRelations(
            plan=self._plan,
            counts={
                "reviews_of_users_with_few": count_rows(connection, "reviews")
                - count_rows(connection, "kept"),
                "reviews_without_an_earlier_one": count_rows(
                    connection, "kept", '"time" = first_time'
                ),
                "negatives_that_could_not_be_drawn": wanted - count_rows(connection, "drawn"),
            },
        )


# reviews at the user's first moment have no history and are no samples, as in the paper
_RELATIONS_SQL = """
CREATE TABLE pool AS
SELECT item_id, row_number() OVER (ORDER BY item_id) - 1 AS place
FROM (SELECT DISTINCT item_id FROM kept);
CREATE TABLE positive AS
SELECT *, user_id AS scope, concat_ws('|', user_id, item_id, line) AS key,
    (SELECT count(*) FROM pool) AS available
FROM kept WHERE "time" > first_time;
CREATE TABLE categories AS
SELECT item_id, min(category) AS category FROM items GROUP BY item_id;
CREATE VIEW event AS
SELECT k.user_id AS "user", k."time", k.line AS "order", k.item_id, c.category,
    CAST(k.rating AS VARCHAR) AS rating
FROM kept k LEFT JOIN categories c ON k.item_id = c.item_id
"""

_SAMPLES_SQL = """
CREATE VIEW sample AS
WITH together AS (
    SELECT key, user_id, "time", item_id, 1 AS review FROM positive
    UNION ALL
    SELECT p.key, p.user_id, p."time", d.item_id, 0 AS review
    FROM drawn d JOIN positive p ON d.key = p.key
)
SELECT t.user_id AS "user", t."time", t.key AS request, t.user_id, t.item_id, c.category, t.review
FROM together t LEFT JOIN categories c ON t.item_id = c.item_id
"""


def _plan(split: LastSplit, num_parts: int) -> Preparation:
    return Preparation(
        name="amazon",
        time_unit="s",
        fields=(
            Field(name="user_id", kind="id", side="user", table="user"),
            Field(name="item_id", kind="id", table="item"),
            Field(name="category", kind="id", table="category"),
        ),
        behaviors=(
            Field(name="item_id", kind="id", table="item"),
            Field(name="category", kind="id", table="category"),
            Field(name="rating", kind="id", table="rating"),
        ),
        labels=(Label(name="review"),),
        tasks=(Task(name="review", label="review"),),
        group="user",
        split=split,
        num_parts=num_parts,
    )
